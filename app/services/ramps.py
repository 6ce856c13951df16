"""A person starts a ramp of exposure; who widens it, and who brings it down?"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.domain.clock import to_us
from app.domain.condition import percent
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.phase import Phase
from app.domain.ramp import (
    RampAssessment,
    RampContext,
    Watched,
    assess_ramp,
    carried_out,
    steps_up_to,
    to_wire,
)
from app.domain.role import Principal
from app.domain.rollout import Ramp, RampState, RolloutPolicy, RolloutState, exposed
from app.errors import Conflict, InvalidInput
from app.services.gates import Gates, refuse_hindered, surroundings
from app.services.judging import names_of
from app.services.levers import Levers
from app.services.plane import GUARD_PASS_STALE_S, Plane
from app.services.transitions import AUTOMATION, move
from app.store.ledger import Ledger
from app.store.rollouts import lock_state, read_plane
from app.store.streams import assessments
from app.store.transaction import Transaction


class Ramps:
    """Automation goes up only inside what a person approved, in the epoch in which they did (law 4)."""

    def __init__(
        self, plane: Plane, gates: Gates, levers: Levers, ledger: Ledger, *, now: Callable[[], datetime]
    ) -> None:
        self._plane = plane
        self._gates = gates
        self._levers = levers
        self._ledger = ledger
        self._now = now

    async def start(
        self, name: str, *, to: float, reason: str, expected_revision: int, by: Principal
    ) -> dict[str, Any]:
        """Approve the policy's steps up to the share `to`, from where the rollout stands.

        Raises `InvalidInput`, `NotFound`, `RevisionConflict`, and `Conflict` where the rollout is in shadow, held,
        killed, frozen, between two steps, at the last one, or has a ramp that is running.
        """
        now = self._now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self._levers.locked(tx, name, expected_revision)
            _check(tx.connection, state, policy, to, now=now)
            evidence = self._gates.evidence(tx.connection, state)
            if evidence.problem is not None:
                raise Conflict("evidence", f"the evidence cannot be read: {evidence.problem}")
            ramp = Ramp(
                steps=steps_up_to(policy, to),
                started_by=by.key_id,
                started_at=now,
                step_started_at=now,
                served_before_s=evidence.n(Metric.SERVED_S),
                observed_before=evidence.observed,
            )
            after = exposed(state, exposure=state.exposure, ramp=ramp)
            seen = {"ramp": to_wire(after, ramp, None)}
            return move(tx, state, after, kind="ramp", actor=by.key_id, reason=reason, now=now, evidence=seen)

        return await self._levers.done(await self._ledger.run(work))

    async def stop(self, name: str, *, reason: str, by: Principal) -> dict[str, Any]:
        """Stay where the rollout stands. Raises `NotFound` and `Conflict("no-ramp")`."""
        now = self._now()

        def work(tx: Transaction) -> dict[str, Any]:
            state = lock_state(tx, name)
            ramp = state.running_ramp
            if ramp is None:
                raise Conflict("no-ramp", f"{name} has no ramp that is running")
            after = exposed(state, exposure=state.exposure, ramp=ramp.ended(RampState.STOPPED, reason))
            return move(tx, state, after, kind="ramp", actor=by.key_id, reason=reason, now=now)

        return await self._levers.done(await self._ledger.run(work))

    async def advance(self) -> list[dict[str, Any]]:
        """Do what is due on every running ramp; returns the transitions that it made."""
        made = []
        view = self._plane.view
        for name in (policy.name for policy in view.policy.book.policies):
            if view.states[name].running_ramp is None:
                continue
            # One transaction each: none holds a rollout's row while it waits for another's.
            transition = await self._ledger.run(partial(self._advanced, name=name))
            if transition is not None:
                made.append(await self._levers.done(transition))
        return made

    def document(
        self, connection: Connection, policy: RolloutPolicy, state: RolloutState, evidence: Evidence
    ) -> dict[str, Any] | None:
        """The `ramp` shape, judged by the rollout's `evidence`, or None where it has none."""
        if state.ramp is None:
            return None
        assessed = None
        if state.running_ramp is not None:
            assessed = _assessed(connection, policy, state, evidence, now=self._now())
        return to_wire(state, state.ramp, assessed)

    def _advanced(self, tx: Transaction, *, name: str) -> dict[str, Any] | None:
        """Judged anew under the row's lock: what another leader or a person did first is seen here."""
        now = self._now()
        state, policy = self._levers.locked(tx, name, None)
        ramp = state.running_ramp
        if ramp is None:
            return None
        evidence = self._gates.evidence(tx.connection, state)
        assessed = _assessed(tx.connection, policy, state, evidence, now=now)
        after = carried_out(state, assessed, evidence, now=now)
        if after is state:
            return None
        return move(
            tx,
            state,
            after,
            kind="ramp" if after.exposure == state.exposure else "exposure",
            actor=AUTOMATION,
            reason=f"ramp {assessed.sentence}",
            now=now,
            evidence={"ramp": to_wire(state, ramp, assessed)},
        )


def _assessed(
    connection: Connection, policy: RolloutPolicy, state: RolloutState, evidence: Evidence, *, now: datetime
) -> RampAssessment:
    plane = read_plane(connection)
    names, said = names_of(policy), assessments(connection, state.name, epoch=state.epoch)
    context = RampContext(
        guardrails=[
            Watched(name, judged["outcome"], judged["sentence"])
            for name, judged in said.items()
            if name in names
        ],
        are_guardrails_stale=plane.guard_pass_us is None
        or to_us(now) - plane.guard_pass_us > GUARD_PASS_STALE_S * 1e6,
        around=surroundings(connection, state.name, now),
    )
    return assess_ramp(policy, state, evidence, context, now=now)


def _check(
    connection: Connection, state: RolloutState, policy: RolloutPolicy, to: float, *, now: datetime
) -> None:
    name, at, listed = state.name, percent(state.exposure), ", ".join(map(percent, policy.exposure))
    if to not in policy.exposure:
        raise InvalidInput([("to", f"must be one of the policy's steps: {listed}")])
    if state.phase is Phase.SHADOW:
        raise Conflict(
            "in-shadow", f"{name} is in shadow, which applies to everybody: there is nothing to widen"
        )
    if state.running_ramp is not None:
        stop = f"phasegate ramp stop {name} --reason …"
        raise Conflict("ramp-running", f"{name} has a running ramp already: {stop} ends it")
    refuse_hindered(connection, state, now)
    if state.exposure not in policy.exposure:
        mend = f"phasegate exposure {name} PERCENT takes it to one of {listed}"
        raise Conflict("not-at-step", f"{name} is at {at}, which is no step: {mend}")
    if to <= state.exposure:
        raise Conflict("not-next-step", f"{name} is at {at}: {percent(to)} is no step above")
