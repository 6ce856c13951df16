"""Which decisions wait for a person, who holds them, and what was said?"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, func, or_, select, update

from app.domain.stream import Label
from app.errors import NotFound
from app.store import tables as t
from app.store.transaction import Transaction

MAX_PAGE = 200
# Judged first to last: a reported incident, a waiting caller, a model milder than the rules, the rest.
PRIORITY = {"report": 40, "binding": 30, "too_permissive": 20, "drawn": 10, "picked": 5}


@dataclass(frozen=True, slots=True)
class Judge:
    """Whose own situations stay out of sight: their key's and their actors'."""

    key_id: str
    actors: frozenset[str]


def queue(
    connection: Connection,
    judge: Judge,
    *,
    status: str,
    rollout: str | None,
    kind: str | None,
    limit: int,
    offset: int,
) -> list[RowMapping]:
    """Most urgent first, without the judge's own situations and what others hold."""
    query = (
        _with_decision()
        .where(t.reviews.c.status == status, t.decisions.c.key_id != judge.key_id)
        .order_by(t.reviews.c.priority.desc(), t.reviews.c.id)
        .limit(min(limit, MAX_PAGE))
        .offset(offset)
    )
    if judge.actors:
        own = or_(t.situations.c.actor_id.is_(None), t.situations.c.actor_id.not_in(judge.actors))
        query = query.where(own)
    if rollout is not None:
        query = query.where(t.reviews.c.rollout == rollout)
    if kind is not None:
        query = query.where(t.reviews.c.kind == kind)
    return list(connection.execute(query).mappings())


def lock_review(tx: Transaction, review_id: str) -> RowMapping:
    """The review with its decision, as nobody else can judge it before this transaction ends."""
    tx.connection.execute(select(t.reviews.c.id).where(t.reviews.c.id == review_id).with_for_update())
    row = tx.connection.execute(_with_decision().where(t.reviews.c.id == review_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("review", review_id)
    return row


def review_of(connection: Connection, decision_id: str) -> RowMapping | None:
    of = _with_decision().where(t.reviews.c.decision_id == decision_id)
    return connection.execute(of).mappings().one_or_none()


def change_review(tx: Transaction, review_id: str, **columns: Any) -> None:
    tx.connection.execute(update(t.reviews).where(t.reviews.c.id == review_id).values(**columns))


def standing_verdicts(connection: Connection, review_id: str) -> list[RowMapping]:
    """The verdicts of a review that were neither undone nor superseded, oldest first."""
    v = t.verdicts
    query = select(v).where(v.c.review_id == review_id).order_by(v.c.id)
    rows = list(connection.execute(query).mappings())
    gone = {row["supersedes"] for row in rows}
    return [row for row in rows if row["decision"] is not None and row["id"] not in gone]


def drawn_labels(
    connection: Connection, rollout: str, *, version: str, epoch: int, after: str | None, limit: int
) -> list[Label]:
    """Drawn reviews of a version in one epoch in decision order, after the watermark."""
    r = t.reviews
    query = (
        select(r)
        .where(
            r.c.rollout == rollout,
            r.c.epoch == epoch,
            r.c.version == version,
            r.c.inclusion_probability.is_not(None),
        )
        .order_by(r.c.decision_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(r.c.decision_id > after)
    return [_label(row) for row in connection.execute(query).mappings()]


def expire_due(tx: Transaction, now_us: int) -> list[str]:
    """Let overdue reviews go; returns the decisions whose binding review expired to deny."""
    due = and_(t.reviews.c.status == "open", t.reviews.c.due_us <= now_us)
    binding = select(t.reviews.c.decision_id).where(due, t.reviews.c.kind == "binding")
    expired = list(tx.connection.execute(binding).scalars())
    if expired:
        tx.connection.execute(
            update(t.reviews)
            .where(due, t.reviews.c.kind == "binding")
            .values(status="expired", claimed_by=None)
        )
    tx.connection.execute(update(t.reviews).where(due).values(status="closed", claimed_by=None))
    return expired


def oversight(connection: Connection) -> dict[str, tuple[int | None, int | None]]:
    """Per rollout: when a drawn review was last judged, and the oldest draw of its epoch that waited since."""
    r = t.reviews
    drawn = r.c.inclusion_probability.is_not(None)
    judged = select(r.c.rollout, func.max(r.c.judged_us).label("judged")).where(drawn).group_by(r.c.rollout)
    last: dict[str, int | None] = {row.rollout: row.judged for row in connection.execute(judged)}
    latest = judged.subquery()
    waiting = (
        select(r.c.rollout, func.min(r.c.created_us).label("since"))
        .join_from(r, latest, latest.c.rollout == r.c.rollout)
        .join(t.rollouts, and_(t.rollouts.c.name == r.c.rollout, t.rollouts.c.epoch == r.c.epoch))
        .where(drawn, r.c.judged_us.is_(None), r.c.due_us > func.coalesce(latest.c.judged, 0))
        .group_by(r.c.rollout)
    )
    oldest: dict[str, int | None] = {row.rollout: row.since for row in connection.execute(waiting)}
    return {name: (last.get(name), oldest.get(name)) for name in {*last, *oldest}}


def _label(row: RowMapping) -> Label:
    judged = row["verdict"] is not None and row["model_decision"] is not None
    return Label(
        decision_id=row["decision_id"],
        at_us=row["created_us"],
        bad=row["verdict"] != row["model_decision"] if judged else None,
        inclusion_probability=row["inclusion_probability"],
        closed_unjudged=not judged and row["status"] != "open",
    )


def _with_decision() -> Select[Any]:
    d, r, s = t.decisions, t.reviews, t.situations
    return select(
        r,
        *(d.c.key_id, d.c.decision.label("first_decision"), d.c.phase, d.c.exposed, s.c.actor_id),
        *(d.c.legacy_engine, d.c.legacy_decision, d.c.legacy_rule, d.c.legacy_error, d.c.legacy_latency_ms),
        s.c.body.label("situation"),
    ).select_from(r.join(d, d.c.id == r.c.decision_id).join(s, s.c.decision_id == d.c.id, isouter=True))
