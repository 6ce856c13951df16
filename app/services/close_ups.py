"""What more is there to see of one rollout, close up: over time, by latency, and against its baseline?"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from app.domain.assessment import Facts
from app.domain.clock import from_us, rfc3339, to_us
from app.domain.counters import LAST_BUCKET, Metric, bucket_edge_ms
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.limits import Guardrail
from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.sequential import lower, lower_bound, upper, upper_bound
from app.domain.shift import total_variation
from app.domain.stream import ONE
from app.domain.tallies import tallies_of
from app.services.gates import Gates
from app.services.plane import Plane
from app.services.prospects import prospects
from app.services.rollouts import evidence_for
from app.store.course import sums_by_span
from app.store.reporting import phases_by_epoch
from app.store.rollouts import baselines, load_states

# What the guardrails' rates are made of.
_COUNTED = (
    *(Metric.OBSERVATION, Metric.LATENCY, Metric.PAIR, Metric.ENFORCED, Metric.FALLBACK, Metric.SELF),
    *(Metric.REVIEWED, Metric.OVERRIDDEN),
)
_US_PER_MINUTE = 60_000_000
_EPOCHS_BEFORE = 3  # that a course shows: what led to a rollback lies in the one before
_BARS_AT_MOST = 40

Span = tuple[int, int]  # the minute in which it begins, and the epoch

_bounds = lru_cache(maxsize=4096)(
    lambda n, bad, alpha: (lower_bound(n, bad, alpha), upper_bound(n, bad, alpha))
)


@dataclass(frozen=True, slots=True)
class CloseUps:
    """Reads counters only: its cost does not grow with history."""

    plane: Plane
    gates: Gates
    now: Callable[[], datetime]

    def of(self, name: str, principal: Principal) -> dict[str, Any]:
        """Raises `NotFound`. Rates are 0..1; every interval holds however often one looks, at the gate's alpha.

        `evidence` is what `Rollouts.evidence` says. `course` has for each guardrail that counts a rate its points, oldest first, of this epoch and a few before
        it, `rates` the epoch's own `{lower, upper}`, `histogram` the model's latencies in buckets of equal ratio without a gap.
        """
        policy = self.plane.view.policy.book.get(name)
        with self.plane.database.read() as connection:
            state, base = load_states(connection)[name], baselines(connection).get(name)
            evidence = self.gates.evidence(connection, state)
            spans = self._spans(connection, state)
        limits = policy.guardrails
        return {
            "evidence": evidence_for(principal, policy, evidence),
            "prospects": prospects(policy, state),
            "course": _course(policy, state, spans, self.now()),
            "rates": dict(_rates(policy, state, evidence, self.now())),
            "histogram": histogram(evidence.of(Metric.LATENCY)),
            "latency_target_ms": limits.latency_target_ms,
            "latency_alert_ms": limits.latency_alert_ms,
            "distribution": _distribution(evidence, base, limit=limits.shift_limit),
        }

    def _spans(self, connection: Connection, state: RolloutState) -> dict[Span, dict[tuple[str, str], int]]:
        """The counters of the active version of this epoch and of those before it, by span of time."""
        epochs = range(max(state.epoch - _EPOCHS_BEFORE, 1), state.epoch + 1)
        versions = {epoch: version for epoch, (_, version) in phases_by_epoch(connection, state.name).items()}
        versions[state.epoch] = state.version
        rows = sums_by_span(connection, state.name, epochs, metrics=_COUNTED, now_us=to_us(self.now()))
        spans: dict[Span, dict[tuple[str, str], int]] = {}
        for minute, epoch, version, metric, label, n in rows:
            if versions.get(epoch) == version:  # not its candidate
                spans.setdefault((minute, epoch), {})[metric, label] = n
        return spans


def histogram(latencies: Mapping[str, int]) -> list[dict[str, Any]]:
    """The `latency` counter as bars of equal ratio without a gap; `to_ms` is None for what came too late."""
    counts = {int(label): n for label, n in latencies.items()}
    late, bars = counts.pop(LAST_BUCKET, 0), list[dict[str, Any]]()
    if counts:
        first, last = min(counts), max(counts)
        step = -(-(last - first + 1) // _BARS_AT_MOST)
        for start in range(first, last + 1, step):
            n = sum(counts.get(bucket, 0) for bucket in range(start, start + step))
            bars.append(
                {"over_ms": bucket_edge_ms(start - 1), "to_ms": bucket_edge_ms(start + step - 1), "n": n}
            )
    if late:
        bars.append({"over_ms": bucket_edge_ms(LAST_BUCKET - 1), "to_ms": None, "n": late})
    return bars


def _counts(facts: Facts) -> Iterator[tuple[str, int, int, float]]:
    """Guardrail, n, how many of them were bad, and the limit; of those that count a rate."""
    for guardrail in Guardrail:
        tally = tallies_of(guardrail, facts).get(ONE)
        if tally is not None:
            n, bad = tally.counts
            yield guardrail.value, n, bad, tally.limit
    evidence = facts.evidence
    reviewed, overridden = evidence.n(Metric.REVIEWED), evidence.n(Metric.OVERRIDDEN)
    yield Guardrail.OVERRIDE.value, reviewed, overridden, facts.policy.guardrails.override_limit


def _course(
    policy: RolloutPolicy, state: RolloutState, spans: Mapping[Span, Any], now: datetime
) -> dict[str, list[dict[str, Any]]]:
    course: dict[str, list[dict[str, Any]]] = {}
    for (minute, epoch), totals in sorted(spans.items()):
        evidence = Evidence(state.name, "", epoch, from_us(minute * _US_PER_MINUTE), totals=totals)
        for name, n, bad, limit in _counts(Facts(policy, state.phase, evidence, now)):
            if 0 <= bad <= n and n:  # a verdict that was undone in another span takes from none
                least, most = _bounds(n, bad, policy.gate_alpha)
                point = {"n": n, "bad": bad, "rate": bad / n, "lower": least, "upper": most, "limit": limit}
                at = {"at": rfc3339(minute * _US_PER_MINUTE), "epoch": epoch}
                course.setdefault(name, []).append({**at, **point})
    return course


def _rates(
    policy: RolloutPolicy, state: RolloutState, evidence: Evidence, now: datetime
) -> Iterator[tuple[str, dict[str, float]]]:
    alpha, groups = policy.gate_alpha, evidence.override_groups
    for name, n, bad, _ in _counts(Facts(policy, state.phase, evidence, now)):
        if name == Guardrail.OVERRIDE and groups:
            yield name, {"lower": lower(groups, alpha), "upper": upper(groups, alpha)}
        elif n:
            yield name, dict(zip(("lower", "upper"), _bounds(n, bad, alpha), strict=True))


def _distribution(evidence: Evidence, base: Mapping[str, int] | None, *, limit: float) -> dict[str, Any]:
    answers = evidence.distribution
    was = {decision.value: (base or {}).get(decision, 0) for decision in Decision}
    return {"now": answers, "baseline": was, "shift": total_variation(answers, was), "limit": limit}
