"""What does one event add to the counters that evidence is read from?

The ledger only adds: a decision, a draw, an advisory or a verdict becomes a few increments. Only exposed
decisions are evidence of their epoch.
"""

import math
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from app.domain.admission import Claim
from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision, LegacyAnswer, is_wrong_allow
from app.domain.phase import Phase
from app.domain.routing import Answer, FallbackReason
from app.domain.sampling import Draw

Count = tuple[str, str, int]  # metric, label, n

ALL = "all"  # the label of a metric that has but one
NOT_OBSERVED = "not_observed"
# What became of a situation of which the model's answer, if there is one, says nothing new.
NO_OBSERVATION = frozenset({NOT_OBSERVED, *(claim.value for claim in Claim if claim is not Claim.ADMITTED)})
LAST_BUCKET = 48

_FIRST_BUCKET = -80
_EDGE_MS, _EDGES_PER_OCTAVE = 5_000.0, 8
_SHED = frozenset({Outcome.OVERLOADED, Outcome.OVERSIZE})
NOT_THE_MODELS = frozenset({FallbackReason.KILL_SWITCH, FallbackReason.STALE_STATE})


class Metric(StrEnum):
    """Every counter that there is, and what its label says."""

    DECISION = "decision"  # the decision
    ANSWERED = "answered"  # by whom
    FALLBACK = "fallback"  # the reason
    ENFORCED = "enforced"  # all: the model should have answered, of situations that count
    UNEXPOSED = "unexposed"  # the decision
    OBSERVATION = "observation"  # the outcome, or not_observed, repeated, capped, unclaimed
    PAIR = "pair"  # legacy>model, raw answers
    MODEL = "model"  # the model's decision
    LATENCY = "latency"  # the bucket's number
    DRAWN = "drawn"  # the draw
    REVIEWED = "reviewed"  # the draw
    OVERRIDDEN = "overridden"  # the draw
    REVIEWED_ALLOW = "reviewed_allow"  # all: drawn and judged
    WRONG_ALLOW = "wrong_allow"  # all: confirmed, from wherever
    PAIRED = "paired"  # who was right of the active version and its candidate (domain/experiment.py)
    ACTORS = "actors"  # all: different ones behind the observations that count, the first hundred
    SELF = "self"  # same or other: what the model said when it was asked again
    DOUBLE = "double"  # first>second: the verdicts of two people who judged the same blind
    ARM = "arm"  # 0.05:in:watch or 0.05:out:watch: different actors at an exposure (domain/ratio.py)
    SERVED_S = "served_s"  # all: seconds neither held, killed, stale nor without a model
    UP_S = "up_s"  # plane or model: seconds in which it was there; of the plane as a whole


@lru_cache(1024)  # there are few answers, and thousands of decisions a second
def decision_counts(answer: Answer, *, phase: Phase, exposed: bool, claim: Claim) -> tuple[Count, ...]:
    """What one committed decision adds; `phase` is the one that applied.

    Whether the model failed to answer is evidence like what it answers: by asking one question again and
    again nobody makes fallbacks frequent, or rare. What the plane took from the model needs no claim.
    """
    if not exposed:
        return tuple(_plain([(Metric.UNEXPOSED, answer.decision, 1)]))
    counts: list[tuple[Metric, str, int]] = [
        (Metric.DECISION, answer.decision, 1),
        (Metric.ANSWERED, answer.answered_by, 1),
    ]
    reason = answer.fallback_reason
    if phase is Phase.ENFORCED and (claim is Claim.ADMITTED or reason in NOT_THE_MODELS):
        counts.append((Metric.ENFORCED, ALL, 1))
        if reason is not None:
            counts.append((Metric.FALLBACK, reason, 1))
    return tuple(_plain(counts))


def is_counted(advisory: Advisory, *, exposed: bool, claim: Claim) -> bool:
    """Whether an advisory is evidence: admitted by its claim, and computed.

    From memory it is none: the same question was an observation when the model computed it.
    """
    return exposed and claim is Claim.ADMITTED and not advisory.cached and _was_observed(advisory)


def advisory_counts(
    advisory: Advisory | None, legacy: LegacyAnswer | None, *, exposed: bool, claim: Claim
) -> tuple[Count, ...]:
    """What one advisory adds, or its absence (None: unsampled or shed). One from memory adds nothing."""
    if not exposed or (advisory is not None and advisory.cached):
        return ()
    if advisory is None or not _was_observed(advisory):
        return ((Metric.OBSERVATION.value, NOT_OBSERVED, 1),)
    if claim is not Claim.ADMITTED:
        return ((Metric.OBSERVATION.value, claim.value, 1),)
    counts: list[tuple[Metric, str, int]] = [(Metric.OBSERVATION, advisory.outcome, 1)]
    counts.append((Metric.LATENCY, str(_latency_bucket(advisory)), 1))
    model = advisory.answer
    if model is not None:
        counts.append((Metric.MODEL, model, 1))
        if legacy is not None and not legacy.failed:
            counts.append((Metric.PAIR, f"{legacy.decision}>{model}", 1))
    return tuple(_plain(counts))


def self_counts(first: Advisory, again: Advisory) -> tuple[Count, ...]:
    """What asking a version the same twice adds: nothing where it gave no decision one of the times."""
    if first.decision is None or again.decision is None:
        return ()
    return ((Metric.SELF.value, "same" if again.decision is first.decision else "other", 1),)


def draw_counts(draw: Draw) -> tuple[Count, ...]:
    """What a decision adds when it is drawn for review."""
    return ((Metric.DRAWN.value, draw.label, 1),)


def verdict_counts(model: Decision | None, verdict: Decision, draw: Draw | None) -> tuple[Count, ...]:
    """What a verdict in force adds to the epoch of its decision; `draw` is None where it was not drawn.

    `model` is the model's raw decision. A reviewer's pick or a report is no random sample: it adds only
    what it confirms, a wrong allow.
    """
    if model is None:
        return ()
    counts: list[tuple[Metric, str, int]] = []
    if draw is not None:
        counts.append((Metric.REVIEWED, draw.label, 1))
        if model is not verdict:
            counts.append((Metric.OVERRIDDEN, draw.label, 1))
        if model is Decision.ALLOW:
            counts.append((Metric.REVIEWED_ALLOW, ALL, 1))
    if is_wrong_allow(model, verdict):
        counts.append((Metric.WRONG_ALLOW, ALL, 1))
    return tuple(_plain(counts))


def double_counts(first: Decision | None, second: Decision | None) -> tuple[Count, ...]:
    """What the verdicts of two people on one decision add, once both stand."""
    if first is None or second is None:
        return ()
    return ((Metric.DOUBLE.value, f"{first}>{second}", 1),)


def served_counts(seconds: int) -> tuple[Count, ...]:
    """What a stretch of time adds in which the rollout was neither held, killed, stale nor model-down."""
    return ((Metric.SERVED_S.value, ALL, seconds),)


def latency_bucket(latency_ms: float) -> int:
    """The k whose bucket, from edge k-1 to edge k = 5000 ms * 2^(k/8), holds a latency."""
    if latency_ms <= 0:
        return _FIRST_BUCKET
    k = math.ceil(_EDGES_PER_OCTAVE * math.log2(latency_ms / _EDGE_MS))
    return min(max(k, _FIRST_BUCKET), LAST_BUCKET)


def bucket_edge_ms(bucket: int) -> float:
    """The upper edge of a bucket."""
    return _EDGE_MS * math.exp2(bucket / _EDGES_PER_OCTAVE)


@lru_cache(1024)
def bucket_middle_ms(bucket: int) -> float:
    """The geometric middle of a bucket: at most 4.4 % from what lies in it."""
    return _EDGE_MS * math.exp2((bucket - 0.5) / _EDGES_PER_OCTAVE)


def _was_observed(advisory: Advisory) -> bool:
    return advisory.started and advisory.outcome not in _SHED


def _latency_bucket(advisory: Advisory) -> int:
    return LAST_BUCKET if advisory.outcome is Outcome.TIMEOUT else latency_bucket(advisory.latency_ms)


def _plain(counts: Iterable[tuple[Metric, str, int]]) -> Iterable[Count]:
    # Members of a StrEnum become plain texts: drivers and JSON see nothing else.
    return ((metric.value, str(label), n) for metric, label, n in counts)
