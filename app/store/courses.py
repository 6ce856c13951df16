"""How does evidence come in to every rollout, in the same few queries however many there are?"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, case, cast, func, not_, select

from app.domain.counters import Metric
from app.store.counters import minute_of
from app.store.course import ABSENT
from app.store.tables import evidence_counters, investigations, rollouts

_US_PER_MINUTE = 60 * 1_000_000
_HOUR, _DAY = 60, 24 * 60  # minutes
_DECISIONS = (Metric.DECISION.value, Metric.UNEXPOSED.value)

c, r = evidence_counters.c, rollouts.c
_n = cast(func.sum(c.n), BigInteger)

# Nothing is added to the name, but so SQLite goes from the few rollouts to their counters and not from all of these.
_of_rollout = c.rollout == r.name.concat("")
_of_active: ColumnElement[bool] = and_(_of_rollout, r.epoch == c.epoch, r.version == c.version, not_(ABSENT))


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


def course_of_all(
    connection: Connection, *, metrics: Iterable[Metric], since_us: int
) -> defaultdict[str, Course]:
    """By rollout, in two queries; what came is counted from `since_us` on."""
    wanted = [metric.value for metric in metrics]
    found: defaultdict[str, Course] = defaultdict(lambda: Course(came=dict.fromkeys(wanted, 0)))
    daily = (Metric.OBSERVATION.value, Metric.SERVED_S.value)
    day = (c.minute // _DAY).label("day")
    by_day = select(r.name, c.metric, day, _n, func.max(c.minute)).where(_of_active, c.metric.in_(daily))
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
