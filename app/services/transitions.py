"""How does a change of a rollout become one row, one notice and one new state?"""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState, rolled_back
from app.store.counters import BASELINE, totals
from app.store.rollouts import brief, open_investigation, record_transition, save_state
from app.store.transaction import Transaction

AUTOMATION = "automation"

# Everything that may stand in the history.
KINDS = (
    *(
        "promote",
        "rollback",
        "exposure",
        "ramp",
        "hold",
        "resume",
        "investigation",
        "approval",
        "approval_void",
    ),
    *("candidate", "activate", "revert", "withdraw", "version", "policy", "freeze", "kill_switch", "webhook"),
)


def move(
    tx: Transaction,
    before: RolloutState,
    after: RolloutState,
    *,
    kind: str,
    actor: str,
    reason: str,
    now: datetime,
    evidence: dict[str, Any] | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """Save the new state by compare-and-set and record the transition; returns its wire form."""
    if before.phase is Phase.SHADOW and after.epoch != before.epoch:
        columns.setdefault("baseline", _baseline(tx, before))
    save_state(tx, after, was=before.revision, **columns)
    return record_transition(
        tx,
        rollout=before.name,
        kind=kind,
        before=brief(before),
        after=brief(after),
        actor=actor,
        automatic=actor == AUTOMATION,
        reason=reason,
        evidence=evidence,
        revision=after.revision,
        now_us=to_us(now),
    )


def roll_back(
    tx: Transaction,
    state: RolloutState,
    policy: RolloutPolicy,
    *,
    actor: str,
    reason: str,
    now: datetime,
    evidence: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Go down and open an investigation; None in shadow, where there is nothing below.

    The caller holds the row's lock, so this always succeeds: harm is judged before any hold.
    """
    after = rolled_back(state, policy, now=now)
    if after is None:
        return None
    transition = move(
        tx, state, after, kind="rollback", actor=actor, reason=reason, now=now, evidence=evidence
    )
    open_investigation(tx, after, version=state.version, transition_id=transition["id"], now_us=to_us(now))
    return transition


def hold(
    tx: Transaction,
    state: RolloutState,
    *,
    actor: str,
    reason: str,
    now: datetime,
    evidence: dict[str, Any] | None = None,
) -> dict[str, Any]:
    after = replace(state, held=True, hold_reason=reason, revision=state.revision + 1)
    return move(tx, state, after, kind="hold", actor=actor, reason=reason, now=now, evidence=evidence)


def _baseline(tx: Transaction, state: RolloutState) -> str:
    """The model's answers of the shadow epoch that ends, and its pairs with the legacy engine's."""
    counted = totals(tx.connection, state.name, state.epoch, version=state.version)
    return json.dumps({label: n for (metric, label), n in counted.items() if metric in BASELINE})
