"""Versions over HTTP: which there are, registering one, and how candidates do."""

from typing import Any

from litestar import Request, get, post

from app.domain.role import Role
from app.web.authentication import principal_of, requires, services_of
from app.web.bodies import decode, read_body
from app.web.documented import TakesVersion

_SEE = [requires(Role.AUDITOR, Role.OPERATOR, Role.APPROVER)]


@get("/v1/versions", guards=_SEE, sync_to_thread=True)
def versions(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Every registered version, and what it is to each rollout."""
    return {"versions": services_of(request).registry.all()}


@post("/v1/versions", status_code=200, guards=[requires(Role.OPERATOR)], operation_class=TakesVersion)
async def register(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Register a version: `{id}` reads the files again, anything more is a whole declaration."""
    body = decode(await read_body(request))
    return await services_of(request).registry.register(body, principal_of(request))


@get(
    "/v1/experiments",
    guards=[requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)],
    sync_to_thread=True,
)
def experiments(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Every rollout that has a candidate, with the comparison so far and the candidate's gate."""
    return {"experiments": services_of(request).experiments.all()}
