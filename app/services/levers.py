"""People steer: promote, roll back, expose, hold, investigate and kill."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.domain.clock import to_us
from app.domain.condition import GateOutcome
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutPolicy, RolloutState, exposed, promoted
from app.errors import Conflict, Forbidden, GateNotMet, InvalidInput, RevisionConflict
from app.services.gates import Gates, refuse_hindered
from app.services.notices import Notices
from app.services.plane import Plane
from app.services.transitions import hold, move, roll_back
from app.store.ledger import Ledger
from app.store.policies import applied
from app.store.rollouts import (
    close_investigation,
    lock_state,
    read_plane,
    record_transition,
    touch_plane,
)
from app.store.transaction import Transaction

CAUSES = ("model", "prompt", "integration", "policy", "other")


@dataclass(frozen=True, slots=True)
class Levers:
    plane: Plane
    ledger: Ledger
    gates: Gates
    notices: Notices
    now: Callable[[], datetime]

    async def promote(
        self, name: str, *, to: Phase, reason: str, expected_revision: int, by: Principal
    ) -> dict[str, Any]:
        """One phase up, if the evidence carries it; judged under the row's lock (law 4).

        Raises `CeilingReached`, `RevisionConflict`, `GateNotMet` with the whole gate, and `Conflict`
        where the rollout is held or killed or `to` is not the next phase.
        """
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self.locked(tx, name, expected_revision)
            after = promoted(state, policy, to=to, now=now)
            evidence = self.gates.proven(tx.connection, policy, state)
            gate = self.gates.assess(tx.connection, policy, state, evidence, to=to, now=now, by=by)
            seen = gate_document(gate)
            if gate.outcome is not GateOutcome.PASS:
                raise GateNotMet(seen)
            return move(
                tx, state, after, kind="promote", actor=by.key_id, reason=reason, now=now, evidence=seen
            )

        return await self.done(await self.ledger.run(work))

    async def roll_back(self, name: str, *, reason: str, by: Principal) -> dict[str, Any]:
        """Down at once: takes no expected revision and waits for nothing but the row's lock."""

        def work(tx: Transaction, state: RolloutState, now: datetime) -> dict[str, Any]:
            policy = self._policy(name)
            transition = roll_back(tx, state, policy, actor=by.key_id, reason=reason, now=now)
            if transition is None:
                raise Conflict("already-lowest", f"{name} is in shadow; there is nothing below")
            return transition

        return await self._pull(name, work)

    async def expose(
        self, name: str, *, exposure: float, reason: str, expected_revision: int | None, by: Principal
    ) -> dict[str, Any]:
        """Another share of actors: down freely, up one of the rollout's steps at a time."""
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self.locked(tx, name, expected_revision)
            self._check_exposure(tx, state, policy, exposure, now=now)
            after = exposed(state, exposure=exposure)
            return move(tx, state, after, kind="exposure", actor=by.key_id, reason=reason, now=now)

        return await self.done(await self.ledger.run(work))

    def _check_exposure(
        self, tx: Transaction, state: RolloutState, policy: RolloutPolicy, exposure: float, *, now: datetime
    ) -> None:
        if not 0 <= exposure <= 1:
            raise InvalidInput([("exposure", "must be a share from 0 to 1")])
        if state.phase is Phase.SHADOW:
            raise Conflict("in-shadow", f"{state.name} is in shadow, which applies to everybody")
        if exposure <= state.exposure:
            return
        refuse_hindered(tx.connection, state, now)
        steps = [step for step in policy.exposure if step > state.exposure]
        if not steps or exposure > steps[0]:
            upward = f"the next step up is {steps[0]:.0%}" if steps else "there is no step above"
            raise Conflict("not-next-step", f"{state.name} is at {state.exposure:.0%}; {upward}")

    async def hold(self, name: str, *, reason: str, by: Principal) -> dict[str, Any]:
        """Freeze promotions and ramps, not rollbacks."""

        def work(tx: Transaction, state: RolloutState, now: datetime) -> dict[str, Any]:
            if state.held:
                raise Conflict("held", f"{name} is held already: {state.hold_reason}")
            return hold(tx, state, actor=by.key_id, reason=reason, now=now)

        return await self._pull(name, work)

    async def resume(self, name: str, *, reason: str, by: Principal) -> dict[str, Any]:
        def work(tx: Transaction, state: RolloutState, now: datetime) -> dict[str, Any]:
            if not state.held:
                raise Conflict("not-held", f"{name} is not held")
            after = replace(state, held=False, hold_reason=None, revision=state.revision + 1)
            return move(tx, state, after, kind="resume", actor=by.key_id, reason=reason, now=now)

        return await self._pull(name, work)

    async def close_investigation(self, name: str, *, cause: str, fix: str, by: Principal) -> dict[str, Any]:
        """Say what a rollback was due to; promotion needs it."""
        if cause not in CAUSES:
            raise InvalidInput([("cause", f"must be one of {', '.join(CAUSES)}")])

        def work(tx: Transaction, state: RolloutState, now: datetime) -> dict[str, Any]:
            found = state.investigation
            if found is None or not found.is_open:
                raise Conflict("no-investigation", f"{name} has no open investigation")
            closed = replace(found, cause=cause, fix=fix, closed_at=now, closed_by=by.key_id)
            close_investigation(tx, name, closed)
            after, why = replace(state, investigation=closed, revision=state.revision + 1), f"{cause}: {fix}"
            return move(tx, state, after, kind="investigation", actor=by.key_id, reason=why, now=now)

        return await self._pull(name, work)

    async def kill(self, *, engaged: bool, reason: str, by: Principal) -> dict[str, Any]:
        """Every rollout by the legacy engine at once; released at the first exposure step."""
        needed, done = (Role.OPERATOR, "engaged") if engaged else (Role.APPROVER, "released")
        if not by.may(needed):
            raise Forbidden("role", f"the kill switch is {done} by an {needed}")
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            before = read_plane(tx.connection)
            if before.kill_switch == engaged:
                raise Conflict("kill-switch", f"the kill switch is {done} already")
            if not engaged:  # rollouts before the plane, as everybody locks them
                self._step_down_exposures(tx, by, reason, now)
            touch_plane(tx, kill_switch=engaged, kill_reason=reason if engaged else None)
            return record_transition(
                tx,
                rollout="*",
                kind="kill_switch",
                before={"kill_switch": before.kill_switch},
                after={"kill_switch": engaged},
                actor=by.key_id,
                automatic=False,
                reason=reason,
                evidence=None,
                revision=before.revision + 1,
                now_us=to_us(now),
            )

        return await self.done(await self.ledger.run(work))

    def _step_down_exposures(self, tx: Transaction, by: Principal, reason: str, now: datetime) -> None:
        why = f"kill switch released: {reason}"
        for policy in self.plane.view.policy.book.policies:
            state, first = lock_state(tx, policy.name), policy.exposure[0]
            if state.phase is Phase.SHADOW or (state.exposure <= first and state.ramp is None):
                continue
            after = exposed(state, exposure=min(state.exposure, first))
            move(tx, state, after, kind="exposure", actor=by.key_id, reason=why, now=now)

    async def _pull(
        self, name: str, work: Callable[[Transaction, RolloutState, datetime], dict[str, Any]]
    ) -> dict[str, Any]:
        """Change a rollout under its row's lock, whatever its revision."""
        now = self.now()
        return await self.done(await self.ledger.run(lambda tx: work(tx, lock_state(tx, name), now)))

    def locked(
        self, tx: Transaction, name: str, expected_revision: int | None
    ) -> tuple[RolloutState, RolloutPolicy]:
        """The state under its row's lock, and the policy in force.

        Raises `NotFound`, `RevisionConflict`, and `Conflict("policy-changed")` where this instance has yet
        to read a policy that was applied a moment ago: its ceiling may be a lower one.
        """
        state = lock_state(tx, name)
        if expected_revision is not None and state.revision != expected_revision:
            raise RevisionConflict(expected_revision, state.revision)
        if applied(tx.connection, unless=self.plane.view.policy.sha256)[1] is not None:
            raise Conflict("policy-changed", f"another policy came into force just now: look at {name} again")
        return state, self._policy(name)

    def _policy(self, name: str) -> RolloutPolicy:
        return self.plane.view.policy.book.get(name)

    async def done(self, transition: dict[str, Any]) -> dict[str, Any]:
        """Let this instance route by the change before the person who made it is told."""
        await self.plane.refresh_soon()
        self.notices.moved(transition)
        return transition
