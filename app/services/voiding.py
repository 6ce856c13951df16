"""Which approvals has the evidence overtaken?"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.domain.clock import to_us
from app.domain.gate import Gate
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState
from app.services.gates import Gates
from app.services.transitions import AUTOMATION
from app.store.approvals import concerning, standing, void
from app.store.rollouts import brief, lock_state, record_transition
from app.store.transaction import Transaction


def settle(tx: Transaction, state: RolloutState, gate: Gate, *, now: datetime) -> dict[str, Any] | None:
    """Void who approved this gate, if it does not pass but for approvals; returns the transition.

    What is void never comes back: whoever still thinks so approves again, on other evidence.
    """
    if gate.is_carried:
        return None
    given = concerning(standing(tx.connection, state.name), state, Phase(gate.to))
    if not given:
        return None
    reason = f"the approval of {', '.join(each.name for each in given)} is void: {gate.sentence}"
    void(tx, [each.id for each in given], reason=reason, now_us=to_us(now))
    return record_transition(
        tx,
        rollout=state.name,
        kind="approval_void",
        before={**brief(state), "approved": gate.to},
        after={**brief(state), "approved": None},
        actor=AUTOMATION,
        automatic=True,
        reason=reason,
        evidence=gate_document(gate),
        revision=state.revision,
        now_us=to_us(now),
    )


def void_approvals(
    tx: Transaction, gates: Gates, policies: Mapping[str, RolloutPolicy], *, now: datetime
) -> list[dict[str, Any]]:
    """Judge again what somebody has approved, and only that; returns the transitions."""
    made = []
    for name in sorted({each.rollout for each in standing(tx.connection)}):
        state, policy = lock_state(tx, name), policies.get(name)
        given = standing(tx.connection, name)
        current = [each for each in given if policy and each in concerning(given, state, each.to)]
        past = [each.id for each in given if each not in current]
        void(tx, past, reason="another epoch, version or policy began", now_us=to_us(now))
        for to in sorted({each.to for each in current}):
            assert policy is not None
            evidence = gates.evidence(tx.connection, state)
            gate = gates.assess(tx.connection, policy, state, evidence, to=to, now=now)
            made.append(settle(tx, state, gate, now=now))
    return [transition for transition in made if transition is not None]
