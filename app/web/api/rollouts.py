"""Rollouts over HTTP: see where they stand, and the levers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.types import Guard

from app.domain.phase import Phase
from app.domain.role import Role
from app.domain.rollout import Comparison
from app.errors import InvalidInput
from app.services.container import Services
from app.services.succession import Act, Wish
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import (
    Exposure,
    InvestigationClosed,
    KillSwitch,
    Promote,
    RampChange,
    Reason,
    VersionChange,
)

_SEE = [requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_STEER = [requires(Role.OPERATOR, Role.APPROVER)]


@get("/v1/rollouts", guards=_SEE, sync_to_thread=True)
def rollouts(request: Asked) -> dict[str, Any]:
    return {"rollouts": services_of(request).rollouts.all()}


@get("/v1/rollouts/{name:str}", guards=_SEE, sync_to_thread=True)
def rollout(request: Asked, name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.one(name)


@get("/v1/rollouts/{name:str}/gate", guards=_SEE, sync_to_thread=True)
def gate(
    request: Asked,
    name: FromPath[str],
    to: FromQuery[Literal["shadow", "advisory", "enforced", "version"] | None] = None,
) -> dict[str, Any]:
    """What a promotion to a phase needs, or with `to=version` what the candidate does."""
    if to == "version":
        return services_of(request).experiments.gate(name)
    return services_of(request).rollouts.gate(name, None if to is None else Phase(to))


@get("/v1/rollouts/{name:str}/guardrails", guards=_SEE, sync_to_thread=True)
def guardrails(request: Asked, name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.guardrails(name)


@get("/v1/rollouts/{name:str}/evidence", guards=_SEE, sync_to_thread=True)
def evidence(request: Asked, name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.evidence(name)


@get("/v1/rollouts/{name:str}/transitions", guards=_SEE, sync_to_thread=True)
def transitions(
    request: Asked,
    name: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    return {"transitions": services_of(request).rollouts.transitions(name, limit=limit)}


Pulled = Awaitable[dict[str, Any]]


def _lever(
    act: str,
    body: type[msgspec.Struct],
    pull: Callable[[Services], Callable[..., Pulled]],
    what: str,
    *,
    guards: list[Guard] = _STEER,
) -> HTTPRouteHandler:
    """One whose body is all that it takes."""

    @post(f"/v1/rollouts/{{name:str}}/{act}", status_code=200, guards=guards, description=what)
    async def lever(
        request: Asked,
        name: FromPath[str],
        data: JSONBody[body],  # type: ignore[valid-type]
    ) -> dict[str, Any]:
        fields = msgspec.structs.asdict(data)
        return await _moved(
            request, name, pull(services_of(request))(name, **fields, by=principal_of(request))
        )

    return lever


promote = _lever(
    "promote",
    Promote,
    lambda services: services.levers.promote,
    "One phase up, when the gate passes; 409 with the whole gate when it does not.",
)
approve = _lever(
    "approve",
    Promote,
    lambda services: services.approvals.approve,
    "Say that another may promote it; 409 with the whole gate where the evidence is not enough.",
    guards=[requires(Role.APPROVER)],
)
exposure = _lever(
    "exposure",
    Exposure,
    lambda services: services.levers.expose,
    "The share of actors that the phase applies to.",
)
rollback = _lever("rollback", Reason, lambda services: services.levers.roll_back, "Down at once.")
hold = _lever(
    "hold", Reason, lambda services: services.levers.hold, "Freeze promotions and ramps; rollbacks go on."
)
resume = _lever("resume", Reason, lambda services: services.levers.resume, "End the hold.")
investigation = _lever(
    "investigation",
    InvestigationClosed,
    lambda services: services.levers.close_investigation,
    "Close the open investigation of a rollback: its cause, and what was done.",
)


@post("/v1/rollouts/{name:str}/ramp", status_code=200, guards=_STEER)
async def ramp(request: Asked, name: FromPath[str], data: JSONBody[RampChange]) -> dict[str, Any]:
    """Approve automatic steps of exposure, or end them where they are."""
    ramps, by = services_of(request).ramps, principal_of(request)
    if data.action == "stop":
        return await _moved(request, name, ramps.stop(name, reason=data.reason, by=by))
    if data.expected_revision is None:
        raise InvalidInput([("expected_revision", "is needed to start: the revision that was looked at")])
    started = ramps.start(
        name, to=data.to, reason=data.reason, expected_revision=data.expected_revision, by=by
    )
    return await _moved(request, name, started)


@post("/v1/rollouts/{name:str}/version", status_code=200, guards=_STEER)
async def version(request: Asked, name: FromPath[str], data: JSONBody[VersionChange]) -> dict[str, Any]:
    """Let a candidate observe, activate one, go back to the previous version, or withdraw the candidate."""
    wish = Wish(
        act=Act(data.action),
        reason=data.reason,
        version=data.version,
        mode=Comparison(data.mode),
        share=data.share,
        expected_revision=data.expected_revision,
    )
    pulled = services_of(request).succession.change(name, wish, by=principal_of(request))
    return await _moved(request, name, pulled)


@post("/v1/kill-switch", status_code=200, guards=_STEER)
async def kill_switch(request: Asked, data: JSONBody[KillSwitch]) -> dict[str, Any]:
    """Every rollout by the legacy engine at once; an approver releases it."""
    transition = await services_of(request).levers.kill(
        engaged=data.engaged, reason=data.reason, by=principal_of(request)
    )
    return {"engaged": data.engaged, "transition": transition}


async def _moved(request: Asked, name: str, pulled: Pulled) -> dict[str, Any]:
    """The rollout as a lever has left it, and the transition that made it so."""
    transition = await pulled
    return {**await asyncio.to_thread(services_of(request).rollouts.one, name), "transition": transition}
