"""Freezes over HTTP: when promotions rest."""

from typing import Any

from litestar import get, post
from litestar.params import FromPath, JSONBody

from app.domain.role import Role
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import NewFreeze, Reason

_SEE = [requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]


@get("/v1/freezes", guards=_SEE, sync_to_thread=True)
def freezes(request: Asked) -> dict[str, Any]:
    """Those that nobody ended; `active` where the window is open now."""
    return {"freezes": services_of(request).freezes.all()}


@post("/v1/freezes", status_code=200, guards=[requires(Role.OPERATOR, Role.APPROVER)])
async def add_freeze(request: Asked, data: JSONBody[NewFreeze]) -> dict[str, Any]:
    """No promotion, activation above shadow or rise of exposure in these hours, or in these alone."""
    return await services_of(request).freezes.add(
        kind=data.kind,
        rollout=data.rollout,
        starts_at=data.starts_at,
        ends_at=data.ends_at,
        weekly=data.weekly,
        zone=data.zone,
        reason=data.reason,
        by=principal_of(request),
    )


@post("/v1/freezes/{freeze_id:str}/end", status_code=200, guards=[requires(Role.APPROVER)])
async def end_freeze(request: Asked, freeze_id: FromPath[str], data: JSONBody[Reason]) -> dict[str, Any]:
    """End it before its time: that loosens."""
    return await services_of(request).freezes.end(freeze_id, reason=data.reason, by=principal_of(request))
