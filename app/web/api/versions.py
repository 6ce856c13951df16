"""Versions over HTTP: which there are, registering and validating one, and how candidates do."""

from typing import Any

from litestar import get, post
from litestar.params import FromPath, JSONBody

from app.domain.role import Role
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import Validate, decode, read_body
from app.web.documented import TakesVersion

_SEE = [requires(Role.AUDITOR, Role.OPERATOR, Role.APPROVER)]


@get("/v1/versions", guards=_SEE, sync_to_thread=True)
def versions(request: Asked) -> dict[str, Any]:
    """Every registered version, and what it is to each rollout."""
    return {"versions": services_of(request).registry.all()}


@post("/v1/versions", status_code=200, guards=[requires(Role.OPERATOR)], operation_class=TakesVersion)
async def register(request: Asked) -> dict[str, Any]:
    """Register a version: `{id}` reads the files again, anything more is a whole declaration."""
    body = decode(await read_body(request))
    return await services_of(request).registry.register(body, principal_of(request))


@post(
    "/v1/versions/{version_id:str}/validate", status_code=200, guards=[requires(Role.OPERATOR, Role.APPROVER)]
)
async def validate(request: Asked, version_id: FromPath[str], data: JSONBody[Validate]) -> dict[str, Any]:
    """Ask the version about every situation of the suites; the report is recorded as evidence."""
    return await services_of(request).validations.run(
        version_id,
        suites=data.suites,
        against=data.against,
        reasons=data.reasons,
        by=principal_of(request),
    )


@get(
    "/v1/versions/{version_id:str}/validations",
    guards=_SEE,
    sync_to_thread=True,
)
def validations(request: Asked, version_id: FromPath[str]) -> dict[str, Any]:
    """The reports of a version, newest first."""
    return {"validations": services_of(request).validations.of(version_id)}


@get(
    "/v1/experiments",
    guards=[requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)],
    sync_to_thread=True,
)
def experiments(request: Asked) -> dict[str, Any]:
    """Every rollout that has a candidate, with the comparison so far and the candidate's gate."""
    return {"experiments": services_of(request).experiments.all()}
