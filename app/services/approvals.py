"""A second person says that the evidence carries a promotion, until it no longer does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.approval import Approval, counted
from app.domain.clock import to_us
from app.domain.gate import Gate
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState, promoted
from app.errors import Conflict, GateNotMet
from app.services.gates import Gates
from app.services.levers import Levers
from app.services.plane import Plane
from app.services.transitions import AUTOMATION
from app.store.approvals import insert, standing, void
from app.store.ledger import Ledger
from app.store.rollouts import brief, load_states, lock_state, record_transition
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Approvals:
    """Given by people, taken back by evidence that changes the outcome; holds and freezes are none."""

    levers: Levers
    gates: Gates
    plane: Plane
    ledger: Ledger
    now: Callable[[], datetime]

    async def approve(
        self, name: str, *, to: Phase, reason: str, expected_revision: int, by: Principal
    ) -> dict[str, Any]:
        """Say that a rollout may enter the next phase; returns the transition, with the gate that was seen.

        Raises `GateNotMet` where the evidence is not enough, `RevisionConflict`, `CeilingReached`, and
        `Conflict` where `to` is not the next phase, no approval is asked for, or this person has approved.
        """
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self.levers.locked(tx, name, expected_revision)
            promoted(state, policy, to=to, now=now)
            if not policy.gates[to].approvals:
                raise Conflict("not-asked", f"the gate of {name} to {to} asks for no approval")
            _check_new(tx, state, to, by)
            evidence = self.gates.proven(tx.connection, policy, state)
            gate = self.gates.assess(tx.connection, policy, state, evidence, to=to, now=now)
            if not gate.is_carried:
                raise GateNotMet(gate_document(gate))
            insert(tx, state, to, by, reason=reason, gate=gate_document(gate), now_us=to_us(now))
            return _recorded(tx, state, gate, actor=by.key_id, reason=reason, now=now)

        return await self.levers.done(await self.ledger.run(work))

    def asked(self, by: Principal) -> list[dict[str, Any]]:
        """Every rollout whose next gate asks for approvals, in the policy's order, as `by` sees it.

        `{rollout, phase, to, revision, needed, given: [{id, name}], carried, approved, gate}`: `carried` where
        the evidence is enough to approve, `approved` where `by` has done so.
        """
        with self.plane.database.read() as connection:
            states = load_states(connection)
            book = self.plane.view.policy.book
            every = [self._asked(connection, policy, states[policy.name], by) for policy in book.policies]
        return [each for each in every if each is not None]

    def _asked(
        self, connection: Connection, policy: RolloutPolicy, state: RolloutState, by: Principal
    ) -> dict[str, Any] | None:
        to = state.phase.higher()
        limits = None if to is None else policy.gates.get(to)
        if to is None or to.rank > policy.ceiling.rank or limits is None or not limits.approvals:
            return None
        evidence = self.gates.evidence(connection, state)
        gate = self.gates.assess(connection, policy, state, evidence, to=to, now=self.now())
        given = [each for each in standing(connection, state.name, to) if each.concerns(state)]
        counting = counted(given, None) if gate.is_carried else []
        return {
            "rollout": state.name,
            "phase": state.phase,
            "to": to,
            "revision": state.revision,
            "needed": limits.approvals,
            "given": [{"id": each.key_id, "name": each.name} for each in counting],
            "carried": gate.is_carried,
            "approved": _is_by(given, by),
            "gate": gate_document(gate),
        }

    async def look(self) -> list[dict[str, Any]]:
        """Void what the evidence has overtaken; costs one query where nobody has approved anything.

        What is void never comes back: whoever still thinks so approves again, on other evidence.
        """
        with self.plane.database.read() as connection:
            if not standing(connection):
                return []
        made = await self.ledger.run(self._void_overtaken)
        for transition in made:
            await self.levers.done(transition)
        return made

    def _void_overtaken(self, tx: Transaction) -> list[dict[str, Any]]:
        now, made = self.now(), []
        policies = {policy.name: policy for policy in self.plane.view.policy.book.policies}
        for name, to in sorted({(each.rollout, each.to) for each in standing(tx.connection)}):
            state, policy = lock_state(tx, name), policies.get(name)
            given = standing(tx.connection, name, to)
            current = [each for each in given if policy is not None and each.concerns(state)]
            past = [each.id for each in given if each not in current]
            void(tx, past, reason="another epoch, version or policy began", now_us=to_us(now))
            if policy is None or not current:
                continue
            evidence = self.gates.evidence(tx.connection, state)
            gate = self.gates.assess(tx.connection, policy, state, evidence, to=to, now=now)
            if not gate.is_carried:
                names = ", ".join(each.name for each in current)
                reason = f"the approval of {names} is void: {gate.sentence}"
                void(tx, [each.id for each in current], reason=reason, now_us=to_us(now))
                made.append(_recorded(tx, state, gate, actor=AUTOMATION, reason=reason, now=now))
        return made


def _check_new(tx: Transaction, state: RolloutState, to: Phase, by: Principal) -> None:
    given = [each for each in standing(tx.connection, state.name, to) if each.concerns(state)]
    if _is_by(given, by):
        raise Conflict("approved", f"{by.name} has approved {state.name} to {to} already")


def _is_by(given: Iterable[Approval], by: Principal) -> bool:
    """Whether one of them is this person's."""
    return any(each.key_id == by.key_id or each.actors & by.actors for each in given)


def _recorded(
    tx: Transaction, state: RolloutState, gate: Gate, *, actor: str, reason: str, now: datetime
) -> dict[str, Any]:
    """An approval, or where automation takes it back its end, in the history, with the gate that was seen."""
    is_void = actor == AUTOMATION
    stood, stands = (gate.to, None) if is_void else (None, gate.to)
    return record_transition(
        tx,
        rollout=state.name,
        kind="approval_void" if is_void else "approval",
        before={**brief(state), "approved": stood},
        after={**brief(state), "approved": stands},
        actor=actor,
        automatic=is_void,
        reason=reason,
        evidence=gate_document(gate),
        revision=state.revision,
        now_us=to_us(now),
    )
