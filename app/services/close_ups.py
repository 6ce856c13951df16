"""What more is there to see of one rollout, close up: over time, by latency, and against its baseline?"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from app.domain.assessment import Facts
from app.domain.clock import rfc3339, to_us
from app.domain.counters import LAST_BUCKET, Metric, bucket_edge_ms
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.limits import Guardrail
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.sequential import lower, lower_bound, upper, upper_bound
from app.domain.shift import total_variation
from app.domain.stream import ONE
from app.domain.tallies import tallies_of
from app.services.gates import Gates
from app.services.plane import Plane
from app.services.prospects import prospects
from app.store.counters import minute_of
from app.store.course import sums_by_span
from app.store.rollouts import baselines, load_states

# What the guardrails' rates are made of.
_COUNTED = (
    *(Metric.OBSERVATION, Metric.LATENCY, Metric.PAIR, Metric.ENFORCED, Metric.FALLBACK, Metric.SELF),
    *(Metric.REVIEWED, Metric.OVERRIDDEN),
)
_US_PER_MINUTE = 60_000_000
_HOUR, _FINE_FOR, _MINUTELY_FOR = 60, 48 * 60, 90  # minutes
_BARS_AT_MOST = 40

_bounds = lru_cache(maxsize=4096)(
    lambda n, bad, alpha: (lower_bound(n, bad, alpha), upper_bound(n, bad, alpha))
)


@dataclass(frozen=True, slots=True)
class CloseUps:
    """Reads counters only: its cost does not grow with history."""

    plane: Plane
    gates: Gates
    now: Callable[[], datetime]

    def of(self, name: str) -> dict[str, Any]:
        """Raises `NotFound`. Rates are 0..1; every interval holds however often one looks, at the gate's alpha.

        `course` has for each guardrail that counts a rate its points, oldest first, `rates` the epoch's own
        `{lower, upper}`, `histogram` the model's latencies in buckets of equal ratio without a gap.
        """
        policy = self.plane.view.policy.book.get(name)
        with self.plane.database.read() as connection:
            state, base = load_states(connection)[name], baselines(connection).get(name)
            evidence = self.gates.evidence(connection, state)
            spans = self._spans(connection, state)
        limits = policy.guardrails
        return {
            "prospects": prospects(policy, state),
            "course": _course(policy, state, spans, self.now()),
            "rates": dict(_rates(policy, state, evidence, self.now())),
            "histogram": histogram(evidence.of(Metric.LATENCY)),
            "latency_target_ms": limits.latency_target_ms,
            "latency_alert_ms": limits.latency_alert_ms,
            "distribution": _distribution(evidence, base, limit=limits.shift_limit),
        }

    def _spans(self, connection: Connection, state: RolloutState) -> dict[int, dict[tuple[str, str], int]]:
        """The counters of the epoch by the minute in which a span begins: days, and of late hours or minutes."""
        now = minute_of(to_us(self.now()))
        age = now - minute_of(to_us(state.epoch_started_at))
        rows = sums_by_span(
            connection,
            state.name,
            state.epoch,
            version=state.version,
            metrics=_COUNTED,
            fine_from=now - _FINE_FOR,
            fine=1 if age <= _MINUTELY_FOR else _HOUR,
        )
        spans: dict[int, dict[tuple[str, str], int]] = {}
        for minute, metric, label, n in rows:
            spans.setdefault(minute, {})[metric, label] = n
        return spans


def histogram(latencies: Mapping[str, int]) -> list[dict[str, Any]]:
    """The `latency` counter as bars; `over_ms` is None for the shortest, `to_ms` for what came too late."""
    counts = {int(label): n for label, n in latencies.items()}
    timely = [bucket for bucket in counts if bucket < LAST_BUCKET]
    bars = []
    if timely:
        first, last = min(timely), max(timely)
        step = -(-(last - first + 1) // _BARS_AT_MOST)
        for start in range(first, last + 1, step):
            n = sum(counts.get(bucket, 0) for bucket in range(start, start + step))
            edges = bucket_edge_ms(start - 1), bucket_edge_ms(start + step - 1)
            bars.append({"over_ms": edges[0], "to_ms": edges[1], "n": n})
    if counts.get(LAST_BUCKET):
        bars.append({"over_ms": bucket_edge_ms(LAST_BUCKET - 1), "to_ms": None, "n": counts[LAST_BUCKET]})
    return bars


def _facts(policy: RolloutPolicy, state: RolloutState, evidence: Evidence, now: datetime) -> Facts:
    return Facts(policy, state.phase, evidence, now)


def _counts(evidence: Evidence, facts: Facts) -> Iterator[tuple[str, int, int, float]]:
    """Guardrail, n, how many of them were bad, and the limit; of those that count a rate."""
    for guardrail in Guardrail:
        tally = tallies_of(guardrail, facts).get(ONE)
        if tally is not None:
            n, bad = tally.counts
            yield guardrail.value, n, bad, tally.limit
    reviewed, overridden = evidence.n(Metric.REVIEWED), evidence.n(Metric.OVERRIDDEN)
    yield Guardrail.OVERRIDE.value, reviewed, overridden, facts.policy.guardrails.override_limit


def _course(
    policy: RolloutPolicy, state: RolloutState, spans: Mapping[int, Any], now: datetime
) -> dict[str, list[dict[str, Any]]]:
    course: dict[str, list[dict[str, Any]]] = {}
    for minute, totals in sorted(spans.items()):
        began = datetime.fromtimestamp(minute * 60, UTC)
        evidence = Evidence(state.name, state.version, state.epoch, began, totals=totals)
        for name, n, bad, limit in _counts(evidence, _facts(policy, state, evidence, now)):
            if 0 <= bad <= n and n:  # a verdict that was undone in another span takes from none
                least, most = _bounds(n, bad, policy.gate_alpha)
                point = {"n": n, "bad": bad, "rate": bad / n, "lower": least, "upper": most, "limit": limit}
                course.setdefault(name, []).append({"at": rfc3339(minute * _US_PER_MINUTE), **point})
    return course


def _rates(
    policy: RolloutPolicy, state: RolloutState, evidence: Evidence, now: datetime
) -> Iterator[tuple[str, dict[str, float]]]:
    alpha, groups = policy.gate_alpha, evidence.override_groups
    for name, n, bad, _ in _counts(evidence, _facts(policy, state, evidence, now)):
        if name == Guardrail.OVERRIDE and groups:
            yield name, {"lower": lower(groups, alpha), "upper": upper(groups, alpha)}
        elif n:
            yield name, dict(zip(("lower", "upper"), _bounds(n, bad, alpha), strict=True))


def _distribution(evidence: Evidence, base: Mapping[str, int] | None, *, limit: float) -> dict[str, Any]:
    answers = evidence.distribution
    was = {decision.value: (base or {}).get(decision, 0) for decision in Decision}
    return {"now": answers, "baseline": was, "shift": total_variation(answers, was), "limit": limit}
