"""What did a person do with reviews beside judging them, and how much have they judged?"""

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, delete, exists, func, or_, select

from app.domain.sampling import ReviewMode
from app.store import tables as t
from app.store.people import PEOPLE
from app.store.reviews import LATER, MAX_PAGE, Judge, verdict_of
from app.store.transaction import Transaction

_m, _v = t.review_marks.c, t.verdicts.c


def mark(
    tx: Transaction, review_id: str, judge: Judge, kind: str, *, now_us: int, note: str | None = None
) -> None:
    """The latest of a kind counts."""
    unmark(tx, review_id, kind, judge=judge)
    row = {"review_id": review_id, "judge": judge.key_id, "kind": kind, "created_us": now_us, "note": note}
    tx.insert(t.review_marks, row)


def unmark(tx: Transaction, review_id: str, kind: str, *, judge: Judge | None = None) -> None:
    """Take a person's mark away, or everybody's."""
    these = delete(t.review_marks).where(_m.review_id == review_id, _m.kind == kind)
    tx.connection.execute(these if judge is None else these.where(_m.judge.in_(judge.keys)))


def marks_of(connection: Connection, review_id: str, judge: Judge) -> dict[str, RowMapping]:
    """A person's own marks on a review, by kind."""
    query = select(t.review_marks).where(_m.review_id == review_id, _m.judge.in_(judge.keys))
    return {row["kind"]: row for row in connection.execute(query).mappings()}


def flagged(connection: Connection) -> list[RowMapping]:
    """Flags, latest first, with who set them and what of."""
    query = (
        select(
            *(_m.review_id, _m.judge, _m.created_us, _m.note, PEOPLE.c.name),
            *(t.reviews.c.decision_id, t.reviews.c.rollout, t.reviews.c.kind.label("review_kind")),
        )
        .join_from(t.review_marks, t.reviews, t.reviews.c.id == _m.review_id)
        .join(PEOPLE, PEOPLE.c.id == _m.judge, isouter=True)
        .where(_m.kind == "flag")
        .order_by(_m.created_us.desc())
        .limit(MAX_PAGE)
    )
    return list(connection.execute(query).mappings())


def last_verdict(connection: Connection, judge: Judge) -> RowMapping | None:
    """The latest verdict of a person that stands."""
    query = select(t.verdicts).where(verdict_of(judge), _stands()).order_by(_v.id.desc()).limit(1)
    return connection.execute(query).mappings().one_or_none()


def own_verdict(connection: Connection, review_id: str, judge: Judge) -> RowMapping | None:
    """The verdict of a person on a review that stands."""
    query = select(t.verdicts).where(_v.review_id == review_id, verdict_of(judge), _stands())
    return connection.execute(query.order_by(_v.id.desc()).limit(1)).mappings().one_or_none()


def had_judged(connection: Connection, review_id: str, judge: Judge) -> bool:
    """Whether a person took a verdict on a review back: they know what the model says of it."""
    undone = select(_v.id).where(_v.review_id == review_id, _v.judge.in_(judge.keys), _v.source == "undo")
    return connection.execute(undone.limit(1)).first() is not None


def pace(connection: Connection, judge: Judge, *, since_us: int, day_us: int, hour_us: int) -> RowMapping:
    """How many verdicts of a person since then stand, since the day's and the hour's beginning, and how many
    of those since `since_us` say what the model said, blind and not.

    Not blind is also whoever judges again what they had judged before.
    """
    other = t.verdicts.alias()
    again = exists().where(
        other.c.review_id == _v.review_id,
        other.c.judge.in_(judge.keys),
        other.c.source == "undo",
        other.c.id < _v.id,
    )
    blind = and_(or_(t.reviews.c.mode == ReviewMode.BLIND, _v.source.in_(LATER)), ~again)
    known = _v.matches.is_not(None)

    def count(*holds: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((and_(*holds), 1), else_=0)), 0)

    query = (
        select(
            count(_v.created_us >= day_us).label("today"),
            count(_v.created_us >= hour_us).label("hour"),
            count(known, blind).label("blind"),
            count(_v.matches.is_(True), blind).label("blind_agreed"),
            count(known, ~blind).label("assisted"),
            count(_v.matches.is_(True), ~blind).label("assisted_agreed"),
        )
        .join_from(t.verdicts, t.reviews, t.reviews.c.id == _v.review_id)
        .where(verdict_of(judge), _v.created_us >= since_us, _stands())
    )
    return connection.execute(query).mappings().one()


def _stands() -> ColumnElement[bool]:
    later = t.verdicts.alias()
    return ~exists().where(later.c.review_id == _v.review_id, later.c.supersedes == _v.id)
