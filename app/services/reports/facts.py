"""What is known of a period, and of the plane as it stands?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.clock import to_us
from app.domain.condition import Validated
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.period import Period, Span, span_of
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState
from app.services.reports.machine import Resources
from app.store import reporting
from app.store.counters import totals
from app.store.reporting import PLANE, Counted
from app.store.reviews import Backlog

TREND_DAYS = 7  # at least, also in a daily report

_DAY_US = 86_400_000_000
_INSTANT, _AT_LEISURE = timedelta(microseconds=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """One rollout. `document` and `now` are of this moment, `period` and `days` of the version that decided most
    in the period; `weeks` holds (pairs, agreed) of the first two weeks in shadow.
    """

    policy: RolloutPolicy
    state: RolloutState
    document: Mapping[str, Any]
    now: Evidence
    period: Evidence
    days: Mapping[int, Evidence]
    baseline: Evidence | None
    weeks: Sequence[tuple[int, int]]
    validated: Validated | None
    previous_ready: bool | None  # None: there is none

    @property
    def name(self) -> str:
        return self.policy.name


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report is assembled from."""

    span: Span
    now: datetime
    rollouts: Sequence[RolloutFacts]
    counted: Sequence[Counted]  # of the period alone
    transitions: Sequence[Mapping[str, Any]]
    disagreements: Mapping[str, Any]
    clusters: Sequence[RowMapping]
    verdicts: Sequence[RowMapping]
    backlog: Mapping[str, Backlog]
    satisfaction: Mapping[str, Any]
    started_at: datetime | None
    reports: Mapping[Period, bool | None]  # whether the last complete one of each is kept; None: not due
    resources: Resources
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of each version in use
    model_ready: bool = False

    @property
    def complete(self) -> bool:
        return self.span.ends_at <= self.now

    @property
    def counted_from(self) -> datetime:
        """When the plane first started, or the period began."""
        return max(self.started_at or self.span.starts_at, self.span.starts_at)

    @property
    def wall_s(self) -> float:
        """Seconds of the period that there was a plane, up or not."""
        return max((min(self.now, self.span.ends_at) - self.counted_from).total_seconds(), 0.0)

    def sums(self, metric: Metric, *, plane: bool = False) -> Counter[str]:
        """One metric of the period by label, over all rollouts and versions, or of the plane as a whole."""
        found: Counter[str] = Counter()
        for row in self.counted:
            if row.metric == metric and (row.rollout == PLANE) is plane:
                found[row.label] += row.n
        return found


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted from `from_day` on, of which the period is the end."""

    rows: Sequence[Counted]
    first_day: int  # of the period

    @property
    def of_period(self) -> list[Counted]:
        return [row for row in self.rows if row.day >= self.first_day]


def read_counts(connection: Connection, span: Span) -> Counts:
    starts_us, ends_us = to_us(span.starts_at), to_us(span.ends_at)
    trend_us = min(starts_us, ends_us - TREND_DAYS * _DAY_US)
    return Counts(reporting.counted(connection, trend_us, ends_us), starts_us // _DAY_US)


def of_period(counts: Counts, state: RolloutState) -> tuple[Evidence, dict[int, Evidence]]:
    """The evidence of the period and of each day, of the version that decided most in the period."""
    rows = [row for row in counts.rows if row.rollout == state.name]
    decided: Counter[str] = Counter()
    for row in rows:
        if row.metric == Metric.DECISION and row.day >= counts.first_day:
            decided[row.version] += row.n
    version = decided.most_common(1)[0][0] if decided else state.version
    own = [row for row in rows if row.version == version]
    whole = _evidence(state, version, (row for row in own if row.day >= counts.first_day))
    days = sorted({row.day for row in own})
    return whole, {day: _evidence(state, version, (row for row in own if row.day == day)) for day in days}


def shadow_of(connection: Connection, state: RolloutState) -> tuple[Evidence | None, list[tuple[int, int]]]:
    """The latest shadow epoch with answers, and (pairs, agreed) of the first two weeks in shadow."""
    epochs = reporting.phases_by_epoch(connection, state.name)
    epochs[state.epoch] = (state.phase.value, state.version)
    shadow = {epoch: version for epoch, (phase, version) in epochs.items() if phase == Phase.SHADOW}
    baseline = None
    for epoch, version in sorted(shadow.items(), reverse=True):
        found = totals(connection, state.name, epoch, version=version)
        if any(metric == Metric.MODEL for metric, _ in found):
            baseline = Evidence(state.name, version, epoch, state.epoch_started_at, totals=_plausible(found))
            break
    pairs = [
        row
        for row in reporting.shadow_pairs(connection, state.name, list(shadow))
        if shadow[row.epoch] == row.version
    ]
    return baseline, [_week(pairs, number) for number in (0, 1)]


def last_reports(
    connection: Connection, span: Span, *, now: datetime, started_at: datetime | None
) -> dict[Period, bool | None]:
    """Whether the last complete period of each kind has its report, which may be the one of `span` itself.

    None where it need not have one yet: it is over since an hour or less, or the plane began after it.
    """
    last = {period: span_of(period, span_of(period, now).starts_at - _INSTANT) for period in Period}
    there = {span.id, *reporting.which_stored(connection, [each.id for each in last.values()])}
    found: dict[Period, bool | None] = {}
    for period, each in last.items():
        is_due = started_at is not None and started_at < each.ends_at and now - each.ends_at > _AT_LEISURE
        found[period] = True if each.id in there else False if is_due else None
    return found


def _week(pairs: Sequence[Counted], number: int) -> tuple[int, int]:
    if not pairs:
        return 0, 0
    begins = pairs[0].day + 7 * number
    of_week = [row for row in pairs if begins <= row.day < begins + 7]
    agreed = sum(row.n for row in of_week if len(set(row.label.split(">"))) == 1)
    return sum(row.n for row in of_week), agreed


def _evidence(state: RolloutState, version: str, rows: Iterable[Counted]) -> Evidence:
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        sums[row.metric, row.label] += row.n
    return Evidence(state.name, version, state.epoch, state.epoch_started_at, totals=_plausible(sums))


def _plausible(sums: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """A period may hold the undoing of a verdict without the verdict: that is none, not fewer than none."""
    found = {key: max(n, 0) for key, n in sums.items()}
    for (metric, label), n in found.items():
        if metric == Metric.OVERRIDDEN:
            found[metric, label] = min(n, found.get((Metric.REVIEWED, label), 0))
    return found
