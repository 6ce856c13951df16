"""What happened to one decision?"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, and_, func, null, or_, select

from app.domain.clock import rfc3339
from app.store import tables as t
from app.store.people import PEOPLE


def find(connection: Connection, decision_id: str) -> RowMapping | None:
    """One decision with its situation, advisory, reasoning and review, as one row."""
    return connection.execute(wide().where(t.decisions.c.id == decision_id)).mappings().one_or_none()


def candidate_advisory(connection: Connection, decision_id: str) -> RowMapping | None:
    """What the rollout's candidate said of a decision, if it looked at it; gives no reasons."""
    c = t.candidate_advisories.c
    query = select(*_advisory_of(t.candidate_advisories), null().label("reasoning"))
    return connection.execute(query.where(c.decision_id == decision_id)).mappings().one_or_none()


def verdicts_of(connection: Connection, decision_id: str) -> list[dict[str, Any]]:
    """Oldest first, undone and superseded ones included."""
    v = t.verdicts
    query = select(v, PEOPLE.c.name.label("judge_name")).join_from(
        v, PEOPLE, PEOPLE.c.id == v.c.judge, isouter=True
    )
    query = query.where(v.c.decision_id == decision_id).order_by(v.c.id)
    return [verdict_wire(row) for row in connection.execute(query).mappings()]


def verdict_wire(row: RowMapping) -> dict[str, Any]:
    plain = (
        "id",
        "judge",
        "judge_name",
        "source",
        "decision",
        "category",
        "notes",
        "llm_decision",
        "supersedes",
    )
    return {"at": rfc3339(row["created_us"]), "match": row["matches"], **{name: row[name] for name in plain}}


def recount_pairs(
    connection: Connection, rollout: str, epoch: int, *, version: str, table: Table = t.advisories
) -> dict[str, int]:
    """The epoch's "legacy>model" table of a version counted from the ledger itself, exposed decisions only.

    `table` is where its advisories are.
    """
    a = table.c
    query = (
        select(t.decisions.c.legacy_decision, a.decision, func.count())
        .join_from(t.decisions, table, t.decisions.c.id == a.decision_id)
        .where(
            t.decisions.c.rollout == rollout,
            t.decisions.c.epoch == epoch,
            a.version == version,
            is_pair(table),
        )
        .group_by(t.decisions.c.legacy_decision, a.decision)
    )
    return {f"{legacy}>{model}": n for legacy, model, n in connection.execute(query)}


def is_pair(table: Table = t.advisories) -> ColumnElement[bool]:
    """Whether a decision's two raw answers are evidence of its epoch."""
    a, d = table.c, t.decisions.c
    # Before 0004 nobody wrote down what counted: then it was all but what came from memory.
    has_counted = or_(a.counted, and_(a.counted.is_(None), ~a.cached))
    return and_(d.exposed, d.legacy_error.is_(None), a.outcome == "ok", has_counted)


def advisory_wire(row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """The advisory of a wide row, or of a candidate's."""
    if row["a_outcome"] is None:
        return None
    reasoning = json.loads(row["reasoning"]) if row["reasoning"] else {}
    shares = {label: row[f"p_{label}"] for label in ("allow", "require_attestation", "deny")}
    return {
        "version": row["a_version"],
        "outcome": row["a_outcome"],
        "decision": row["a_decision"],
        "probabilities": None if row["p_allow"] is None else shares,
        "confidence": row["confidence"],
        "coverage": row["coverage"],
        "reasoning": reasoning.get("text"),
        "generated": reasoning.get("generated"),
        "attributions": reasoning.get("attributions"),
        "latency_ms": row["a_latency_ms"],
        "prompt_tokens": row["prompt_tokens"],
        "cached": row["cached"],
    }


def _advisory_of(table: Table) -> list[ColumnElement[Any]]:
    """The columns that `advisory_wire` reads."""
    own = [table.c[name].label(f"a_{name}") for name in ("version", "outcome", "decision", "latency_ms")]
    probabilities = ("p_allow", "p_require_attestation", "p_deny")
    shared = (*probabilities, "confidence", "coverage", "prompt_tokens", "cached")
    return [*own, *(table.c[name] for name in shared)]


def wide() -> Select[Any]:
    """A decision with all that belongs to it, but what its rollout's candidate said."""
    d, a, s, r = t.decisions, t.advisories, t.situations, t.reviews
    joined = (
        d.join(s, s.c.decision_id == d.c.id, isouter=True)
        .join(a, a.c.decision_id == d.c.id, isouter=True)
        .join(t.reasonings, t.reasonings.c.decision_id == d.c.id, isouter=True)
        .join(r, r.c.decision_id == d.c.id, isouter=True)
    )
    return select(
        d,
        s.c.body.label("situation"),
        s.c.actor_id,
        *_advisory_of(a),
        a.c.agrees,
        t.reasonings.c.body.label("reasoning"),
        *(column.label(f"review_{column.name}") for column in r.c),
    ).select_from(joined)
