"""The plane over HTTP: keys, policies, versions, audit, drills, events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.params import Dependency, Parameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from app.domain.role import Role
from app.errors import Forbidden
from app.services.container import Services
from app.web.authentication import principal_of, requires
from app.web.bodies import Fault, NewKey
from app.web.parse import instant_us

Plane = Annotated[Services, Dependency(skip_validation=True)]

_ADMIN = [requires(Role.ADMIN)]
_AUDIT = [requires(Role.AUDITOR, Role.OPERATOR, Role.APPROVER)]


@get("/v1/keys", guards=_ADMIN, sync_to_thread=True)
def keys(services: Plane) -> dict[str, Any]:
    return {"keys": services.administration.keys()}


@post("/v1/keys", status_code=200, guards=_ADMIN)
async def create_key(request: Request[Any, Any, Any], services: Plane, data: NewKey) -> dict[str, Any]:
    """A new key; `key` is shown this once."""
    return await services.administration.create_key(
        name=data.name,
        roles=data.roles,
        actors=data.actors,
        expires_us=instant_us("expires_at", data.expires_at),
        by=principal_of(request),
    )


@delete("/v1/keys/{key_id:str}", status_code=200, guards=_ADMIN)
async def revoke_key(request: Request[Any, Any, Any], services: Plane, key_id: str) -> dict[str, Any]:
    return await services.administration.revoke_key(key_id, by=principal_of(request))


@get("/v1/policies/diff", guards=_AUDIT, sync_to_thread=True)
def policy_diff(services: Plane) -> dict[str, Any]:
    """What the policy files would change of what is in force."""
    return services.policies.diff()


@post("/v1/policies/apply", status_code=200, guards=[requires(Role.OPERATOR, Role.APPROVER)])
async def policy_apply(request: Request[Any, Any, Any], services: Plane) -> dict[str, Any]:
    """Apply the policy files; what loosens is proposed by one person and applied by another."""
    return await services.policies.apply(principal_of(request))


@get("/v1/versions", guards=_AUDIT, sync_to_thread=False)
def versions(services: Plane) -> dict[str, Any]:
    """The model versions of the policy files, and which one is loaded."""
    loaded = services.model.status
    return {
        "versions": [
            {
                "id": version.id,
                "state": "active" if version.id == services.model.version_id else "registered",
                "model": version.model_name,
                "model_sha256": loaded.sha256
                if version.id == services.model.version_id
                else version.model.sha256,
                "prompt": version.prompt,
                "prompt_sha256": version.prompt_sha256,
                "adapter": None if version.adapter is None else msgspec.to_builtins(version.adapter),
                "settings": version.settings,
                "calibration": None,
                "parent": None,
                "created_at": None,
            }
            for version in services.versions.values()
        ]
    }


@get("/v1/audit", guards=_AUDIT, sync_to_thread=True)
def audit(
    services: Plane, rollout: str | None = None, limit: Annotated[int, Parameter(ge=1, le=1_000)] = 100
) -> dict[str, Any]:
    """Transitions of all rollouts, newest first."""
    return {"transitions": services.administration.audit(rollout, limit=limit)}


@get("/v1/audit/verify", guards=_AUDIT, sync_to_thread=True)
def audit_verify(services: Plane) -> dict[str, Any]:
    """Whether the hash chain holds from its beginning to its head."""
    return services.administration.verify()


@post("/v1/drills/fault", status_code=200, guards=_ADMIN)
async def drill_fault(services: Plane, data: Fault) -> dict[str, Any]:
    """Make the model worker misbehave, where PHASEGATE_DRILLS=1 allows it."""
    if not services.drills:
        raise Forbidden("drills", "drills are off: start the server with PHASEGATE_DRILLS=1")
    await services.model.inject(data.fault)
    return {"fault": data.fault}


@get("/v1/events", guards=_AUDIT)
async def events(services: Plane) -> ServerSentEvent:
    """Transitions as they happen, as server-sent events; a comment every 15 seconds keeps the line open."""

    async def stream() -> AsyncIterator[ServerSentEventMessage]:
        async for kind, body in services.notices.follow():
            if not kind:
                yield ServerSentEventMessage(comment="still here")
            else:
                yield ServerSentEventMessage(event=kind, data=msgspec.json.encode(body).decode())

    return ServerSentEvent(stream())
