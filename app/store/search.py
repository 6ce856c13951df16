"""Which decisions match a question, and how far was the ledger searched for them?"""

from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, and_, case, exists, func, or_, select

from app.domain.advisory import Outcome
from app.domain.decision import AnsweredBy, Decision
from app.domain.sampling import ReviewMode
from app.domain.search import ANY, NONE, Filters
from app.store import tables as t
from app.store.decisions import is_pair, wide
from app.store.reviews import Judge, verdict_of

MAX_PAGE = 500
LOOK_AT = 20_000  # decisions that one page may cost: a rare answer is searched for piece by piece

# A decision's id is younger than its question by the time that answering took, which is at most so long.
_SLACK_US = 60_000_000
_MS_BITS = 48


class Found(NamedTuple):
    """`rows` newest first. `further` is the id after which to go on, None at the end.

    `looked_at` is how many decisions were searched where that, not the number found, ended the page.
    """

    rows: list[RowMapping]
    further: str | None
    looked_at: int | None


def page(
    connection: Connection,
    filters: Filters,
    *,
    now_us: int,
    limit: int,
    cursor: str | None = None,
    newer: bool = False,
    blind: Judge | None = None,
) -> Found:
    """The decisions next to `cursor`, older ones or `newer`; without a cursor the newest, or the oldest.

    Left out is what `blind` is still to judge blind: not even the place of such a decision is told.
    """
    walk = _walk(connection, filters)
    if cursor is not None:
        walk = walk.beyond(cursor, newer=newer)
    order = walk.id.asc() if newer else walk.id.desc()
    last = connection.execute(walk.ids().order_by(order).offset(LOOK_AT - 1).limit(1)).scalar()
    query = wide().where(*walk.conditions, *_matches(filters, now_us)).order_by(order).limit(limit + 1)
    if blind is not None:
        query = query.where(_is_told(blind))
    if last is not None:
        query = query.where(walk.id <= last if newer else walk.id >= last)
    found = list(connection.execute(query).mappings())
    rows, is_full = found[:limit], len(found) > limit
    further = rows[-1]["id"] if is_full else last
    return Found(rows[::-1] if newer else rows, further, None if is_full or last is None else LOOK_AT)


class _Walk(NamedTuple):
    """Along which index, and between which ids, a page is searched: its cost does not grow with the ledger."""

    id: Column[str]
    conditions: tuple[ColumnElement[bool], ...]

    def beyond(self, cursor: str, *, newer: bool) -> "_Walk":
        return self._replace(conditions=(*self.conditions, self.id > cursor if newer else self.id < cursor))

    def ids(self) -> Any:
        return select(self.id).where(*self.conditions)


def _walk(connection: Connection, filters: Filters) -> _Walk:
    d, s = t.decisions.c, t.situations.c
    key, conditions = d.id, []
    if filters.actor_id is not None:
        key, conditions = s.decision_id, [s.actor_id == filters.actor_id]
    elif filters.rollout is not None:
        conditions = [d.rollout == filters.rollout]
    if filters.since_us is not None:
        conditions.append(key >= _id_at(_first_ms(connection, filters.since_us - _SLACK_US) - 1))
    if filters.until_us is not None:
        conditions.append(key < _id_at(_first_ms(connection, filters.until_us + _SLACK_US)))
    return _Walk(key, tuple(conditions))


def _matches(filters: Filters, now_us: int) -> list[ColumnElement[bool]]:
    d, a, r = t.decisions.c, t.advisories.c, t.reviews.c
    status = _review_status(now_us)
    equal = (
        (d.rollout, filters.rollout),
        (d.phase, filters.phase),
        (d.key_id, filters.key_id),
        (d.legacy_decision, filters.legacy),
        (d.action_type, filters.action_type),
        (d.version, filters.version),
        (a.agrees, filters.agreement),
        (_in_force(status, d.decision, r.verdict, Decision.DENY), filters.decision),
        (_in_force(status, d.answered_by, AnsweredBy.REVIEWER, AnsweredBy.FAIL_SAFE), filters.answered_by),
        (status, filters.review),
    )
    found = [column == value for column, value in equal if value is not None]
    if filters.since_us is not None:
        found.append(d.created_us >= filters.since_us)
    if filters.until_us is not None:
        found.append(d.created_us < filters.until_us)
    if filters.epoch is not None:
        found += [d.epoch == filters.epoch, is_pair()]
    if filters.model is not None:
        found.append(_model_said(filters.model))
    if filters.fallback is not None:
        found.append(_fell_back(filters.fallback))
    return found


def _is_told(judge: Judge) -> ColumnElement[bool]:
    """As `services.stories` says of one decision; what a decision without a review has not is none."""
    r = t.reviews.c
    theirs = exists().where(t.verdicts.c.review_id == r.id, verdict_of(judge))
    first = and_(r.mode == ReviewMode.BLIND, r.status == "open")
    later = and_(or_(r.second_status == "open", r.third_status == "open"), ~theirs)
    return case((or_(first, later), 1), else_=0) == 0


def _review_status(now_us: int) -> ColumnElement[Any]:
    """As `services.documents.remembered_decision` says it: a binding review lapses on time.

    Not the column alone, whose index would read every review there ever was of a status.
    """
    r = t.reviews.c
    lapsed = and_(r.kind == "binding", r.status != "judged", r.due_us <= now_us)
    return case((lapsed, "expired"), else_=func.coalesce(r.status, NONE))


def _in_force(status: ColumnElement[Any], first: Any, judged: Any, expired: Any) -> ColumnElement[Any]:
    """By the same: a binding review's verdict, or what its lapse means."""
    is_binding = t.reviews.c.kind == "binding"
    return case(
        (and_(is_binding, status == "judged"), judged),
        (and_(is_binding, status == "expired"), expired),
        else_=first,
    )


def _model_said(wanted: str) -> ColumnElement[bool]:
    a = t.advisories.c
    if wanted == NONE:
        return a.outcome.is_(None)
    if wanted in list(Decision):
        return and_(a.outcome == Outcome.OK, a.decision == wanted)
    return a.outcome == wanted


def _fell_back(wanted: str) -> ColumnElement[bool]:
    reason = t.decisions.c.fallback_reason
    if wanted == ANY:
        return reason.is_not(None)
    return reason.is_(None) if wanted == NONE else reason == wanted


def _first_ms(connection: Connection, at_us: int) -> int:
    """The least millisecond of an id from which on decisions are not older than that.

    Found by halving, as ids rise with time but need not be made of the clock that wrote `created_us`.
    """
    d = t.decisions.c
    low, high = 0, 1 << _MS_BITS
    while low < high:
        middle = (low + high) // 2
        next_one = select(d.created_us).where(d.id >= _id_at(middle)).order_by(d.id).limit(1)
        created_us = connection.execute(next_one).scalar()
        low, high = (low, middle) if created_us is None or created_us >= at_us else (middle + 1, high)
    return low


def _id_at(ms: int) -> str:
    """What sorts before every id of that millisecond and of later ones."""
    text = f"{max(ms, 0):012x}"
    return f"{text[:8]}-{text[8:]}"
