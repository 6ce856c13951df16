"""A second person says that the evidence carries a promotion."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.domain.clock import to_us
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.role import Principal
from app.domain.rollout import RolloutState, promoted
from app.errors import Conflict, GateNotMet
from app.services.gates import Gates
from app.services.levers import Levers
from app.services.plane import Plane
from app.services.voiding import void_approvals
from app.store.approvals import concerning, insert, standing
from app.store.ledger import Ledger
from app.store.rollouts import brief, record_transition
from app.store.transaction import Transaction


class Approvals:
    """Given by people, taken back by whatever changes the outcome."""

    def __init__(
        self, levers: Levers, gates: Gates, plane: Plane, ledger: Ledger, *, now: Callable[[], datetime]
    ) -> None:
        self._levers = levers
        self._gates = gates
        self._plane = plane
        self._ledger = ledger
        self._now = now

    async def approve(
        self, name: str, *, to: Phase, reason: str, expected_revision: int, by: Principal
    ) -> dict[str, Any]:
        """Say that a rollout may enter the next phase; returns the transition, with the gate that was seen.

        Raises `GateNotMet` where anything but approvals is missing, `RevisionConflict`, `CeilingReached`, and
        `Conflict` where `to` is not the next phase, no approval is asked for, or this person has approved.
        """
        now = self._now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self._levers.locked(tx, name, expected_revision)
            promoted(state, policy, to=to, now=now)
            if not policy.gates[to].approvals:
                raise Conflict("not-asked", f"the gate of {name} to {to} asks for no approval: promote it")
            _check_new(tx, state, to, by)
            evidence = self._gates.proven(tx.connection, policy, state)
            gate = self._gates.assess(tx.connection, policy, state, evidence, to=to, now=now)
            seen = gate_document(gate)
            if not gate.is_carried:
                raise GateNotMet(seen)
            insert(tx, state, to, by, reason=reason, gate=seen, now_us=to_us(now))
            return record_transition(
                tx,
                rollout=name,
                kind="approval",
                before={**brief(state), "approved": None},
                after={**brief(state), "approved": to.value},
                actor=by.key_id,
                automatic=False,
                reason=reason,
                evidence=seen,
                revision=state.revision,
                now_us=to_us(now),
            )

        return await self._levers.done(await self._ledger.run(work))

    async def look(self) -> list[dict[str, Any]]:
        """Void what the evidence has overtaken; costs one query where nobody has approved anything."""
        with self._plane.database.read() as connection:
            if not standing(connection):
                return []
        now = self._now()
        policies = {policy.name: policy for policy in self._plane.view.policy.book.policies}
        made = await self._ledger.run(lambda tx: void_approvals(tx, self._gates, policies, now=now))
        for transition in made:
            await self._levers.done(transition)
        return made


def _check_new(tx: Transaction, state: RolloutState, to: Phase, by: Principal) -> None:
    given = concerning(standing(tx.connection, state.name), state, to)
    if any(each.key_id == by.key_id or each.actors & by.actors for each in given):
        raise Conflict("approved", f"{by.name} has approved {state.name} to {to} already")
