"""Is a candidate no worse than the active version of its rollout?

Judged by pairs (`app.domain.paired`): who agreed with the legacy engine, and whom people's verdicts bear
out. Where actors are split between the versions there are no pairs: there the bounds of both rates, at half
of alpha each, are held against each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain import proofs
from app.domain.advisory import Advisory
from app.domain.circumstance import hindrances
from app.domain.condition import Condition, GateOutcome, percent, rate, told, unproven, worst
from app.domain.counters import Count, Metric
from app.domain.decision import Decision, LegacyAnswer
from app.domain.evidence import Evidence
from app.domain.gate import Gate, GateContext, summary
from app.domain.paired import Pairs, difference, needed, proof, upper_difference
from app.domain.phase import Phase
from app.domain.rollout import Comparison, RolloutPolicy, RolloutState
from app.domain.sampling import Draw, Stratum, smallest_inclusion
from app.domain.sequential import Group, lower, upper

WORSE_BELOW = 0.05  # the most by which an active version may be the better one

_DAY_S = 86_400.0


class Right(StrEnum):
    """Which of the two versions was right on a situation."""

    BOTH = "both"
    ACTIVE = "active"
    CANDIDATE = "candidate"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Versions:
    """The evidence of the active version and of its candidate, in the rollout's present epoch."""

    active: Evidence
    candidate: Evidence

    @property
    def independent(self) -> bool:
        return self.active.independent and self.candidate.independent


def agreement_counts(
    active: Advisory | None, candidate: Advisory, legacy: LegacyAnswer, *, exposed: bool
) -> tuple[Count, ...]:
    """What a situation adds on which both versions answered: who of them agreed with the legacy engine."""
    first, second = active.answer if active else None, candidate.answer
    if first is None or second is None or legacy.failed or not exposed:
        return ()
    return ((Metric.PAIRED.value, f"agree:{_right(first, second, legacy.decision)}", 1),)


def verdict_counts(active: Decision, candidate: Decision, verdict: Decision, draw: Draw) -> tuple[Count, ...]:
    """What a blind verdict on a drawn situation adds on which both versions answered."""
    return ((Metric.PAIRED.value, f"verdict:{_right(active, candidate, verdict)}:{draw.label}", 1),)


def paired(evidence: Evidence, kind: str, *, smallest: float = 1.0) -> list[Pairs]:
    """The pairs in a candidate's evidence: `agree`, or `verdict` by the probability that they were drawn with."""
    counts: dict[float, dict[str, int]] = {}
    for label, n in evidence.of(Metric.PAIRED).items():
        what, right, *draw = label.split(":")
        if what == kind:
            weight = _weight(draw, smallest)
            of_weight = counts.setdefault(weight, {})
            of_weight[right] = of_weight.get(right, 0) + n
    return [
        Pairs(
            found.get(Right.ACTIVE, 0),
            found.get(Right.CANDIDATE, 0),
            found.get(Right.BOTH, 0) + found.get(Right.NEITHER, 0),
            weight,
        )
        for weight, found in counts.items()
    ]


def tally(evidence: Evidence) -> dict[str, dict[str, int]]:
    """The pairs as a person reads them: `agreement` and `verdicts`, by who was right."""
    sums = {kind: dict.fromkeys(map(str, Right), 0) for kind in ("agree", "verdict")}
    for label, n in evidence.of(Metric.PAIRED).items():
        kind, right = label.split(":")[:2]
        sums[kind][right] += n
    return {"agreement": sums["agree"], "verdicts": sums["verdict"]}


def assess_candidate(
    policy: RolloutPolicy,
    state: RolloutState,
    versions: Versions,
    context: GateContext,
    *,
    investigated: bool,
    now: datetime,
) -> Gate:
    """Judge whether the candidate may take the active version's place in the phase that the rollout has."""
    conditions = (
        *_compared(policy, state, versions, now=now),
        *_alone(policy, state, versions.candidate, context),
        *_state(state, context, investigated=investigated, now=now),
    )
    # Agreement that is not independent proves nothing: then people's verdicts decide, and they are enough.
    counted = tuple(c for c in conditions if versions.independent or c.name != "agreement")
    outcome = worst(judged.outcome for judged in counted)
    said = summary(f"version {state.candidate}", outcome, counted)
    return Gate(state.name, "version", outcome, said, conditions)


def _compared(
    policy: RolloutPolicy, state: RolloutState, versions: Versions, *, now: datetime
) -> Iterator[Condition]:
    for evidence in (versions.active, versions.candidate):
        if evidence.problem is not None:
            said = f"the evidence of {evidence.version} cannot be read: {evidence.problem}"
            yield Condition("evidence", GateOutcome.ERROR, said)
            return
    since = max(state.candidate_since or now, state.epoch_started_at)
    days = max((now - since).total_seconds(), 1.0) / _DAY_S
    candidate, alpha = versions.candidate, policy.gate_alpha
    if state.candidate_mode is Comparison.SPLIT:
        agreement = _split("agreement", _disagreements(versions.active), _disagreements(candidate), alpha)
        yield agreement if versions.independent else _not_independent(agreement)
        yield _split("override", versions.active.override_groups, candidate.override_groups, alpha)
        return
    agreement = _paired("agreement", paired(candidate, "agree"), alpha, days)
    yield agreement if versions.independent else _not_independent(agreement)
    verdicts = paired(candidate, "verdict", smallest=smallest_inclusion(policy.review_rate))
    yield _paired("override", verdicts, alpha, days)


def _alone(
    policy: RolloutPolicy, state: RolloutState, candidate: Evidence, context: GateContext
) -> Iterator[Condition]:
    """What the candidate must show of itself: the limits for entering the phase that it would act in."""
    if candidate.problem is not None:
        return
    limits, alpha = policy.gates.get(state.phase), policy.gate_alpha
    if candidate.n(Metric.DRAWN):
        yield proofs.reviews_judged(candidate, per_day=None)
    if policy.risk.is_high:
        if state.phase is Phase.ENFORCED:
            limit = (limits and limits.wrong_allow_below) or proofs.WRONG_ALLOW_LIMIT
            yield proofs.wrong_allows(candidate, limit=limit, alpha=alpha, per_day=None)
        else:
            yield proofs.no_wrong_allow(candidate)
    if limits is None:
        return
    if limits.error_below is not None:
        yield proofs.error(candidate, limit=limits.error_below, alpha=alpha, per_day=None)
    if limits.p95_below_ms is not None:
        yield proofs.latency(candidate, limit_ms=limits.p95_below_ms, alpha=alpha, per_day=None)
    if limits.validation_above is not None:
        limit = limits.validation_above
        yield proofs.validation(context.validation, version=candidate.version, limit=limit)
    if limits.soak_days > 0:
        yield proofs.soak(candidate, days=limits.soak_days)


def _state(
    state: RolloutState, context: GateContext, *, investigated: bool, now: datetime
) -> Iterator[Condition]:
    if investigated:
        said = f"{state.candidate} is under an open investigation"
        yield Condition("investigation", GateOutcome.FAIL, said)
    yield from hindrances(state, context.around, since=state.epoch_started_at, now=now)


def _paired(name: str, pairs: Sequence[Pairs], alpha: float, days: float) -> Condition:
    n = round(sum(group.n for group in pairs))
    outcome = proof(pairs, WORSE_BELOW, alpha)
    more = needed(pairs, WORSE_BELOW, alpha) if outcome is GateOutcome.INSUFFICIENT else None
    bound = upper_difference(pairs, alpha) if n else None
    alone = [round(sum(getattr(group, side) for group in pairs)) for side in ("active", "candidate")]
    said = (
        f"{name}: of {n} situations {alone[0]} only the active version had right, {alone[1]} only the "
        f"candidate; upper bound of the difference {rate(bound)}, needs below {percent(WORSE_BELOW)}"
    )
    value = difference(pairs) if n else None
    return told(
        Condition(name, outcome, said, value, bound, WORSE_BELOW, n, more), n / days or None, "situation"
    )


def _split(name: str, active: Sequence[Group], candidate: Sequence[Group], alpha: float) -> Condition:
    """Bad rates of two arms, each bound at half of alpha."""
    n = [round(sum(group.n for group in arm)) for arm in (active, candidate)]
    if not all(n):
        said = f"{name}: {n[0]} situations of the active version, {n[1]} of the candidate"
        return Condition(name, GateOutcome.INSUFFICIENT, said, limit=WORSE_BELOW, n=min(n))
    bound = upper(candidate, alpha / 2) - lower(active, alpha / 2)
    least = lower(candidate, alpha / 2) - upper(active, alpha / 2)
    outcome = GateOutcome.INSUFFICIENT
    if bound < WORSE_BELOW:
        outcome = GateOutcome.PASS
    elif least > WORSE_BELOW:
        outcome = GateOutcome.FAIL
    said = (
        f"{name}: {n[0]} situations of the active version, {n[1]} of the candidate; upper bound of the "
        f"difference {rate(bound)}, needs below {percent(WORSE_BELOW)}"
    )
    return Condition(name, outcome, said, None, bound, WORSE_BELOW, min(n))


def _not_independent(judged: Condition) -> Condition:
    return unproven(judged, "; but a model is shown the legacy answer: not independent, verdicts decide")


def _disagreements(evidence: Evidence) -> list[Group]:
    return [Group(evidence.compared, evidence.compared - evidence.agreed)]


def _right(active: Decision, candidate: Decision, truth: Decision) -> Right:
    if (active is truth) is (candidate is truth):
        return Right.BOTH if active is truth else Right.NEITHER
    return Right.ACTIVE if active is truth else Right.CANDIDATE


def _weight(draw: Sequence[str], smallest: float) -> float:
    if not draw:
        return 1.0
    stratum, step = draw
    return min(smallest / Draw(Stratum(stratum), int(step)).inclusion_probability, 1.0)
