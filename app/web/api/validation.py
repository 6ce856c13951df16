"""Validation over HTTP: judge a version by the suites, and see what came of it."""

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath, JSONBody

from app.domain.role import Role
from app.web.authentication import principal_of, requires, services_of


class Validate(msgspec.Struct, forbid_unknown_fields=True):
    """`suites` are names of files in policies/suites, all of them if empty; `against` is a version.

    `reasons` asks why, too: about eight times as long.
    """

    suites: list[str] = []
    against: str | None = None
    reasons: bool = False


@post(
    "/v1/versions/{version_id:str}/validate", status_code=200, guards=[requires(Role.OPERATOR, Role.APPROVER)]
)
async def validate(
    request: Request[Any, Any, Any], version_id: FromPath[str], data: JSONBody[Validate]
) -> dict[str, Any]:
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
    guards=[requires(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)],
    sync_to_thread=True,
)
def validations(request: Request[Any, Any, Any], version_id: FromPath[str]) -> dict[str, Any]:
    """The reports of a version, newest first."""
    return {"validations": services_of(request).validations.of(version_id)}
