"""Rollouts over HTTP: see where they stand, and the levers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.domain.phase import Phase
from app.domain.role import Role
from app.domain.rollout import Comparison
from app.errors import InvalidInput
from app.services.levers import Levers
from app.services.ramps import RampWish
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
    phase_of,
    words_of,
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


@post("/v1/rollouts/{name:str}/promote", status_code=200, guards=_STEER)
async def promote(request: Asked, name: FromPath[str], data: JSONBody[Promote]) -> dict[str, Any]:
    """One phase up, when the gate passes; 409 with the whole gate when it does not."""
    pulled = services_of(request).levers.promote(
        name,
        to=phase_of("to", data.to),
        reason=words_of("reason", data.reason),
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return await _moved(request, name, pulled)


@post("/v1/rollouts/{name:str}/approve", status_code=200, guards=[requires(Role.APPROVER)])
async def approve(request: Asked, name: FromPath[str], data: JSONBody[Promote]) -> dict[str, Any]:
    """Say that another may promote it; 409 with the whole gate where anything else is missing."""
    given = services_of(request).approvals.approve(
        name,
        to=phase_of("to", data.to),
        reason=words_of("reason", data.reason),
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return await _moved(request, name, given)


@post("/v1/rollouts/{name:str}/exposure", status_code=200, guards=_STEER)
async def exposure(request: Asked, name: FromPath[str], data: JSONBody[Exposure]) -> dict[str, Any]:
    pulled = services_of(request).levers.expose(
        name,
        exposure=data.exposure,
        reason=words_of("reason", data.reason),
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return await _moved(request, name, pulled)


@post("/v1/rollouts/{name:str}/ramp", status_code=200, guards=_STEER)
async def ramp(request: Asked, name: FromPath[str], data: JSONBody[RampChange]) -> dict[str, Any]:
    """Approve automatic steps of exposure, or end them where they are."""
    ramps, reason, by = services_of(request).ramps, words_of("reason", data.reason), principal_of(request)
    if data.action == "stop":
        return await _moved(request, name, ramps.stop(name, reason=reason, by=by))
    if data.expected_revision is None:
        raise InvalidInput([("expected_revision", "is needed to start: the revision that was looked at")])
    wish = RampWish(data.to, reason, data.expected_revision, data.step_hours, data.observations)
    return await _moved(request, name, ramps.start(name, wish, by=by))


def _lever(act: str, pull: Callable[..., Awaitable[dict[str, Any]]], what: str) -> HTTPRouteHandler:
    """One that takes a reason alone, whatever the revision."""

    @post(f"/v1/rollouts/{{name:str}}/{act}", status_code=200, guards=_STEER, description=what)
    async def lever(request: Asked, name: FromPath[str], data: JSONBody[Reason]) -> dict[str, Any]:
        reason = words_of("reason", data.reason)
        pulled = pull(services_of(request).levers, name, reason=reason, by=principal_of(request))
        return await _moved(request, name, pulled)

    return lever


rollback = _lever("rollback", Levers.roll_back, "Down at once.")
hold = _lever("hold", Levers.hold, "Freeze promotions and ramps; rollbacks go on.")
resume = _lever("resume", Levers.resume, "End the hold.")


@post("/v1/rollouts/{name:str}/version", status_code=200, guards=_STEER)
async def version(request: Asked, name: FromPath[str], data: JSONBody[VersionChange]) -> dict[str, Any]:
    """Let a candidate observe, activate one, go back to the previous version, or withdraw the candidate."""
    wish = Wish(
        act=Act(data.action),
        reason=words_of("reason", data.reason),
        version=data.version,
        mode=Comparison(data.mode),
        share=data.share,
        expected_revision=data.expected_revision,
    )
    pulled = services_of(request).succession.change(name, wish, by=principal_of(request))
    return await _moved(request, name, pulled)


@post("/v1/rollouts/{name:str}/investigation", status_code=200, guards=_STEER)
async def investigation(
    request: Asked, name: FromPath[str], data: JSONBody[InvestigationClosed]
) -> dict[str, Any]:
    """Close the open investigation of a rollback: its cause, and what was done."""
    pulled = services_of(request).levers.close_investigation(
        name, cause=data.cause, fix=words_of("fix", data.fix), by=principal_of(request)
    )
    return await _moved(request, name, pulled)


@post("/v1/kill-switch", status_code=200, guards=_STEER)
async def kill_switch(request: Asked, data: JSONBody[KillSwitch]) -> dict[str, Any]:
    """Every rollout by the legacy engine at once; an approver releases it."""
    transition = await services_of(request).levers.kill(
        engaged=data.engaged, reason=words_of("reason", data.reason), by=principal_of(request)
    )
    return {"engaged": data.engaged, "transition": transition}


async def _moved(request: Asked, name: str, pulled: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The rollout as a lever has left it, and the transition that made it so."""
    transition = await pulled
    return {**await asyncio.to_thread(services_of(request).rollouts.one, name), "transition": transition}
