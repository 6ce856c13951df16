"""How fast does evidence come in, of one rollout or of all in the same few queries, and when did the last come?"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, case, cast, func, not_, select

from app.domain.counters import NO_OBSERVATION, Metric
from app.store.counters import minute_of
from app.store.tables import evidence_counters, investigations, rollouts

_US_PER_MINUTE = 60 * 1_000_000
_HOUR, _DAY = 60, 24 * 60  # minutes
_FURTHEST = 30  # days that a course goes back
_DECISIONS = (Metric.DECISION.value, Metric.UNEXPOSED.value)
_DAILY = (Metric.OBSERVATION.value, Metric.SERVED_S.value)

c, r = evidence_counters.c, rollouts.c
_n = cast(func.sum(c.n), BigInteger)
_absent = and_(c.metric == Metric.OBSERVATION.value, c.label.in_(NO_OBSERVATION))

# Nothing is added to the name, but so SQLite goes from the few rollouts to their counters and not from all of these.
_of_rollout = c.rollout == r.name.concat("")
_of_active: ColumnElement[bool] = and_(_of_rollout, r.epoch == c.epoch, r.version == c.version, not_(_absent))


@dataclass(slots=True)
class Traffic:
    """Decisions by hour counted from 1970; an hour without any is absent."""

    by_hour: dict[int, int] = field(default_factory=dict)
    lately: int = 0


@dataclass(slots=True)
class Course:
    """What `course` and `days_served` say of a rollout's active version in its present epoch."""

    came: dict[str, int] = field(default_factory=dict)
    days: dict[int, tuple[int, int]] = field(default_factory=dict)
    latest_us: int | None = None


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
        c.rollout == rollout, c.epoch == epoch, c.version == version, c.metric.in_(wanted), not_(_absent)
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
        c.metric.in_(_DAILY),
        not_(_absent),
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
    query = select(*of, _n).where(
        c.rollout == rollout,
        c.epoch.in_(epochs),
        c.metric.in_([metric.value for metric in metrics]),
        c.minute >= now - _FURTHEST * _DAY,
    )
    return [(*row,) for row in connection.execute(query.group_by(*of)).all()]


def course_of_all(
    connection: Connection, *, metrics: Iterable[Metric], since_us: int
) -> defaultdict[str, Course]:
    """By rollout, in two queries; what came is counted from `since_us` on."""
    wanted = [metric.value for metric in metrics]
    found: defaultdict[str, Course] = defaultdict(lambda: Course(came=dict.fromkeys(wanted, 0)))
    day = (c.minute // _DAY).label("day")
    by_day = select(r.name, c.metric, day, _n, func.max(c.minute)).where(_of_active, c.metric.in_(_DAILY))
    for name, metric, number, summed, minute in connection.execute(
        by_day.group_by(r.name, c.metric, day)
    ).all():
        of = found[name]
        observed, served = of.days.get(number, (0, 0))
        if metric == Metric.SERVED_S:
            of.days[number] = observed, summed
        else:
            of.days[number] = summed, served
            of.latest_us = max(of.latest_us or 0, minute * _US_PER_MINUTE)
    lately = select(r.name, c.metric, _n).where(
        _of_active, c.metric.in_(wanted), c.minute >= minute_of(since_us)
    )
    for name, metric, summed in connection.execute(lately.group_by(r.name, c.metric)).all():
        found[name].came[metric] = summed
    return found


def traffic_of_all(connection: Connection, *, since_us: int, lately_us: int) -> dict[str, Traffic]:
    """Decisions of each rollout, whatever its epoch, since an instant and since a later one."""
    since, lately = minute_of(since_us), minute_of(lately_us)
    n_lately = cast(func.sum(case((c.minute >= lately, c.n), else_=0)), BigInteger)
    hour = (c.minute // _HOUR).label("hour")
    counted = and_(c.metric.in_(_DECISIONS), c.minute >= since)
    # An epoch as old as that holds all of it, and is found by its key; the others are looked through.
    old = select(r.name, hour, _n, n_lately).where(r.epoch_started_us <= since_us, _of_rollout)
    new = select(r.name, hour, _n, n_lately).where(r.epoch_started_us > since_us, _of_rollout)
    found: dict[str, Traffic] = {}
    for query in (old.where(r.epoch == c.epoch), new):
        for name, at, summed, recent in connection.execute(query.where(counted).group_by(r.name, hour)).all():
            of = found.setdefault(name, Traffic())
            of.by_hour[at] = summed
            of.lately += recent
    return found


def served_s_since_closed(connection: Connection) -> dict[str, int]:
    """Seconds that the active version was served in each rollout since its last investigation closed, over its
    epochs; one that has none, or an open one, is absent.
    """
    i = investigations.c
    since = and_(r.investigation_id == i.id, c.minute >= i.closed_us // _US_PER_MINUTE)
    served = and_(_of_rollout, c.version == r.version, c.metric == Metric.SERVED_S.value)
    found = connection.execute(select(r.name, _n).where(since, served).group_by(r.name))
    return dict(map(tuple, found))
