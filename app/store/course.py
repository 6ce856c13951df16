"""How fast does evidence come in, on which days, and when did the last of it come?"""

from collections.abc import Iterable

from sqlalchemy import BigInteger, Connection, and_, case, cast, func, not_, select

from app.domain.counters import NO_OBSERVATION, Metric
from app.store.counters import minute_of
from app.store.tables import evidence_counters

_US_PER_MINUTE = 60 * 1_000_000
_DAY = 24 * 60  # minutes

c = evidence_counters.c
_ABSENT = and_(c.metric == Metric.OBSERVATION.value, c.label.in_(NO_OBSERVATION))


def course(
    connection: Connection,
    rollout: str,
    epoch: int,
    *,
    version: str,
    metrics: Iterable[Metric],
    since_us: int,
) -> tuple[dict[str, int], int | None]:
    """How many of each metric came of a version's evidence in an epoch since an instant, and when the latest
    observation did: the beginning of its minute, or of the hour or day that old minutes are folded into.

    Absences of a model are no observations.
    """
    wanted = {metric.value for metric in (*metrics, Metric.OBSERVATION)}
    recent = cast(func.sum(case((c.minute >= minute_of(since_us), c.n), else_=0)), BigInteger)
    query = select(c.metric, recent, func.max(c.minute)).where(
        c.rollout == rollout, c.epoch == epoch, c.version == version, c.metric.in_(wanted), not_(_ABSENT)
    )
    rows = {metric: (n, minute) for metric, n, minute in connection.execute(query.group_by(c.metric))}
    latest = rows.get(Metric.OBSERVATION.value)
    came = {metric: rows.get(metric, (0, 0))[0] for metric in wanted}
    return came, None if latest is None else latest[1] * _US_PER_MINUTE


def days_served(
    connection: Connection, rollout: str, epoch: int, *, version: str
) -> dict[int, tuple[int, int]]:
    """Observations and served seconds of an epoch by UTC day, counted from 1970; other days are absent."""
    sums = [
        cast(func.sum(case((c.metric == metric.value, c.n), else_=0)), BigInteger)
        for metric in (Metric.OBSERVATION, Metric.SERVED_S)
    ]
    day = (c.minute // _DAY).label("day")
    query = select(day, *sums).where(
        c.rollout == rollout,
        c.epoch == epoch,
        c.version == version,
        c.metric.in_((Metric.OBSERVATION.value, Metric.SERVED_S.value)),
        not_(_ABSENT),
    )
    rows = connection.execute(query.group_by(day))
    return {number: (observed, served) for number, observed, served in rows}


def sums_by_span(
    connection: Connection,
    rollout: str,
    epoch: int,
    *,
    version: str,
    metrics: Iterable[Metric],
    fine_from: int,
    fine: int,
) -> list[tuple[int, str, str, int]]:
    """(minute, metric, label, n) of a version's epoch, the minute being where a span of time begins: days before
    the minute `fine_from`, spans of `fine` minutes from there on.
    """
    width = case((c.minute < fine_from, _DAY), else_=fine)
    start = (c.minute - c.minute % width).label("start")
    query = select(start, c.metric, c.label, cast(func.sum(c.n), BigInteger)).where(
        c.rollout == rollout,
        c.epoch == epoch,
        c.version == version,
        c.metric.in_([metric.value for metric in metrics]),
    )
    return [(*row,) for row in connection.execute(query.group_by(start, c.metric, c.label)).all()]
