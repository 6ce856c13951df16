"""What is known of a period, and of the plane as it stands?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.clock import from_us, to_us
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.period import Period, Span, span_of
from app.domain.phase import Phase
from app.domain.proofs import Validated
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.situation import canonical
from app.engines.model.version import ModelVersion
from app.errors import PolicyError
from app.policy.suites import find_suites, fingerprint, load_suites
from app.services.gates import Gates
from app.services.plane import Plane
from app.services.ports import Models
from app.services.reports.machine import Resources, resources
from app.services.rollouts import Rollouts
from app.services.validate import validated
from app.store import reporting
from app.store.counters import totals
from app.store.reporting import PLANE, Counted
from app.store.reviews import Backlog, review_backlog
from app.store.rollouts import load_states
from app.store.satisfaction import answers

TREND_DAYS = 7  # at least, also in a daily report

_READ_AT_MOST_S = 60.0
_DAY_US = 86_400_000_000
_INSTANT, _AT_LEISURE = timedelta(microseconds=1), timedelta(hours=1)

Week = tuple[int, int]  # pairs of answers, and how many of them agreed


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """One rollout. `document` and `now` are of this moment, `period` and `days` of the version that decided most
    in the period; `weeks` are the first two in shadow.
    """

    policy: RolloutPolicy
    state: RolloutState
    document: Mapping[str, Any]
    now: Evidence
    period: Evidence
    days: Mapping[int, Evidence]
    baseline: Evidence | None
    weeks: Sequence[Week]
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
    transitions: Sequence[RowMapping]
    disagreements: Mapping[str, Any]
    clusters: Sequence[RowMapping]
    verdicts: Sequence[RowMapping]
    backlog: Mapping[str, Backlog]
    satisfaction: Mapping[str, Any]
    started_at: datetime | None
    reports: Mapping[Period, bool | None]  # whether the last complete one of each is kept; None: not due
    resources: Resources
    settings: Mapping[str, Mapping[str, Any]]  # of each version in use
    model_ready: bool

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
class Gathering:
    """Where facts are found. `data_dir` is None where unknown."""

    plane: Plane
    gates: Gates
    rollouts: Rollouts
    models: Models
    versions: Mapping[str, ModelVersion]
    policies_dir: Path
    data_dir: Path | None

    def facts(self, span: Span, *, now: datetime) -> Facts:
        policies = self.plane.view.policy.book.policies
        documents = {policy.name: self.rollouts.one(policy.name) for policy in policies}
        starts_us, ends_us = to_us(span.starts_at), to_us(span.ends_at)
        first_day, suites = starts_us // _DAY_US, self._suites()
        with self.plane.database.read(at_most_s=_READ_AT_MOST_S) as connection:
            states = load_states(connection)
            counted = reporting.counted(connection, min(starts_us, ends_us - TREND_DAYS * _DAY_US), ends_us)
            by_rollout: defaultdict[str, list[Counted]] = defaultdict(list)
            for row in counted:
                by_rollout[row.rollout].append(row)
            looked, clusters = reporting.disagreements(connection, starts_us, ends_us)
            started_us = reporting.first_start_us(connection)
            started_at = None if started_us is None else from_us(started_us)

            def of(policy: RolloutPolicy) -> RolloutFacts:
                state = states[policy.name]
                period, days = _of_period(by_rollout[policy.name], state, first_day=first_day)
                baseline, weeks = _shadow(connection, state)
                return RolloutFacts(
                    policy=policy,
                    state=state,
                    document=documents[policy.name],
                    now=self.gates.evidence(connection, state),
                    period=period,
                    days=days,
                    baseline=baseline,
                    weeks=weeks,
                    validated=validated(connection, state.version, suite_sha256=suites),
                    previous_ready=None
                    if state.previous is None
                    else self.models.of(state.previous).is_ready,
                )

            return Facts(
                span=span,
                now=now,
                rollouts=[of(policy) for policy in policies],
                counted=[row for row in counted if row.day >= first_day],
                transitions=reporting.transitions_in(connection, starts_us, ends_us),
                disagreements=looked,
                clusters=clusters,
                verdicts=reporting.verdicts_in(connection, starts_us, ends_us),
                backlog=review_backlog(connection, to_us(now)),
                satisfaction=answers(connection, since_us=starts_us, until_us=ends_us),
                started_at=started_at,
                reports=_last_reports(connection, span, now=now, started_at=started_at),
                resources=resources(self.data_dir, self.models.default.status.pid),
                settings=self._settings({state.version for state in states.values()}),
                model_ready=self.models.default.is_ready,
            )

    def known_situations(self) -> frozenset[str]:
        """The canonical JSON of what the suites hold; nothing where they cannot be read."""
        try:
            suites = load_suites(find_suites(self.policies_dir))
        except PolicyError:
            return frozenset()
        return frozenset(canonical(case.situation) for case in suites.cases)

    def _suites(self) -> str:
        try:
            return fingerprint(self.policies_dir)
        except PolicyError:
            return ""  # a validation on whatever suites counts as an old one

    def _settings(self, versions: Iterable[str]) -> dict[str, dict[str, Any]]:
        decoding = {name: self.versions[name].decoding for name in sorted(versions) if name in self.versions}
        return {
            name: {"n_ctx": said.n_ctx, "max_tokens": said.max_tokens, "temperature": said.temperature}
            for name, said in decoding.items()
        }


def _of_period(
    rows: Sequence[Counted], state: RolloutState, *, first_day: int
) -> tuple[Evidence, dict[int, Evidence]]:
    """The evidence of the period and of each day, of the version that decided most in the period."""
    decided: Counter[str] = Counter()
    for row in rows:
        if row.metric == Metric.DECISION and row.day >= first_day:
            decided[row.version] += row.n
    version = decided.most_common(1)[0][0] if decided else state.version
    by_day: defaultdict[int, list[Counted]] = defaultdict(list)
    for row in rows:
        if row.version == version:
            by_day[row.day].append(row)
    whole = _evidence(state, version, (row for day in by_day if day >= first_day for row in by_day[day]))
    return whole, {day: _evidence(state, version, by_day[day]) for day in sorted(by_day)}


def _shadow(connection: Connection, state: RolloutState) -> tuple[Evidence | None, list[Week]]:
    """The latest shadow epoch with answers, and the first two weeks in shadow."""
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


def _last_reports(
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


def _week(pairs: Sequence[Counted], number: int) -> Week:
    begins = pairs[0].day + 7 * number if pairs else 0
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
