"""The plane over HTTP: keys, policies, audit, drills, events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from app.domain.role import Role
from app.services.notices import FOR_PAGES
from app.store.history import TransitionFilters
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import Fault, NewKey, instant_us

_ADMIN = [requires(Role.ADMIN)]
_AUDIT = [requires(Role.AUDITOR, Role.OPERATOR, Role.APPROVER)]


@get("/v1/keys", guards=_ADMIN, sync_to_thread=True)
def keys(request: Asked) -> dict[str, Any]:
    return {"keys": services_of(request).administration.keys()}


@post("/v1/keys", status_code=200, guards=_ADMIN)
async def create_key(request: Asked, data: JSONBody[NewKey]) -> dict[str, Any]:
    """A new key; `key` is shown this once."""
    return await services_of(request).administration.create_key(
        name=data.name,
        roles=data.roles,
        actors=data.actors,
        expires_us=instant_us("expires_at", data.expires_at),
        by=principal_of(request),
    )


@delete("/v1/keys/{key_id:str}", status_code=200, guards=_ADMIN)
async def revoke_key(request: Asked, key_id: FromPath[str]) -> dict[str, Any]:
    return await services_of(request).administration.revoke_key(key_id, by=principal_of(request))


@get("/v1/policies/diff", guards=_AUDIT, sync_to_thread=True)
def policy_diff(request: Asked) -> dict[str, Any]:
    """What the policy files would change of what is in force."""
    return services_of(request).policies.diff()


@post("/v1/policies/apply", status_code=200, guards=[requires(Role.OPERATOR, Role.APPROVER)])
async def policy_apply(request: Asked) -> dict[str, Any]:
    """Apply the policy files; what loosens is proposed by one person and applied by another."""
    return await services_of(request).policies.apply(principal_of(request))


@get("/v1/audit", guards=_AUDIT, sync_to_thread=True)
def audit(
    request: Asked,
    *,
    rollout: FromQuery[str | None] = None,
    kind: FromQuery[str | None] = None,
    who: FromQuery[str | None] = None,
    automatic: FromQuery[bool | None] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    """Transitions of all rollouts, newest first, by cursor; `who` is an id or a name."""
    filters = TransitionFilters(
        rollout, kind, who, automatic, instant_us("since", since), instant_us("until", until)
    )
    return services_of(request).administration.audit(filters, cursor=cursor, limit=limit)


@get("/v1/audit/verify", guards=_AUDIT, sync_to_thread=True)
def audit_verify(request: Asked) -> dict[str, Any]:
    """Whether the hash chain holds from its beginning to its head."""
    return services_of(request).administration.verify()


@post("/v1/drills/fault", status_code=200, guards=_ADMIN)
async def drill_fault(request: Asked, data: JSONBody[Fault]) -> dict[str, Any]:
    """Make the model worker misbehave, where PHASEGATE_DRILLS=1 allows it."""
    await services_of(request).health.inject(data.fault)
    return {"fault": data.fault}


@get("/v1/events", guards=_AUDIT)
async def events(request: Asked) -> ServerSentEvent:
    """Transitions, guardrail alarms and reports as they happen; a comment every 15 s keeps the line open."""

    async def stream() -> AsyncIterator[ServerSentEventMessage]:
        async for kind, body in services_of(request).notices.follow():
            if not kind:
                yield ServerSentEventMessage(comment="still here")
            elif kind not in FOR_PAGES:
                yield ServerSentEventMessage(event=kind, data=msgspec.json.encode(body).decode())

    return ServerSentEvent(stream())
