"""Has a rollout become so bad that it must go back?

Every guardrail holds a stream of yes-or-no observations against a limit by the e-SR test; only a confirmed
wrong allow needs no statistics. `advance` takes in what is new and judges it. The alpha of a rollout is
shared evenly by the streams that act by themselves, whichever of them have data.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from app.domain.clock import to_us
from app.domain.condition import LATE_SHARE
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.limits import Action, Guardrail, GuardrailLimits
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import smallest_inclusion
from app.domain.shift import BASELINE_AT_LEAST, shift_tallies, total_variation
from app.domain.stream import ONE, Label, StreamState, Tally, fold_labels, fold_totals, seen_of

_COMING = (Guardrail.PAIRED_SHIFT, Guardrail.AGREEMENT_DRIFT, Guardrail.SELF_DISAGREEMENT)
_ACTING_STREAMS = 5  # override, error, latency, fallback, shift


class GuardrailOutcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BREACH = "breach"
    INSUFFICIENT = "insufficient"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rollout's guardrails are judged by.

    `labels` are the drawn reviews of exposed decisions of this epoch behind the override stream's
    watermark, in decision order. `baseline` counts the model's answers in its last shadow epoch.
    """

    policy: RolloutPolicy
    phase: Phase
    evidence: Evidence
    now: datetime
    labels: Sequence[Label] = ()
    baseline: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """One guardrail, judged. `raised` says that its alarm came at this very look."""

    name: Guardrail
    outcome: GuardrailOutcome
    action: Action
    sentence: str
    e_value: float | None = None
    threshold: float | None = None
    rate: float | None = None
    limit: float | None = None
    n: int = 0
    pending: int = 0
    raised: bool = False


def advance(guardrail: Guardrail, state: StreamState | None, facts: Facts) -> tuple[StreamState, Assessment]:
    """Take in what is new since `state` and judge it; `state` is None before the first look.

    Pure. The stream starts anew by itself where the epoch or the limits are other ones. An alarm stays
    for the epoch. Counters that cannot be true leave the stream as it was and the outcome is an error.
    """
    state = _current(guardrail, state, facts)
    try:
        state, judged = _look(guardrail, state, facts)
    except ValueError as error:
        judged = _bare(guardrail, facts, GuardrailOutcome.ERROR, f"{guardrail} cannot be read: {error}")
    if judged.raised or state.alarm is None:
        return state, judged
    said = f"{judged.sentence}; the alarm of this epoch stands"
    return state, replace(judged, outcome=GuardrailOutcome.BREACH, sentence=said)


def limits_hash(
    limits: GuardrailLimits, guardrail: Guardrail, baseline: Mapping[str, int] | None = None
) -> str:
    """What a stream's meaning hangs on: with another hash it starts anew."""
    own: dict[Guardrail, list[Any]] = {
        Guardrail.OVERRIDE: [limits.override_limit],
        Guardrail.ERROR: [limits.error_limit],
        Guardrail.LATENCY: [limits.latency_target_ms],
        Guardrail.LATENCY_ALERT: [limits.latency_alert_ms],
        Guardrail.FALLBACK: [limits.fallback_limit],
        Guardrail.SHIFT: [limits.shift_limit, sorted((baseline or {}).items())],
        Guardrail.WRONG_ALLOW: [],
    }
    own |= {guardrail: [] for guardrail in _COMING}
    document = json.dumps([guardrail, *own[guardrail], limits.alpha, limits.horizon_days])
    return sha256(document.encode()).hexdigest()[:16]


def threshold_of(guardrail: Guardrail, limits: GuardrailLimits) -> float:
    """The evidence that raises the alarm: 1 / alpha of this stream's share."""
    share = 1 if guardrail is Guardrail.LATENCY_ALERT else _ACTING_STREAMS
    return share / limits.alpha


def to_wire(assessment: Assessment) -> dict[str, Any]:
    """One member of the `guardrails` shape."""
    told = asdict(assessment)
    del told["raised"]
    return told


def _current(guardrail: Guardrail, state: StreamState | None, facts: Facts) -> StreamState:
    evidence = facts.evidence
    baseline = facts.baseline if guardrail is Guardrail.SHIFT else None
    digest = limits_hash(facts.policy.guardrails, guardrail, baseline)
    if state is None or state.epoch != evidence.epoch:
        return StreamState(evidence.epoch, digest, to_us(evidence.epoch_started_at))
    if state.limits_hash == digest:
        return state
    # A limit is chosen in sight of what has been: only what comes after it may speak.
    watermark = facts.labels[-1].decision_id if facts.labels else state.watermark
    seen = seen_of(_tallies(guardrail, facts))
    return StreamState(evidence.epoch, digest, to_us(facts.now), seen=seen, watermark=watermark)


def _look(guardrail: Guardrail, state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    if guardrail is Guardrail.OVERRIDE:
        return _look_at_labels(state, facts)
    if facts.evidence.problem is not None:
        raise ValueError(facts.evidence.problem)
    if guardrail is Guardrail.WRONG_ALLOW:
        return _look_at_wrong_allows(state, facts)
    if guardrail in _COMING:
        return state, _bare(guardrail, facts, GuardrailOutcome.INSUFFICIENT, "not watched yet")
    missing = _missing(guardrail, facts)
    if missing is not None:
        return state, _bare(guardrail, facts, GuardrailOutcome.INSUFFICIENT, missing)
    return _look_at_totals(guardrail, state, facts)


def _look_at_totals(guardrail: Guardrail, state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    limits, evidence = facts.policy.guardrails, facts.evidence
    tallies = _tallies(guardrail, facts)
    state = fold_totals(state, tallies, now_us=to_us(facts.now), horizon_days=limits.horizon_days)
    if guardrail is Guardrail.SHIFT:
        rate, limit = total_variation(evidence.distribution, facts.baseline or {}), limits.shift_limit
        n = evidence.n(Metric.MODEL)
    else:
        tally = tallies[ONE]
        n, limit = tally.n, tally.limit
        rate = tally.bad / n if n else None
    e_value = state.e_value
    return _judge(guardrail, state, facts, e_value=e_value, peak=e_value, rate=rate, limit=limit, n=n)


def _look_at_labels(state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    limits = facts.policy.guardrails
    replay = fold_labels(
        state,
        facts.labels,
        limit=limits.override_limit,
        smallest_inclusion=smallest_inclusion(facts.policy.review_rate),
        now_us=to_us(facts.now),
        horizon_days=limits.horizon_days,
    )
    return _judge(
        Guardrail.OVERRIDE,
        replay.state,
        facts,
        e_value=replay.e_value,
        peak=replay.peak,
        rate=facts.evidence.override_rate,
        limit=limits.override_limit,
        n=replay.judged,
        pending=replay.pending,
    )


def _look_at_wrong_allows(state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    wrong, judged = facts.evidence.wrong_allows, facts.evidence.reviewed_allows
    said = f"{wrong} wrong allows confirmed, {judged} of the model's allows judged"
    outcome = GuardrailOutcome.OK if judged else GuardrailOutcome.INSUFFICIENT
    if wrong:
        outcome = GuardrailOutcome.BREACH if facts.policy.risk.is_high else GuardrailOutcome.WARNING
    raised = outcome is GuardrailOutcome.BREACH and state.alarm is None
    if raised:
        state = replace(state, alarm=float(wrong))
    bare = _bare(Guardrail.WRONG_ALLOW, facts, outcome, said)
    return state, replace(bare, limit=0.0, n=judged, raised=raised)


def _judge(
    guardrail: Guardrail,
    state: StreamState,
    facts: Facts,
    *,
    e_value: float,
    peak: float,
    rate: float | None,
    limit: float,
    n: int,
    pending: int = 0,
) -> tuple[StreamState, Assessment]:
    """What a look at a stream came to; `peak` is the most evidence on the way."""
    threshold = threshold_of(guardrail, facts.policy.guardrails)
    breached = peak >= threshold
    raised = breached and state.alarm is None
    if raised:
        state = replace(state, alarm=peak)
    outcome = GuardrailOutcome.OK
    if breached:
        outcome = GuardrailOutcome.BREACH
    elif not n:
        outcome = GuardrailOutcome.INSUFFICIENT
    elif e_value >= math.sqrt(threshold):
        outcome = GuardrailOutcome.WARNING
    said = f"{_WHAT[guardrail]} {'unknown' if rate is None else f'{rate:.4g}'} of {n}, limit {limit:.4g}"
    if pending:
        said += f", {pending} not judged yet"
    evidence = f"{_readable(peak)} reached" if breached else f"{_readable(e_value)} of"
    said += f": evidence {evidence} {threshold:.4g}"
    action = facts.policy.action(guardrail)
    return state, Assessment(
        guardrail, outcome, action, said, e_value, threshold, rate, limit, n, pending, raised
    )


def _bare(guardrail: Guardrail, facts: Facts, outcome: GuardrailOutcome, said: str) -> Assessment:
    return Assessment(guardrail, outcome, facts.policy.action(guardrail), said)


def _missing(guardrail: Guardrail, facts: Facts) -> str | None:
    """Why there is nothing to judge, or None where there is."""
    if guardrail is Guardrail.FALLBACK and facts.phase is not Phase.ENFORCED:
        return f"fallbacks count in enforced only: in {facts.phase} the legacy engine answers anyway"
    if guardrail is Guardrail.SHIFT:
        n = sum((facts.baseline or {}).values())
        if n < BASELINE_AT_LEAST:
            return f"a shift needs a baseline of {BASELINE_AT_LEAST} shadow decisions, there are {n}"
    return None


def _tallies(guardrail: Guardrail, facts: Facts) -> dict[str, Tally]:
    """The totals that this guardrail's streams count, by the name of the stream."""
    limits, evidence = facts.policy.guardrails, facts.evidence
    match guardrail:
        case Guardrail.ERROR:
            return {ONE: Tally(evidence.observed, evidence.errors, limits.error_limit)}
        case Guardrail.LATENCY | Guardrail.LATENCY_ALERT:
            is_alert = guardrail is Guardrail.LATENCY_ALERT
            limit_ms = limits.latency_alert_ms if is_alert else limits.latency_target_ms
            return {ONE: Tally(evidence.n(Metric.LATENCY), evidence.above_ms(limit_ms), LATE_SHARE)}
        case Guardrail.FALLBACK:
            return {ONE: Tally(evidence.should_have_answered, evidence.fell_back, limits.fallback_limit)}
        case Guardrail.SHIFT:
            return shift_tallies(evidence.distribution, facts.baseline or {}, limit=limits.shift_limit)
        case _:
            return {}


def _readable(evidence: float) -> str:
    return f"{evidence:,.0f}" if 1_000 <= evidence < 1e9 else f"{evidence:.3g}"


_WHAT = {
    Guardrail.OVERRIDE: "override rate",
    Guardrail.ERROR: "error rate",
    Guardrail.LATENCY: "share above the latency target",
    Guardrail.LATENCY_ALERT: "share above the latency alert",
    Guardrail.FALLBACK: "fallback rate",
    Guardrail.SHIFT: "shift of the distribution",
}
