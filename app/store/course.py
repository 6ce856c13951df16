"""How fast does evidence come in, on which days, and when did the last of it come?"""

from collections.abc import Collection, Iterable

from sqlalchemy import BigInteger, Connection, and_, case, cast, func, not_, select

from app.domain.counters import NO_OBSERVATION, Metric
from app.store.counters import minute_of
from app.store.tables import evidence_counters

_US_PER_MINUTE = 60 * 1_000_000
_DAY = 24 * 60  # minutes
_FURTHEST = 30  # days that a course goes back

c = evidence_counters.c
ABSENT = and_(c.metric == Metric.OBSERVATION.value, c.label.in_(NO_OBSERVATION))


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
        c.rollout == rollout, c.epoch == epoch, c.version == version, c.metric.in_(wanted), not_(ABSENT)
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
        not_(ABSENT),
    )
    rows = connection.execute(query.group_by(day))
    return {number: (observed, served) for number, observed, served in rows}


def sums_by_span(
    connection: Connection, rollout: str, epochs: Collection[int], *, metrics: Iterable[Metric], now_us: int
) -> list[tuple[int, int, str, str, str, int]]:
    """(minute, epoch, version, metric, label, n), the minute being where a span of time begins: days, hours of the
    last two days, five minutes of the last two hours, and minutes of the last half hour.
    """
    now = minute_of(now_us)
    width = case(
        (c.minute < now - 2 * _DAY, _DAY), (c.minute < now - 120, 60), (c.minute < now - 30, 5), else_=1
    )
    start = (c.minute - c.minute % width).label("start")
    of = (start, c.epoch, c.version, c.metric, c.label)
    query = select(*of, cast(func.sum(c.n), BigInteger)).where(
        c.rollout == rollout,
        c.epoch.in_(epochs),
        c.metric.in_([metric.value for metric in metrics]),
        c.minute >= now - _FURTHEST * _DAY,
    )
    return [(*row,) for row in connection.execute(query.group_by(*of)).all()]
