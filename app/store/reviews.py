"""Which decisions wait for a person, who holds them, and what was said?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    update,
)

from app.domain.role import Principal, Role
from app.domain.stream import Label
from app.errors import NotFound
from app.store import tables as t
from app.store.people import PEOPLE, names_in
from app.store.transaction import Transaction

MAX_PAGE = 200
# Judged first to last: a reported incident, a waiting caller, a model milder than the rules, the rest.
PRIORITY = {"report": 40, "binding": 30, "too_permissive": 20, "drawn": 10, "picked": 5}

SECOND_DUE_US = 7 * 86_400_000_000  # from the verdict before on: later no second or third person judges it
SECOND = "second"  # the source of the verdict that another person gives blind
THIRD = "third"  # of the one that decides where the first two differ
LATER = (SECOND, THIRD)

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Judge:
    """A person before the queue: their own situations stay out of sight, by key and by actor.

    `keys` are all that are known to be theirs: nobody is their own second judge.
    """

    key_id: str
    actors: frozenset[str]
    keys: frozenset[str]
    may_judge: bool


def judge_of(connection: Connection, principal: Principal) -> Judge:
    """Two keys, or users, that share an actor are one person's, and so are all actors of theirs."""
    p, actors, keys = PEOPLE.c, set(principal.actors), {principal.key_id}
    held = connection.execute(select(p.id, p.actors).where(p.actors != "[]")) if actors else ()
    others = {row.id: names_in(row.actors) for row in held}
    while theirs := [each for each, named in others.items() if not actors.isdisjoint(named)]:
        keys.update(theirs)
        actors.update(*(others.pop(each) for each in theirs))
    return Judge(principal.key_id, frozenset(actors), frozenset(keys), principal.may(Role.REVIEWER))


def asked_as(connection: Connection, review: Mapping[Any, Any], judge: Judge) -> str | None:
    """`second` or `third` where such a person is wanted and this is one: to them the review is open, and blind."""
    wanted = (
        SECOND if review["second_status"] == "open" else THIRD if review["third_status"] == "open" else None
    )
    if wanted is None or not judge.may_judge or judged_by(connection, review["id"], judge):
        return None
    return wanted


def asked_until_us(connection: Connection, review: Mapping[Any, Any], asked: str) -> int:
    """When a second or third verdict is too late: so long after the one before."""
    if asked == SECOND:
        return int(review["judged_us"]) + SECOND_DUE_US
    v = t.verdicts.c
    of_second = select(func.max(v.created_us)).where(v.review_id == review["id"], v.source == SECOND)
    return int(connection.execute(of_second).scalar_one()) + SECOND_DUE_US


def judged_by(connection: Connection, review_id: str, judge: Judge, *, later: bool = False) -> bool:
    """Whether a person gave a verdict on a review, be it undone since; `later`: as its second or third judge."""
    said = select(t.verdicts.c.id).where(t.verdicts.c.review_id == review_id, verdict_of(judge))
    if later:
        said = said.where(t.verdicts.c.source.in_(LATER))
    return connection.execute(said.limit(1)).first() is not None


def verdict_of(judge: Judge) -> ColumnElement[bool]:
    """Which verdicts are a person's."""
    return and_(t.verdicts.c.judge.in_(judge.keys), t.verdicts.c.decision.is_not(None))


def lock_review(tx: Transaction, review_id: str) -> RowMapping:
    """The review with its decision, as nobody else can judge it before this transaction ends."""
    tx.connection.execute(select(t.reviews.c.id).where(t.reviews.c.id == review_id).with_for_update())
    return review_row(tx.connection, review_id)


def review_row(connection: Connection, review_id: str) -> RowMapping:
    """The review with its decision. Raises `NotFound`."""
    row = connection.execute(with_decision().where(t.reviews.c.id == review_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("review", review_id)
    return row


def review_of(connection: Connection, decision_id: str) -> RowMapping | None:
    of = with_decision().where(t.reviews.c.decision_id == decision_id)
    return connection.execute(of).mappings().one_or_none()


def change_review(tx: Transaction, review_id: str, **columns: Any) -> None:
    if not columns:
        return
    tx.connection.execute(update(t.reviews).where(t.reviews.c.id == review_id).values(**columns))


def standing_verdicts(connection: Connection, review_id: str) -> list[RowMapping]:
    """The verdicts of a review that were neither undone nor superseded, oldest first."""
    v = t.verdicts
    query = select(v).where(v.c.review_id == review_id).order_by(v.c.id)
    rows = list(connection.execute(query).mappings())
    gone = {row["supersedes"] for row in rows}
    return [row for row in rows if row["decision"] is not None and row["id"] not in gone]


def has_rolled_back(connection: Connection, rollout: str, version: str, *, decision_id: str) -> bool:
    """Whether this decision has brought this version of the rollout back before."""
    c = t.transitions.c
    query = select(c.from_state).where(
        c.rollout == rollout, c.kind == "rollback", c.evidence.contains(decision_id)
    )
    return any(json.loads(state)["version"] == version for state in connection.execute(query).scalars())


def drawn_labels(
    connection: Connection, rollout: str, *, version: str, epoch: int, after: str | None, limit: int
) -> list[Label]:
    """Drawn reviews of a version in one epoch in decision order, after the watermark."""
    of = {"rollout": rollout, "epoch": epoch, "version": version, "after": after or "", "at_most": limit}
    return [_label(*row) for row in connection.execute(_TAIL, of).all()]


def expire_due(tx: Transaction, now_us: int) -> list[str]:
    """Let overdue reviews go, second and third ones too; returns the decisions whose binding review expired to deny."""
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
    late = and_(t.reviews.c.second_status == "open", t.reviews.c.judged_us <= now_us - SECOND_DUE_US)
    tx.connection.execute(update(t.reviews).where(late).values(second_status="closed", claimed_by=None))
    v = t.verdicts.c
    recent = exists().where(
        v.review_id == t.reviews.c.id, v.source == SECOND, v.created_us > now_us - SECOND_DUE_US
    )
    undecided = and_(t.reviews.c.third_status == "open", ~recent)
    tx.connection.execute(update(t.reviews).where(undecided).values(third_status="closed", claimed_by=None))
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


def open_by_kind(connection: Connection) -> dict[str, int]:
    """How many reviews wait, by their kind."""
    r = t.reviews.c
    query = select(r.kind, func.count()).where(r.status == "open").group_by(r.kind)
    return dict(map(tuple, connection.execute(query)))


QueueMark = tuple[int, str | None]


def queue_mark(connection: Connection) -> QueueMark:
    """What changes when a review opens or closes, or when anything is said of one: open ones, latest verdict."""
    n = select(func.count()).select_from(t.reviews).where(t.reviews.c.status == "open").scalar_subquery()
    latest = select(func.max(t.verdicts.c.id)).scalar_subquery()
    found = connection.execute(select(n, latest)).one()
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits of one rollout's reviews.

    `late` are drawn ones older than 24 hours and binding ones beyond half of their time; `oldest_us` is when
    the oldest of all began to wait.
    """

    open: int
    late: int
    oldest_us: int


def review_backlog(connection: Connection, now_us: int) -> dict[str, Backlog]:
    """By rollout; one without open reviews is absent."""
    r = t.reviews.c
    half = and_(r.kind == "binding", 2 * now_us > r.created_us + r.due_us)
    old = and_(r.kind != "binding", r.created_us < now_us - 24 * _HOUR_US)
    late = func.sum(case((or_(half, old), 1), else_=0))
    query = select(r.rollout, func.count(), late, func.min(r.created_us)).where(r.status == "open")
    found = connection.execute(query.group_by(r.rollout).order_by(r.rollout))
    return {rollout: Backlog(n, int(slow), oldest_us) for rollout, n, slow, oldest_us in found}


def _label(
    decision_id: str, at_us: int, verdict: str | None, model: str | None, probability: float, status: str
) -> Label:
    judged = verdict is not None and model is not None
    return Label(
        decision_id=decision_id,
        at_us=at_us,
        bad=verdict != model if judged else None,
        inclusion_probability=probability,
        closed_unjudged=not judged and status != "open",
    )


def with_decision() -> Select[Any]:
    d, r, s = t.decisions, t.reviews, t.situations
    return select(
        r,
        *(d.c.key_id, d.c.decision.label("first_decision"), d.c.phase, d.c.exposed, s.c.actor_id),
        *(d.c.legacy_engine, d.c.legacy_decision, d.c.legacy_rule, d.c.legacy_error, d.c.legacy_latency_ms),
        s.c.body.label("situation"),
    ).select_from(r.join(d, d.c.id == r.c.decision_id).join(s, s.c.decision_id == d.c.id, isouter=True))


_r = t.reviews.c
_TAIL = (  # made once: a pass asks it of every rollout
    select(
        *(_r.decision_id, _r.created_us, _r.verdict, _r.model_decision, _r.inclusion_probability, _r.status)
    )
    .where(
        _r.rollout == bindparam("rollout"),
        _r.epoch == bindparam("epoch"),
        _r.version == bindparam("version"),
        _r.decision_id > bindparam("after"),
        _r.inclusion_probability.is_not(None),
    )
    .order_by(_r.decision_id)
    .limit(bindparam("at_most"))
)
