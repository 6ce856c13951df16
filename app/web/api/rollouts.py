"""Rollouts over HTTP: see where they stand, and the levers."""

import asyncio
from typing import Annotated, Any, Literal

from litestar import Request, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.domain.phase import Phase
from app.domain.role import Role
from app.domain.rollout import Comparison
from app.services.container import Services
from app.services.succession import Act, Wish
from app.web.authentication import principal_of, requires, services_of
from app.web.bodies import Exposure, InvestigationClosed, KillSwitch, Promote, Reason, VersionChange
from app.web.parse import phase_of, words_of

_SEE = [requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_STEER = [requires(Role.OPERATOR, Role.APPROVER)]


@get("/v1/rollouts", guards=_SEE, sync_to_thread=True)
def rollouts(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"rollouts": services_of(request).rollouts.all()}


@get("/v1/rollouts/{name:str}", guards=_SEE, sync_to_thread=True)
def rollout(request: Request[Any, Any, Any], name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.one(name)


@get("/v1/rollouts/{name:str}/gate", guards=_SEE, sync_to_thread=True)
def gate(
    request: Request[Any, Any, Any],
    name: FromPath[str],
    to: FromQuery[Literal["shadow", "advisory", "enforced", "version"] | None] = None,
) -> dict[str, Any]:
    """What a promotion to a phase needs, or with `to=version` what the candidate does."""
    if to == "version":
        return services_of(request).experiments.gate(name)
    return services_of(request).rollouts.gate(name, None if to is None else Phase(to))


@get("/v1/rollouts/{name:str}/guardrails", guards=_SEE, sync_to_thread=True)
def guardrails(request: Request[Any, Any, Any], name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.guardrails(name)


@get("/v1/rollouts/{name:str}/evidence", guards=_SEE, sync_to_thread=True)
def evidence(request: Request[Any, Any, Any], name: FromPath[str]) -> dict[str, Any]:
    return services_of(request).rollouts.evidence(name)


@get("/v1/rollouts/{name:str}/transitions", guards=_SEE, sync_to_thread=True)
def transitions(
    request: Request[Any, Any, Any],
    name: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    return {"transitions": services_of(request).rollouts.transitions(name, limit=limit)}


@post("/v1/rollouts/{name:str}/promote", status_code=200, guards=_STEER)
async def promote(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[Promote]
) -> dict[str, Any]:
    """One phase up, when the gate passes; 409 with the whole gate when it does not."""
    transition = await services_of(request).levers.promote(
        name,
        to=phase_of("to", data.to),
        reason=words_of("reason", data.reason),
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/rollback", status_code=200, guards=_STEER)
async def rollback(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[Reason]
) -> dict[str, Any]:
    """Down at once, whatever the revision."""
    transition = await services_of(request).levers.roll_back(
        name, reason=words_of("reason", data.reason), by=principal_of(request)
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/exposure", status_code=200, guards=_STEER)
async def exposure(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[Exposure]
) -> dict[str, Any]:
    transition = await services_of(request).levers.expose(
        name,
        exposure=data.exposure,
        reason=words_of("reason", data.reason),
        expected_revision=data.expected_revision,
        by=principal_of(request),
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/hold", status_code=200, guards=_STEER)
async def hold(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[Reason]
) -> dict[str, Any]:
    transition = await services_of(request).levers.hold(
        name, reason=words_of("reason", data.reason), by=principal_of(request)
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/resume", status_code=200, guards=_STEER)
async def resume(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[Reason]
) -> dict[str, Any]:
    transition = await services_of(request).levers.resume(
        name, reason=words_of("reason", data.reason), by=principal_of(request)
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/version", status_code=200, guards=_STEER)
async def version(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[VersionChange]
) -> dict[str, Any]:
    """Let a candidate observe, activate one, go back to the previous version, or withdraw the candidate."""
    wish = Wish(
        act=Act(data.action),
        reason=words_of("reason", data.reason),
        version=data.version,
        mode=Comparison(data.mode),
        share=data.share,
        expected_revision=data.expected_revision,
    )
    transition = await services_of(request).succession.change(name, wish, by=principal_of(request))
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/rollouts/{name:str}/investigation", status_code=200, guards=_STEER)
async def investigation(
    request: Request[Any, Any, Any], name: FromPath[str], data: JSONBody[InvestigationClosed]
) -> dict[str, Any]:
    """Close the open investigation of a rollback: its cause, and what was done."""
    transition = await services_of(request).levers.close_investigation(
        name, cause=data.cause, fix=words_of("fix", data.fix), by=principal_of(request)
    )
    return await _with_rollout(services_of(request), name, transition)


@post("/v1/kill-switch", status_code=200, guards=_STEER)
async def kill_switch(request: Request[Any, Any, Any], data: JSONBody[KillSwitch]) -> dict[str, Any]:
    """Every rollout by the legacy engine at once; an approver releases it."""
    transition = await services_of(request).levers.kill(
        engaged=data.engaged, reason=words_of("reason", data.reason), by=principal_of(request)
    )
    return {"engaged": data.engaged, "transition": transition}


async def _with_rollout(services: Services, name: str, transition: dict[str, Any]) -> dict[str, Any]:
    """The rollout as it is now, and the transition that made it so."""
    return {**await asyncio.to_thread(services.rollouts.one, name), "transition": transition}
