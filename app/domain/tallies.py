"""What does each guardrail count, against which limit, and what hinders it?"""

from collections.abc import Mapping
from typing import assert_never

from app.domain.assessment import Facts
from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.limits import Guardrail
from app.domain.pairing import paired_tallies, paired_variation
from app.domain.phase import Phase
from app.domain.proofs import LATE_SHARE
from app.domain.shift import BASELINE_AT_LEAST, shift_tallies, total_variation
from app.domain.stream import ONE, Counted, Tally

Figures = tuple[float | None, float, int]  # the rate, its limit, of how many


def tallies_of(guardrail: Guardrail, facts: Facts) -> dict[str, Counted]:
    """The totals that this guardrail's streams count, by the name of the stream; of drift, the limit is a margin."""
    limits, evidence = facts.policy.guardrails, facts.evidence
    match guardrail:
        case Guardrail.ERROR:
            tally = Tally(evidence.observed, evidence.errors, limits.error_limit)
        case Guardrail.LATENCY:
            tally = _late(facts, limits.latency_target_ms)
        case Guardrail.LATENCY_ALERT:
            tally = _late(facts, limits.latency_alert_ms)
        case Guardrail.FALLBACK:
            tally = Tally(evidence.should_have_answered, evidence.fell_back, limits.fallback_limit)
        case Guardrail.SELF_DISAGREEMENT:
            tally = Tally(*evidence.asked_twice, limits.self_disagreement_limit)
        case Guardrail.AGREEMENT_DRIFT:
            n = evidence.compared
            tally = Tally(n, n - evidence.agreed, limits.drift_limit / 2)
        case Guardrail.SHIFT:
            return shift_tallies(evidence.distribution, _answers(facts), limit=limits.shift_limit)
        case Guardrail.PAIRED_SHIFT:
            return paired_tallies(evidence.of(Metric.PAIR), _pairs(facts), limit=limits.shift_limit)
        case Guardrail.OVERRIDE | Guardrail.WRONG_ALLOW:  # labels, and a count without a limit
            return {}
        case _:
            assert_never(guardrail)
    return {ONE: tally}


def figures_of(guardrail: Guardrail, facts: Facts, tallies: Mapping[str, Counted]) -> Figures:
    """What is shown of a guardrail that counts totals, such as these."""
    limit = facts.policy.guardrails.shift_limit
    match guardrail:
        case Guardrail.SHIFT:
            answers = facts.evidence.distribution
            return total_variation(answers, _answers(facts)), limit, sum(answers.values())
        case Guardrail.PAIRED_SHIFT:
            pairs = facts.evidence.of(Metric.PAIR)
            return paired_variation(pairs, _pairs(facts)), limit, sum(pairs.values())
        case _:
            n, bad = tallies[ONE].counts
            return bad / n if n else None, tallies[ONE].limit, n


def missing(guardrail: Guardrail, facts: Facts) -> str | None:
    """Why there is nothing to judge, or None where there is."""
    match guardrail:
        case Guardrail.FALLBACK if facts.phase is not Phase.ENFORCED:
            return f"fallbacks count in enforced only: in {facts.phase} the legacy engine answers anyway"
        case Guardrail.SHIFT if (n := sum(_answers(facts).values())) < BASELINE_AT_LEAST:
            return f"a shift needs a baseline of {BASELINE_AT_LEAST} shadow decisions, there are {n}"
        case Guardrail.PAIRED_SHIFT if (n := sum(_pairs(facts).values())) < BASELINE_AT_LEAST:
            return f"a paired shift needs a baseline of {BASELINE_AT_LEAST} shadow pairs, there are {n}"
        case _:
            return None


def _late(facts: Facts, limit_ms: float) -> Tally:
    return Tally(facts.evidence.n(Metric.LATENCY), facts.evidence.above_ms(limit_ms), LATE_SHARE)


def _answers(facts: Facts) -> Mapping[str, int]:
    baseline = facts.baseline or {}
    return {decision.value: baseline.get(decision, 0) for decision in Decision}


def _pairs(facts: Facts) -> Mapping[str, int]:
    return {label: n for label, n in (facts.baseline or {}).items() if ">" in label}
