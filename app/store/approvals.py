"""Whose word stands that a rollout may be promoted?"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from app.domain.approval import Approval
from app.domain.phase import Phase
from app.domain.role import Principal
from app.domain.rollout import RolloutState
from app.store.ids import new_id
from app.store.people import PEOPLE
from app.store.tables import approvals
from app.store.transaction import Transaction


def standing(connection: Connection, rollout: str | None = None, to: Phase | None = None) -> list[Approval]:
    """What is not void, of all rollouts or one and a phase, oldest first. A revoked key or a disabled user has no word."""
    c = approvals.c
    query = select(approvals, PEOPLE.c.name, PEOPLE.c.actors).join_from(
        approvals, PEOPLE, c.key_id == PEOPLE.c.id
    )
    query = query.where(c.void_us.is_(None), PEOPLE.c.ended_us.is_(None)).order_by(c.id)
    if rollout is not None:
        query = query.where(c.rollout == rollout)
    if to is not None:
        query = query.where(c.to_phase == to.value)
    return [
        Approval(
            row["id"],
            row["rollout"],
            Phase(row["to_phase"]),
            row["epoch"],
            row["version"],
            row["key_id"],
            row["name"],
            frozenset(json.loads(row["actors"])),
        )
        for row in connection.execute(query).mappings()
    ]


def insert(
    tx: Transaction,
    state: RolloutState,
    to: Phase,
    by: Principal,
    *,
    reason: str,
    gate: dict[str, Any],
    now_us: int,
) -> None:
    """Keep a person's word with the gate that was seen."""
    row = {
        "id": new_id(),
        "created_us": now_us,
        "rollout": state.name,
        "to_phase": to.value,
        "epoch": state.epoch,
        "version": state.version,
        "key_id": by.key_id,
        "reason": reason,
        "gate": json.dumps(gate),
    }
    tx.insert(approvals, row)


def void(tx: Transaction, ids: Iterable[str], *, reason: str, now_us: int) -> None:
    """Take approvals out of force for ever."""
    changed = update(approvals).where(approvals.c.id.in_(list(ids)), approvals.c.void_us.is_(None))
    tx.connection.execute(changed.values(void_us=now_us, void_reason=reason))
