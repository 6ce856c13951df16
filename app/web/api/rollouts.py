"""Rollouts over HTTP: see where they stand, and the levers."""

import asyncio
from typing import Annotated, Any, Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.domain.phase import Phase
from app.domain.role import Role
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import KillSwitch
from app.web.levers import LEVERS, STEERING

_SEE = [requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_STEER = [requires(*STEERING)]


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
    return services_of(request).rollouts.evidence(name, principal_of(request))


@get("/v1/rollouts/{name:str}/transitions", guards=_SEE, sync_to_thread=True)
def transitions(
    request: Asked,
    name: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    return {"transitions": services_of(request).rollouts.transitions(name, limit=limit)}


def _lever(act: str, what: str) -> HTTPRouteHandler:
    lever = LEVERS[act]

    @post(
        f"/v1/rollouts/{{name:str}}/{act}", status_code=200, guards=[requires(*lever.roles)], description=what
    )
    async def pulled(
        request: Asked,
        name: FromPath[str],
        data: JSONBody[lever.body],  # type: ignore[name-defined]
    ) -> dict[str, Any]:
        services, by = services_of(request), principal_of(request)
        transition = await lever.pull(services, name, data, by)
        return {**await asyncio.to_thread(services.rollouts.one, name), "transition": transition}

    return pulled


promote = _lever("promote", "One phase up, when the gate passes; 409 with the whole gate when it does not.")
approve = _lever(
    "approve", "Say that another may promote it; 409 with the whole gate where the evidence is not enough."
)
exposure = _lever("exposure", "The share of actors that the phase applies to.")
rollback = _lever("rollback", "Down at once.")
hold = _lever("hold", "Freeze promotions and ramps; rollbacks go on.")
resume = _lever("resume", "End the hold.")
investigation = _lever(
    "investigation", "Close the open investigation of a rollback: its cause, and what was done."
)
ramp = _lever("ramp", "Approve automatic steps of exposure, or end them where they are.")
version = _lever(
    "version",
    "Let a candidate observe, activate one, go back to the previous version, or withdraw the candidate.",
)


@post("/v1/kill-switch", status_code=200, guards=_STEER)
async def kill_switch(request: Asked, data: JSONBody[KillSwitch]) -> dict[str, Any]:
    """Every rollout by the legacy engine at once; an approver releases it."""
    transition = await services_of(request).levers.kill(
        engaged=data.engaged, reason=data.reason, by=principal_of(request)
    )
    return {"engaged": data.engaged, "transition": transition}
