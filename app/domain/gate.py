"""Does the evidence carry a promotion to the next phase?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from app.domain import proofs
from app.domain.approval import Approval, approvals
from app.domain.circumstance import (
    PASSING,
    OtherRollout,
    Surroundings,
    hindrances,
    investigation,
    required,
)
from app.domain.condition import Condition, GateOutcome, unmet, worst
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.limits import GateLimits
from app.domain.phase import Phase
from app.domain.proofs import WRONG_ALLOW_LIMIT, Validated
from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.sequential import Group, log_m, upper_bound

# What a promotion may have to wait for.
AWAITED = (
    *(Metric.OBSERVATION, Metric.PAIR, Metric.REVIEWED, Metric.REVIEWED_ALLOW, Metric.DOUBLE),
    Metric.ACTORS,
)


@dataclass(frozen=True, slots=True)
class GateContext:
    """What a gate needs beside the evidence.

    `observed_days_since_closed` counts the version's observed days since its investigation closed.
    `others` holds the rollouts that the policy requires. `pace` is how many of each metric come a day, where
    that is known: it turns counts into times. `latest_at` is the epoch's latest observation. `validation` is
    the judged version's, or why it cannot be known. `by` would promote.
    """

    around: Surroundings = field(default_factory=Surroundings)
    observed_days_since_closed: float = 0.0
    others: Mapping[str, OtherRollout] = field(default_factory=dict)
    pace: Mapping[str, float] = field(default_factory=dict)
    latest_at: datetime | None = None
    approvals: Sequence[Approval] = ()
    by: Principal | None = None
    validation: Validated | str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The judged conditions of one promotion or activation, and the sentence that sums them up."""

    rollout: str
    to: str  # a phase, or `version`
    outcome: GateOutcome
    sentence: str
    conditions: tuple[Condition, ...]

    @property
    def is_carried(self) -> bool:
        """The evidence is enough, whatever else stands in the way for now."""
        return _is_carried(self.conditions)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the gate's test says of bare counts."""

    outcome: GateOutcome
    log_m: float
    upper: float


def assess_gate(
    policy: RolloutPolicy,
    state: RolloutState,
    evidence: Evidence,
    context: GateContext,
    *,
    to: Phase,
    now: datetime,
) -> Gate:
    """Judge every condition of a promotion to `to`, whether or not `to` is the next phase up."""
    conditions: tuple[Condition, ...] = (
        *_evidence_conditions(policy, evidence, context, to=to, now=now),
        *_state_conditions(policy, state, context, to=to, now=now),
    )
    limits = policy.gates.get(to)
    if limits is not None and limits.approvals:
        asked = approvals(
            context.approvals,
            context.by,
            rollout=state.name,
            to=to,
            at_least=limits.approvals,
            carried=_is_carried(conditions),
        )
        conditions = (*conditions, asked)
    outcome = worst(judged.outcome for judged in conditions)
    return Gate(state.name, to, outcome, summary(to, outcome, conditions), conditions)


def try_gate(n: int, bad: int, *, limit: float, alpha: float) -> Trial:
    """The gate's test on counts that a person wants to try. Raises ValueError for impossible ones."""
    outcome, _ = proofs.proof([Group(n, bad)], limit, alpha)
    return Trial(outcome, log_m(n, bad, limit), upper_bound(n, bad, alpha))


def to_wire(gate: Gate) -> dict[str, Any]:
    """The `gate` shape; `eta` is in seconds."""
    told = asdict(gate)
    for judged in told["conditions"]:
        judged["eta"] = judged.pop("eta_s")
    return told


def _evidence_conditions(
    policy: RolloutPolicy, evidence: Evidence, context: GateContext, *, to: Phase, now: datetime
) -> Iterator[Condition]:
    limits = policy.gates.get(to)
    if limits is None or _asks_for_nothing(limits):
        # No data is not good news (law 5): a gate without conditions is shut, not open.
        yield Condition("gate", GateOutcome.ERROR, f"the policy names no evidence for entering {to}")
    elif evidence.problem is not None:
        yield Condition("evidence", GateOutcome.ERROR, f"the evidence cannot be read: {evidence.problem}")
    else:
        yield from _rate_conditions(limits, policy.gate_alpha, evidence, context)
        yield from _people_conditions(limits, policy, evidence, context, to)
        if policy.actors_at_least:
            per_day = context.pace.get(Metric.ACTORS)
            yield proofs.actors(evidence, at_least=policy.actors_at_least, per_day=per_day)
        stale_after_days = policy.guardrails.stale_after_days
        yield proofs.freshness(context.latest_at, stale_after_days=stale_after_days, now=now)
        if limits.validation_above is not None:
            limit = limits.validation_above
            yield proofs.validation(context.validation, version=evidence.version, limit=limit)
        if limits.soak_days > 0:
            yield proofs.soak(evidence, days=limits.soak_days)


def _is_carried(conditions: Iterable[Condition]) -> bool:
    asked = (judged for judged in conditions if judged.name not in PASSING | {"approvals"})
    return all(judged.outcome is GateOutcome.PASS for judged in asked)


def _rate_conditions(
    limits: GateLimits, alpha: float, evidence: Evidence, context: GateContext
) -> Iterator[Condition]:
    if limits.agreement_above is not None:
        compared = context.pace.get(Metric.PAIR)
        yield proofs.agreement(evidence, limit=limits.agreement_above, alpha=alpha, per_day=compared)
    per_day = context.pace.get(Metric.OBSERVATION)
    if limits.error_below is not None:
        yield proofs.error(evidence, limit=limits.error_below, alpha=alpha, per_day=per_day)
    if limits.p95_below_ms is not None:
        yield proofs.latency(evidence, limit_ms=limits.p95_below_ms, alpha=alpha, per_day=per_day)


def _people_conditions(
    limits: GateLimits, policy: RolloutPolicy, evidence: Evidence, context: GateContext, to: Phase
) -> Iterator[Condition]:
    alpha, per_day = policy.gate_alpha, context.pace.get(Metric.REVIEWED)
    if limits.override_below is not None:
        yield proofs.override(evidence, limit=limits.override_below, alpha=alpha, per_day=per_day)
    if limits.reviewed_at_least:
        yield proofs.reviewed(evidence, at_least=limits.reviewed_at_least, per_day=per_day)
    asked = limits.override_below is not None or limits.reviewed_at_least > 0
    if asked and evidence.n(Metric.DRAWN):
        yield proofs.reviews_judged(evidence, per_day=per_day)
    wrong_allow = limits.wrong_allow_below
    if wrong_allow is None and policy.risk.is_high and to is Phase.ENFORCED:
        wrong_allow = WRONG_ALLOW_LIMIT
    if wrong_allow is not None:
        allows = context.pace.get(Metric.REVIEWED_ALLOW)
        yield proofs.wrong_allows(evidence, limit=wrong_allow, alpha=alpha, per_day=allows)
    elif policy.risk.is_high:
        yield proofs.no_wrong_allow(evidence)
    if limits.reviewers_agree_above is not None:
        twice = context.pace.get(Metric.DOUBLE)
        yield proofs.reviewers(evidence, limit=limits.reviewers_agree_above, alpha=alpha, per_day=twice)


def _state_conditions(
    policy: RolloutPolicy, state: RolloutState, context: GateContext, *, to: Phase, now: datetime
) -> Iterator[Condition]:
    if state.investigation is not None:
        yield investigation(
            state.investigation,
            observed_days=context.observed_days_since_closed,
            days=policy.rollback_observe_days,
        )
    if to is Phase.ENFORCED:
        for requirement in policy.requires:
            other = context.others.get(requirement.rollout)
            yield required(requirement, other, alpha=policy.gate_alpha)
    yield from hindrances(state, context.around, since=state.epoch_started_at, now=now)


def _asks_for_nothing(limits: GateLimits) -> bool:
    return replace(limits, approvals=0, wrong_allow_below=None) == GateLimits()


def summary(to: str, outcome: GateOutcome, conditions: tuple[Condition, ...]) -> str:
    """The one sentence of a gate: ready, or what does not hold yet, the gravest first."""
    reasons = "; ".join(judged.sentence for judged in unmet(conditions))
    return {
        GateOutcome.PASS: f"ready for {to}: all {len(conditions)} conditions hold",
        GateOutcome.INSUFFICIENT: f"not yet ready for {to}: {reasons}",
        GateOutcome.FAIL: f"not fit for {to}: {reasons}",
        GateOutcome.ERROR: f"readiness for {to} cannot be judged: {reasons}",
    }[outcome]
