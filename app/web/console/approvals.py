"""What waits for a second person, and when do promotions rest?"""

from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, URLEncodedBody

from app.domain.role import Role
from app.errors import PolicyError
from app.services.container import Services
from app.web.authentication import Asked, principal_of, services_of
from app.web.bodies import NewFreeze, Promote, Reason
from app.web.console.access import seen_by
from app.web.console.pages import goes_to, page

_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_STEER = [seen_by(Role.OPERATOR, Role.APPROVER)]
_APPROVE = [seen_by(Role.APPROVER)]
_SEE_POLICY = (Role.AUDITOR, Role.OPERATOR, Role.APPROVER)


class Plan(msgspec.Struct):
    """The hash of the files that were looked at."""

    files_sha256: str


@get("/approvals", guards=_SEE, sync_to_thread=True)
def approvals(request: Asked) -> Response[bytes]:
    services, by = services_of(request), principal_of(request)
    return page(
        request,
        "approvals.html",
        title="Approvals",
        asked=services.approvals.asked(by),
        plan=_plan(services) if by.may(*_SEE_POLICY) else None,
        freezes=services.freezes.all(),
        names=services.administration.names(),
        rollouts=services.plane.view.policy.book.names,
    )


@post("/approvals/{name:str}", status_code=200, guards=_APPROVE)
async def approve(request: Asked, name: FromPath[str], data: URLEncodedBody[Promote]) -> Response[bytes]:
    """Vouch for the gate that the dialog showed: of another revision it is refused."""
    await services_of(request).approvals.approve(
        name,
        to=data.to,
        reason=data.reason,
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return goes_to(request, "/approvals")


@post("/policies/apply", status_code=200, guards=_STEER)
async def apply(request: Asked, data: URLEncodedBody[Plan]) -> Response[bytes]:
    """Propose the files, or apply what another person has proposed."""
    await services_of(request).policies.apply(principal_of(request), files_sha256=data.files_sha256)
    return goes_to(request, "/approvals")


@post("/freezes", status_code=200, guards=_STEER)
async def add_freeze(request: Asked, data: URLEncodedBody[NewFreeze]) -> Response[bytes]:
    await services_of(request).freezes.add(**msgspec.structs.asdict(data), by=principal_of(request))
    return goes_to(request, "/approvals")


@post("/freezes/{freeze_id:str}/end", status_code=200, guards=_APPROVE)
async def end_freeze(
    request: Asked, freeze_id: FromPath[str], data: URLEncodedBody[Reason]
) -> Response[bytes]:
    await services_of(request).freezes.end(freeze_id, reason=data.reason, by=principal_of(request))
    return goes_to(request, "/approvals")


def _plan(services: Services) -> dict[str, Any]:
    """What the policy files would change, or the `problem` that keeps them from being read."""
    try:
        return {**services.policies.diff(), "problem": None}
    except (PolicyError, OSError) as error:
        return {"problem": str(error), "changes": []}
