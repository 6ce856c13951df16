"""How fast does evidence come in, and when did the last of it come?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, and_, case, cast, func, not_, select

from app.domain.counters import NOT_OBSERVED, Metric
from app.store.counters import minute_of
from app.store.tables import evidence_counters

_US_PER_MINUTE = 60 * 1_000_000

c = evidence_counters.c


@dataclass(frozen=True, slots=True)
class Course:
    """`recent` counts each metric that was asked for; absences of a model are no observations.

    `latest_us` is the beginning of the minute, or of the hour or day that old minutes are folded into, of
    the latest observation.
    """

    recent: Mapping[str, int]
    latest_us: int | None


def course(
    connection: Connection,
    rollout: str,
    epoch: int,
    *,
    version: str,
    metrics: Collection[Metric],
    since_us: int,
) -> Course:
    """What came of a version's evidence in an epoch since an instant."""
    wanted = {metric.value for metric in metrics} | {Metric.OBSERVATION.value}
    recent = cast(func.sum(case((c.minute >= minute_of(since_us), c.n), else_=0)), BigInteger)
    absent = and_(c.metric == Metric.OBSERVATION.value, c.label == NOT_OBSERVED)
    query = select(c.metric, recent, func.max(c.minute)).where(
        c.rollout == rollout, c.epoch == epoch, c.version == version, c.metric.in_(wanted), not_(absent)
    )
    rows = {metric: (n, minute) for metric, n, minute in connection.execute(query.group_by(c.metric))}
    latest = rows.get(Metric.OBSERVATION.value)
    return Course(
        {metric: rows.get(metric, (0, 0))[0] for metric in wanted},
        None if latest is None else latest[1] * _US_PER_MINUTE,
    )
