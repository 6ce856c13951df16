"""Which changes of rollouts and of the plane match a question, and what does each say in a sentence?"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, or_, select

from app.domain.clock import rfc3339
from app.store import tables as t
from app.store.people import PEOPLE


@dataclass(frozen=True, slots=True)
class TransitionFilters:
    """Which transitions; None means any. `who` is an id or a name; times in microseconds, the end excluded."""

    rollout: str | None = None
    kind: str | None = None
    who: str | None = None
    automatic: bool | None = None
    since_us: int | None = None
    until_us: int | None = None


def list_transitions(
    connection: Connection, rollout: str | None, *, limit: int = 100
) -> list[dict[str, Any]]:
    """Newest first; those of one rollout include the kill switch's."""
    return find_transitions(connection, TransitionFilters(rollout), limit=limit)


def find_transitions(
    connection: Connection, filters: TransitionFilters, *, limit: int, cursor: str | None = None
) -> list[dict[str, Any]]:
    """Newest first; `cursor` is the id after which to go on."""
    person, c = PEOPLE.c, t.transitions.c
    query = (
        select(t.transitions, person.name.label("actor_name"))
        .join(PEOPLE, person.id == c.actor, isouter=True)
        .order_by(c.id.desc())
        .limit(limit)
    )
    for value, condition in (
        (cursor, c.id < (cursor or "")),
        (filters.rollout, c.rollout.in_((filters.rollout, "*"))),
        (filters.kind, c.kind == filters.kind),
        (filters.who, or_(c.actor == filters.who, person.name == filters.who)),
        (filters.automatic, c.automatic == filters.automatic),
        (filters.since_us, c.created_us >= (filters.since_us or 0)),
        (filters.until_us, c.created_us < (filters.until_us or 0)),
    ):
        if value is not None:
            query = query.where(condition)
    return [transition_document(row) for row in connection.execute(query).mappings()]


def transition_document(row: RowMapping | dict[str, Any]) -> dict[str, Any]:
    """The wire form of a row of `transitions` with the `actor_name` of who made it."""
    plain = ("id", "rollout", "kind", "actor", "actor_name", "automatic", "reason", "revision")
    told = {
        **{name: row[name] for name in plain},
        "at": rfc3339(row["created_us"]),
        "from": json.loads(row["from_state"]),
        "to": json.loads(row["to_state"]),
        "evidence": None if row["evidence"] is None else json.loads(row["evidence"]),
    }
    return {**told, "sentence": _sentence(told)}


def _sentence(transition: dict[str, Any]) -> str:
    """`rollback by automation, phase enforced to advisory: guardrail error: …`."""
    before, after = transition["from"], transition["to"]
    changes = [
        _change(name.replace("_", " "), before.get(name), value)
        for name, value in after.items()
        if name not in ("epoch", "revision", "hold_reason") and before.get(name) != value
    ]
    by = transition["actor_name"] or transition["actor"]
    done = ", ".join([f"{transition['kind'].replace('_', ' ')} by {by}", *changes])
    return f"{done}: {transition['reason']}"


def _change(name: str, before: Any, after: Any) -> str:
    if isinstance(after, bool):
        return name if after else f"no longer {name}"
    if after is None:
        return f"no {name} any more"
    return f"{name} {after}" if before is None else f"{name} {before} to {after}"
