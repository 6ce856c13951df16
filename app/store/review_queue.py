"""Which reviews come next, and which of them may a person have?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Subquery,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    union_all,
)

from app.store import tables as t
from app.store.reviews import LATER, MAX_PAGE, PRIORITY, Judge, verdict_of, with_decision

_r = t.reviews.c
_CALLER_WAITS = and_(_r.kind == "binding", _r.status == "open")
# How long a skipped review stays behind for who skipped it.
_SKIPPED_US = case((_CALLER_WAITS, 60_000_000), else_=3_600_000_000)
_URGENT_AS = {  # what may make a review of a kind urgent; anybody may report any of them
    "binding": ("report", "binding"),
    "drawn": ("report", "too_permissive", "drawn"),
    "report": ("report",),
    "picked": ("report", "picked"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which reviews of the queue. `free_us`: as of then nobody else holds them, they are in time, and the
    person has not just skipped them; `skipped`: these too. `waits`: a caller waits for them.
    """

    status: str = "open"
    rollout: str | None = None
    kind: str | None = None
    flagged: bool = False
    free_us: int | None = None
    waits: bool = False
    skipped: bool = False


def queue(
    connection: Connection, judge: Judge, wanted: Wanted, *, limit: int, offset: int = 0
) -> list[RowMapping]:
    """Most urgent first, without the judge's own situations.

    What waits for a second or third person is open to those who may be it, and judged to everybody else.
    Each urgency is read along its index up to the limit: the cost does not grow with what waits.
    """
    limit = min(limit, MAX_PAGE)
    ids: list[str] = []
    for urgency in sorted(PRIORITY[name] for name in _URGENT_AS.get(wanted.kind or "", tuple(PRIORITY)))[
        ::-1
    ]:
        missing = offset + limit - len(ids)
        if missing > 0:
            ids.extend(connection.execute(_urgent(judge, wanted, urgency, missing)).scalars())
    page = ids[offset : offset + limit]
    rows = connection.execute(with_decision().where(_r.id.in_(page))).mappings() if page else ()
    return sorted(rows, key=lambda row: page.index(row["id"]))


def held_by(connection: Connection, judge: Judge, wanted: Wanted, now_us: int) -> list[RowMapping]:
    """What a person has in hand of that choice and may still judge, in the order in which it was decided."""
    mine = with_decision().where(_r.claimed_by == judge.key_id, _r.claim_expires_us > now_us)
    query = mine.where(_in_time(now_us), *_chosen(wanted)).order_by(_r.id).limit(MAX_PAGE)
    return list(connection.execute(query).mappings())


def waiting(connection: Connection) -> dict[str, int]:
    """How many reviews wait, by what makes them urgent; `second` and `third` are for other people."""
    by_urgency = select(_r.priority, func.count().label("n")).where(_r.status == "open").group_by(_r.priority)
    counted = {row.priority: row.n for row in connection.execute(by_urgency)}
    found = {name: counted.get(urgency, 0) for name, urgency in PRIORITY.items()}
    for name, status in (("second", _r.second_status), ("third", _r.third_status)):
        found[name] = connection.execute(select(func.count()).where(status == "open")).scalar_one()
    return found


def next_return_us(connection: Connection, judge: Judge, now_us: int) -> int | None:
    """When the first of the reviews that a person skipped comes back, or None."""
    m = t.review_marks.c
    back_us = m.created_us + _SKIPPED_US
    skipped = (
        select(func.min(back_us))
        .join(t.reviews, _r.id == m.review_id)
        .where(m.kind == "skip", m.judge.in_(judge.keys), back_us > now_us)
    )
    return connection.execute(skipped).scalar()


def _urgent(judge: Judge, wanted: Wanted, urgency: int, limit: int) -> Select[Any]:
    """The ids of one urgency, oldest first."""
    parts = [_part(judge, wanted, which, urgency, limit) for which in _parts(judge, wanted.status)]
    both = union_all(*(select(part.c.id) for part in parts)).subquery()
    return select(both.c.id).order_by(both.c.id).limit(limit)


def _parts(judge: Judge, status: str) -> Iterator[ColumnElement[bool]]:
    """Disjoint conditions, each along an index of its own, that make up what a person sees as a status."""
    theirs = exists().where(t.verdicts.c.review_id == _r.id, verdict_of(judge))
    if not judge.may_judge or status not in ("open", "judged"):
        yield _r.status == status
    elif status == "open":
        later = exists().where(
            t.verdicts.c.review_id == _r.id, verdict_of(judge), t.verdicts.c.source.in_(LATER)
        )
        yield and_(_r.status == status, ~later)
        yield and_(_r.second_status == "open", ~theirs)
        yield and_(_r.third_status == "open", ~theirs)
    else:
        asked = or_(
            func.coalesce(_r.second_status, "") == "open", func.coalesce(_r.third_status, "") == "open"
        )
        yield and_(_r.status == status, or_(~asked, theirs))


def _part(judge: Judge, wanted: Wanted, which: ColumnElement[bool], urgency: int, limit: int) -> Subquery:
    query = (
        select(_r.id)
        .join(t.decisions, t.decisions.c.id == _r.decision_id)
        .where(which, _r.priority == urgency, t.decisions.c.key_id.not_in(judge.keys))
    )
    if judge.actors:
        s = t.situations.c
        query = query.join(t.situations, s.decision_id == _r.decision_id, isouter=True)
        query = query.where(or_(s.actor_id.is_(None), s.actor_id.not_in(judge.actors)))
    query = query.where(*_chosen(wanted))
    if wanted.free_us is not None:
        query = query.where(*_free(judge, wanted.free_us, skipped=wanted.skipped))
    return query.order_by(_r.id).limit(limit).subquery()


def _chosen(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    """What a person may choose by."""
    m = t.review_marks.c
    if wanted.rollout is not None:
        yield _r.rollout == wanted.rollout
    if wanted.kind is not None:
        yield _r.kind == wanted.kind
    if wanted.flagged:
        yield _r.id.in_(select(m.review_id).where(m.kind == "flag"))
    if wanted.waits:
        yield _CALLER_WAITS


def _free(judge: Judge, now_us: int, *, skipped: bool) -> Iterator[ColumnElement[bool]]:
    m = t.review_marks.c
    mine = func.coalesce(_r.claimed_by, judge.key_id) == judge.key_id
    yield or_(mine, func.coalesce(_r.claim_expires_us, 0) <= now_us)
    yield _in_time(now_us)
    if not skipped:
        recent = m.created_us + _SKIPPED_US > now_us
        yield ~exists().where(m.review_id == _r.id, m.judge.in_(judge.keys), m.kind == "skip", recent)


def _in_time(now_us: int) -> ColumnElement[bool]:
    return or_(_r.status != "open", _r.due_us > now_us)
