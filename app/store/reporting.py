"""What does a report need of a stretch of time, without reading the whole ledger?

Counters are read by day; of the ledger only the newest rows of the period, so many at most as each query says.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    and_,
    case,
    cast,
    func,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.counters import Metric
from app.store import tables as t
from app.store.counters import minute_of
from app.store.transaction import Transaction

ADVISORIES_AT_MOST = 100_000
DISAGREEMENTS_AT_MOST = 5_000
CLUSTERS_AT_MOST = 40
VERDICTS_AT_MOST = 20_000
PLANE = "*"  # what is counted of the plane as a whole, under version "-" and epoch 0

_DAY = 24 * 60  # minutes

c = t.evidence_counters.c


@dataclass(frozen=True, slots=True)
class Counted:
    """One sum. `day` is the UTC day, counted from 1970."""

    rollout: str
    version: str
    epoch: int
    day: int
    metric: str
    label: str
    n: int


def counted(connection: Connection, start_us: int, end_us: int) -> list[Counted]:
    """Everything counted between two midnights, by day: the counters grow with days, not with traffic."""
    return _by_day(connection, c.minute >= minute_of(start_us), c.minute < minute_of(end_us))


def shadow_pairs(connection: Connection, rollout: str, epochs: Collection[int]) -> list[Counted]:
    """The pairs of answers that were counted in some epochs of a rollout, by day."""
    return _by_day(connection, c.rollout == rollout, c.epoch.in_(epochs), c.metric == Metric.PAIR)


def _by_day(connection: Connection, *where: ColumnElement[bool]) -> list[Counted]:
    day = (c.minute // _DAY).label("day")
    of = (c.rollout, c.version, c.epoch, day, c.metric, c.label)
    query = select(*of, cast(func.sum(c.n), BigInteger)).where(*where).group_by(*of).order_by(day)
    return [Counted(*row) for row in connection.execute(query)]


def phases_by_epoch(connection: Connection, rollout: str) -> dict[int, tuple[str, str]]:
    """Epoch -> (phase, version), as the rollout's transitions tell."""
    x = t.transitions.c
    query = select(x.from_state, x.to_state).where(x.rollout == rollout).order_by(x.id)
    states = [json.loads(text) for row in connection.execute(query) for text in row]
    return {state["epoch"]: (state["phase"], state["version"]) for state in states if "epoch" in state}


def transitions_in(connection: Connection, start_us: int, end_us: int) -> list[RowMapping]:
    """What happened to rollouts, oldest first."""
    x = t.transitions.c
    within = and_(x.created_us >= start_us, x.created_us < end_us)
    query = select(x.rollout, x.kind, x.actor, x.automatic, x.reason, x.created_us).where(within)
    return list(connection.execute(query.order_by(x.id)).mappings())


def disagreements(
    connection: Connection, start_us: int, end_us: int
) -> tuple[dict[str, Any], list[RowMapping]]:
    """Of the newest advisories of the period: how many there are, disagree, and their mean prompt; and the
    disagreements grouped by what they have in common, largest first. `example` is the id of the newest that
    nobody has to judge, if any.
    """
    a, d, s = t.advisories.c, t.decisions.c, t.situations.c
    within = _between(connection, t.decisions, a.decision_id, start_us, end_us)
    newest = (
        select(a.decision_id, a.decision, a.agrees, a.prompt_tokens)
        .where(within)
        .order_by(a.decision_id.desc())
        .limit(ADVISORIES_AT_MOST)
        .subquery()
    )
    bad = case((newest.c.agrees.is_(False), 1), else_=0)
    looked = select(
        func.count().label("looked_at"),
        func.coalesce(func.sum(bad), 0).label("found"),
        func.avg(newest.c.prompt_tokens).label("prompt_tokens"),
    ).select_from(newest)
    differing = (
        select(newest)
        .where(newest.c.agrees.is_(False))
        .order_by(newest.c.decision_id.desc())
        .limit(DISAGREEMENTS_AT_MOST)
        .subquery()
    )
    of = (
        *(d.rollout, d.legacy_decision, differing.c.decision.label("model_decision"), d.action_type),
        *(_member(connection, s.body, "actor_role").label("actor_role"), d.legacy_rule),
    )
    r, n = t.reviews.c, func.count().label("n")
    joined = (
        differing.join(t.decisions, d.id == differing.c.decision_id)
        .join(t.situations, s.decision_id == d.id, isouter=True)
        .join(t.reviews, r.decision_id == d.id, isouter=True)
    )
    # Whoever still judges a decision blind must not learn here what the model said of it.
    unjudged = or_(r.status == "open", r.second_status == "open", r.third_status == "open")
    example = func.max(case((unjudged, None), else_=d.id)).label("example")
    grouped = select(*of, n, example).select_from(joined).group_by(*of)
    clusters = connection.execute(grouped.order_by(n.desc(), func.max(d.id)).limit(CLUSTERS_AT_MOST))
    facts = dict(connection.execute(looked).mappings().one())
    return facts, list(clusters.mappings())


def verdicts_in(connection: Connection, start_us: int, end_us: int) -> list[RowMapping]:
    """The verdicts of the period that stand, newest first, with their review and what the rules said."""
    v, r, d = t.verdicts, t.reviews, t.decisions
    query = (
        select(
            *(v.c.id, v.c.decision_id, v.c.source, v.c.decision, v.c.category, v.c.llm_decision),
            *(v.c.supersedes, v.c.rollout, v.c.created_us, r.c.mode, v.c.claimed_us),
            *(r.c.second_status, r.c.third_status, d.c.legacy_decision, d.c.legacy_rule),
            t.reasonings.c.decision_id.label("reasoned"),
        )
        .join_from(v, r, r.c.id == v.c.review_id)
        .join(d, d.c.id == v.c.decision_id)
        .join(t.reasonings, t.reasonings.c.decision_id == v.c.decision_id, isouter=True)
        .where(_between(connection, v, v.c.id, start_us, end_us))
        .order_by(v.c.id.desc())
        .limit(VERDICTS_AT_MOST)
    )
    rows = list(connection.execute(query).mappings())
    gone = {row["supersedes"] for row in rows}
    return [row for row in rows if row["decision"] is not None and row["id"] not in gone]


def situations_of(connection: Connection, decision_ids: Collection[str]) -> dict[str, str]:
    """The canonical JSON of those situations that were not erased."""
    s = t.situations.c
    rows = connection.execute(select(s.decision_id, s.body).where(s.decision_id.in_(decision_ids)))
    return {row.decision_id: row.body for row in rows}


def first_start_us(connection: Connection) -> int | None:
    """When this plane was given its first policy."""
    first: int | None = connection.execute(select(func.min(t.policy_documents.c.proposed_us))).scalar_one()
    return first


def stored(connection: Connection, *, limit: int) -> list[RowMapping]:
    """What reports there are, the latest period first, without their documents."""
    r = t.reports.c
    query = select(r.id, r.period, r.starts_us, r.ends_us, r.created_us)
    return list(connection.execute(query.order_by(r.starts_us.desc(), r.id).limit(limit)).mappings())


def which_stored(connection: Connection, report_ids: Collection[str]) -> frozenset[str]:
    found = select(t.reports.c.id).where(t.reports.c.id.in_(report_ids))
    return frozenset(connection.execute(found).scalars())


def read_report(connection: Connection, report_id: str) -> dict[str, Any] | None:
    text = connection.execute(
        select(t.reports.c.document).where(t.reports.c.id == report_id)
    ).scalar_one_or_none()
    return None if text is None else json.loads(text)


def keep_report(tx: Transaction, row: Mapping[str, Any]) -> bool:
    """Store a report unless somebody has; whether it was this one."""
    insert = postgresql.insert if tx.connection.dialect.name == "postgresql" else sqlite.insert
    unless = insert(t.reports).values(**row).on_conflict_do_nothing().returning(t.reports.c.id)
    return tx.connection.execute(unless).first() is not None


def _between(
    connection: Connection, table: Table, column: ColumnElement[str], start_us: int, end_us: int
) -> ColumnElement[bool]:
    """Ids of rows of `table` made within a stretch of time."""
    first, after = (_first_id(connection, table, us) for us in (start_us, end_us))
    if first is None:
        return column < ""
    return column >= first if after is None else and_(column >= first, column < after)


def _first_id(connection: Connection, table: Table, us: int) -> str | None:
    """The id of the first row made at an instant or later. Ids sort by time, so few looks find it without
    an index on the time.
    """
    found, low, high = None, 0, 1 << 128
    rows = select(table.c.id, table.c.created_us).order_by(table.c.id).limit(1)
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(rows.where(table.c.id >= str(UUID(int=middle)))).first()
        if row is None or row.created_us >= us:
            found, high = row.id if row else found, middle
        else:
            low = UUID(row.id).int + 1
    return found


def _member(connection: Connection, body: ColumnElement[str], name: str) -> ColumnElement[Any]:
    document = cast(body, JSON) if connection.dialect.name == "postgresql" else type_coerce(body, JSON)
    member: ColumnElement[Any] = document[name].as_string()
    return member
