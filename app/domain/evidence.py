"""What do the counters of one rollout, version and epoch say?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.domain.advisory import Outcome
from app.domain.clock import rfc3339, to_us
from app.domain.counters import LAST_BUCKET, NO_OBSERVATION, NOT_THE_MODELS, Metric, bucket_middle_ms
from app.domain.decision import Decision
from app.domain.reliability import ac1, raw_agreement
from app.domain.sampling import Draw, Judged, Stratum, stratified_rate
from app.domain.sequential import Group, lower_bound, upper

Totals = Mapping[tuple[str, str], int]  # sums of increments by (metric, label)

SOAK_OBSERVATIONS = 20  # a day with fewer does not count as soak

_DAY_S = 86_400.0
_ERRORS = (Outcome.TIMEOUT, Outcome.MALFORMED, Outcome.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the epoch."""

    observations: int
    served_s: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one rollout, version and epoch.

    `independent` is false where the version is shown the legacy answer. `problem` says why the counters
    cannot be read, if they cannot: then nothing else here means anything.
    """

    rollout: str
    version: str
    epoch: int
    epoch_started_at: datetime
    independent: bool = True
    totals: Totals = field(default_factory=dict)
    days: Mapping[int, Day] = field(default_factory=dict)
    problem: str | None = None
    _by_metric: dict[str, dict[str, int]] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        by_metric: dict[str, dict[str, int]] = {}
        for (metric, label), n in self.totals.items():
            if n:
                by_metric.setdefault(metric, {})[label] = n
        object.__setattr__(self, "_by_metric", by_metric)

    def of(self, metric: Metric) -> dict[str, int]:
        """One metric by label; labels that were taken back to nothing are left out."""
        return dict(self._by_metric.get(metric, ()))

    def n(self, metric: Metric) -> int:
        return sum(self.of(metric).values())

    @property
    def observed(self) -> int:
        """Answers and failures of the model that are evidence, of work that was started."""
        outcomes = self.of(Metric.OBSERVATION)
        return sum(n for outcome, n in outcomes.items() if outcome not in NO_OBSERVATION)

    @property
    def errors(self) -> int:
        outcomes = self.of(Metric.OBSERVATION)
        return sum(outcomes.get(outcome, 0) for outcome in _ERRORS)

    @property
    def compared(self) -> int:
        return self.n(Metric.PAIR)

    @property
    def agreed(self) -> int:
        pairs = self.of(Metric.PAIR)
        return sum(pairs.get(f"{decision}>{decision}", 0) for decision in Decision)

    @property
    def should_have_answered(self) -> int:
        """Enforced decisions, but for those that a kill switch or a stale plane took from the model."""
        fallbacks = self.of(Metric.FALLBACK)
        return self.n(Metric.ENFORCED) - sum(fallbacks.get(reason, 0) for reason in NOT_THE_MODELS)

    @property
    def fell_back(self) -> int:
        fallbacks = self.of(Metric.FALLBACK)
        return sum(n for reason, n in fallbacks.items() if reason not in NOT_THE_MODELS)

    @property
    def distribution(self) -> dict[str, int]:
        """The model's answers by decision, all three of them."""
        answers = self.of(Metric.MODEL)
        return {decision.value: answers.get(decision, 0) for decision in Decision}

    @property
    def reviewed_allows(self) -> int:
        return self.n(Metric.REVIEWED_ALLOW)

    @property
    def wrong_allows(self) -> int:
        return self.n(Metric.WRONG_ALLOW)

    @property
    def actors(self) -> int:
        """Different actors behind the observations; no more than a hundred are told apart."""
        return self.n(Metric.ACTORS)

    @property
    def asked_twice(self) -> tuple[int, int]:
        """How often the model was asked the same again, and how often it then said something else."""
        return self.n(Metric.SELF), self.of(Metric.SELF).get("other", 0)

    @property
    def doubles(self) -> dict[tuple[Decision, Decision], int]:
        """The verdicts of two people who judged the same decisions blind."""
        pairs = ((label.split(">"), n) for label, n in self.of(Metric.DOUBLE).items())
        return {(Decision(first), Decision(second)): n for (first, second), n in pairs}

    @property
    def soak_days(self) -> float:
        """Served days with observations enough to count."""
        return sum(day.served_s for day in self.soaked.values()) / _DAY_S

    @property
    def soaked(self) -> dict[int, Day]:
        return {number: day for number, day in self.days.items() if day.observations >= SOAK_OBSERVATIONS}

    @property
    def override_groups(self) -> list[Group]:
        """The drawn and judged decisions, by inclusion probability."""
        overridden = self.of(Metric.OVERRIDDEN)
        reviewed = [(_draw(label), label, n) for label, n in self.of(Metric.REVIEWED).items()]
        smallest = min((draw.inclusion_probability for draw, _, _ in reviewed), default=1.0)
        return [
            Group(n, overridden.get(label, 0), smallest / draw.inclusion_probability)
            for draw, label, n in reviewed
        ]

    @property
    def override_rate(self) -> float | None:
        """The estimate for all decisions out of both strata, or None without verdicts."""
        populations = {
            Stratum.AGREEMENT: self.agreed,
            Stratum.DISAGREEMENT: self.compared - self.agreed,
        }
        return stratified_rate(
            Judged(n, self._drawn(Metric.REVIEWED, stratum), self._drawn(Metric.OVERRIDDEN, stratum))
            for stratum, n in populations.items()
        )

    def above_ms(self, limit_ms: float) -> int:
        """How many answers took longer, a time-out always counting as longer."""
        buckets = self.of(Metric.LATENCY)
        return sum(n for label, n in buckets.items() if bucket_middle_ms(int(label)) > limit_ms)

    def percentile_ms(self, share: float) -> float | None:
        """A percentile of the model's latency, or None without any."""
        buckets = sorted((int(label), n) for label, n in self.of(Metric.LATENCY).items())
        rank = share * sum(n for _, n in buckets)
        seen = 0
        for bucket, n in buckets:
            seen += n
            if seen >= rank:
                return bucket_middle_ms(bucket)
        return None

    def _drawn(self, metric: Metric, stratum: Stratum) -> int:
        return sum(n for label, n in self.of(metric).items() if _draw(label).stratum is stratum)


def from_totals(
    rollout: str,
    version: str,
    *,
    epoch: int,
    epoch_started_at: datetime,
    totals: Totals,
    days: Mapping[int, tuple[int, int]],
    independent: bool = True,
) -> Evidence:
    """Read counters: sums by (metric, label), and (observations, served seconds) by day.

    Counters that cannot be true are not repaired: the evidence says what is wrong in `problem`.
    """
    spans = {number: Day(*figures) for number, figures in days.items()}
    evidence = Evidence(rollout, version, epoch, epoch_started_at, independent, totals, spans)
    try:
        problem = _problem(evidence)
    except ValueError as error:
        problem = f"a counter's label cannot be read: {error}"
    return evidence if problem is None else replace(evidence, totals={}, days={}, problem=problem)


def unreadable(
    rollout: str, version: str, *, epoch: int, epoch_started_at: datetime, problem: str
) -> Evidence:
    """The evidence that there should be but that could not be read."""
    return Evidence(rollout, version, epoch, epoch_started_at, problem=problem)


def to_wire(evidence: Evidence, *, alpha: float) -> dict[str, Any]:
    """The `evidence` shape; `alpha` is the risk of each bound."""
    n, agreed = evidence.compared, evidence.agreed
    reviewed = evidence.n(Metric.REVIEWED)
    return {
        "rollout": evidence.rollout,
        "version": evidence.version,
        "epoch": evidence.epoch,
        "epoch_started_at": rfc3339(to_us(evidence.epoch_started_at)),
        "problem": evidence.problem,
        "decisions": evidence.n(Metric.DECISION),
        "unexposed": evidence.n(Metric.UNEXPOSED),
        "observed": evidence.observed,
        "agreement": {
            "n": n,
            "agreed": agreed,
            "rate": _share(agreed, n),
            "lower": lower_bound(n, agreed, alpha) if n else None,
            "independent": evidence.independent,
        },
        "confusion": evidence.of(Metric.PAIR),
        "overrides": {
            "drawn": evidence.n(Metric.DRAWN),
            "reviewed": reviewed,
            "overridden": evidence.n(Metric.OVERRIDDEN),
            "rate": evidence.override_rate,
            "upper": upper(evidence.override_groups, alpha) if reviewed else None,
        },
        "doubles": {
            "n": sum(evidence.doubles.values()),
            "agreement": raw_agreement(evidence.doubles),
            "ac1": ac1(evidence.doubles),
        },
        "wrong_allows": {"reviewed": evidence.reviewed_allows, "confirmed": evidence.wrong_allows},
        "errors": {
            "n": evidence.observed,
            "bad": evidence.errors,
            "rate": _share(evidence.errors, evidence.observed),
            "by_outcome": evidence.of(Metric.OBSERVATION),
        },
        "latency_ms": {
            "p50": evidence.percentile_ms(0.50),
            "p95": evidence.percentile_ms(0.95),
            "p99": evidence.percentile_ms(0.99),
        },
        "distribution": evidence.distribution,
        "answered": evidence.of(Metric.ANSWERED),
        "fallbacks": evidence.of(Metric.FALLBACK),
        "soak_days": evidence.soak_days,
    }


def _problem(evidence: Evidence) -> str | None:
    for (metric, label), n in evidence.totals.items():
        if n < 0:
            return f"the counter {metric} {label} is negative: {n}"
    for label, n in evidence.of(Metric.OVERRIDDEN).items():
        if n > evidence.of(Metric.REVIEWED).get(label, 0):
            return f"more overridden than reviewed: {label}"
    for label, n in evidence.of(Metric.REVIEWED).items():
        if n > evidence.of(Metric.DRAWN).get(_draw(label).label, 0):
            return f"more reviewed than drawn: {label}"
    if evidence.n(Metric.FALLBACK) > evidence.n(Metric.ENFORCED):
        return "more fallbacks than enforced decisions"
    if any(int(label) > LAST_BUCKET for label in evidence.of(Metric.LATENCY)):
        return "a latency beyond the last bucket"
    if any(day.observations < 0 or day.served_s < 0 for day in evidence.days.values()):
        return "a day with negative figures"
    return None


def _draw(label: str) -> Draw:
    stratum, _, step = label.partition(":")
    return Draw(Stratum(stratum), int(step))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
