"""May a rollout's exposure go one step further by itself, or must its ramp end?

`assess_ramp` judges and touches nothing; `carried_out` is what becomes of the rollout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.circumstance import Surroundings, hindrances
from app.domain.clock import rfc3339, to_us
from app.domain.condition import Condition, GateOutcome, enough, percent, span, waited
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.ratio import SampleRatio, sample_ratio
from app.domain.rollout import Ramp, RampState, RolloutPolicy, RolloutState, exposed

_DAY_S = 86_400.0
_QUIET = frozenset({"ok", "insufficient", "dry_run"})  # no data is no harm, and no reason to wait for ever


class Act(StrEnum):
    """What is to be done, and how it is told."""

    WAIT = "waits at {at}: {why}"
    UP = "from {at} to {to}: {why}"
    STOP = "stopped at {to}: {why}"
    DONE = "done at {at}: {why}"


@dataclass(frozen=True, slots=True)
class Watched:
    """What a guardrail last said in the present epoch."""

    name: str
    outcome: str
    sentence: str


@dataclass(frozen=True, slots=True)
class RampContext:
    """What a ramp is judged by beside the evidence."""

    guardrails: Sequence[Watched] = ()
    are_guardrails_stale: bool = False  # no complete pass for a minute
    around: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, slots=True)
class RampAssessment:
    """The exposure goes from `at` to `to`, which may be the same."""

    act: Act
    at: float
    to: float
    why: str
    conditions: tuple[Condition, ...]

    @property
    def sentence(self) -> str:
        return self.act.format(at=percent(self.at), to=percent(self.to), why=self.why)


def steps_up_to(policy: RolloutPolicy, to: float) -> tuple[float, ...]:
    """What a ramp to this share has for steps: none of the policy's is skipped."""
    return tuple(step for step in policy.exposure if step <= to)


def assess_ramp(
    policy: RolloutPolicy, state: RolloutState, evidence: Evidence, context: RampContext, *, now: datetime
) -> RampAssessment:
    """Judge the running ramp of a rollout; raises ValueError where there is none."""
    ramp = state.running_ramp
    if ramp is None:
        raise ValueError(f"{state.name} has no running ramp")
    conditions = tuple(_conditions(policy, state, ramp, evidence, context, now=now))
    act, to, why = _act(policy, state, ramp, conditions)
    return RampAssessment(act, state.exposure, to, why, conditions)


def carried_out(
    state: RolloutState, assessment: RampAssessment, evidence: Evidence, *, now: datetime
) -> RolloutState:
    """The rollout after what its ramp's assessment says; the same one where that is to wait."""
    ramp = state.ramp
    assert ramp is not None
    match assessment.act:
        case Act.WAIT:
            return state
        case Act.UP:
            served_s, observed = evidence.n(Metric.SERVED_S), evidence.observed
            after = replace(ramp, step_started_at=now, served_before_s=served_s, observed_before=observed)
        case Act.STOP:
            after = ramp.ended(RampState.STOPPED, assessment.why)
        case Act.DONE:
            after = ramp.ended(RampState.DONE, assessment.why)
    return exposed(state, exposure=assessment.to, ramp=after)


def to_wire(state: RolloutState, ramp: Ramp, assessment: RampAssessment | None) -> dict[str, Any]:
    """The `ramp` shape; one that has ended has no assessment and no conditions."""
    conditions = [asdict(judged) for judged in assessment.conditions] if assessment else []
    for judged in conditions:
        judged["eta"] = judged.pop("eta_s")
    return {
        "state": ramp.state,
        "why": ramp.why,
        "steps": ramp.steps,
        "step": state.exposure,
        "next": _next_up(state, ramp) if ramp.state is RampState.RUNNING else None,
        "started_by": ramp.started_by,
        "started_at": rfc3339(to_us(ramp.started_at)),
        "step_started_at": rfc3339(to_us(ramp.step_started_at)),
        "sentence": assessment.sentence if assessment else f"{ramp.state}: {ramp.why}",
        "conditions": conditions,
    }


def _act(
    policy: RolloutPolicy, state: RolloutState, ramp: Ramp, conditions: Sequence[Condition]
) -> tuple[Act, float, str]:
    """What to do, at which exposure the rollout then is, and why."""
    # First whether there still is what a person approved: nothing else may be done in its name (law 4).
    if steps_up_to(policy, ramp.steps[-1]) != ramp.steps or state.exposure not in ramp.steps:
        return Act.STOP, state.exposure, "the policy has other steps now"
    failed = {judged.name: judged.sentence for judged in conditions if judged.outcome is GateOutcome.FAIL}
    # Then the ruler before what it measures: over a skewed share of the actors guardrails say nothing.
    if "sample_ratio" in failed:
        return Act.STOP, ramp.steps[0], failed["sample_ratio"]
    # Then harm, before any hold, freeze or kill switch: those keep a ramp from going up, never from coming down.
    if "guardrails" in failed:
        lower = max((step for step in ramp.steps if step < state.exposure), default=state.exposure)
        return Act.STOP, lower, failed["guardrails"]
    waits = [judged.sentence for judged in conditions if judged.outcome is not GateOutcome.PASS]
    if waits:
        return Act.WAIT, state.exposure, "; ".join(waits)
    # What a step rests on, in numbers; that nothing stood against it goes without saying.
    counted = (judged for judged in conditions if judged.value is not None or judged.name == "guardrails")
    why, upper = "; ".join(judged.sentence for judged in counted), _next_up(state, ramp)
    return (Act.DONE, state.exposure, why) if upper is None else (Act.UP, upper, why)


def _next_up(state: RolloutState, ramp: Ramp) -> float | None:
    return min((step for step in ramp.steps if step > state.exposure), default=None)


def _conditions(
    policy: RolloutPolicy,
    state: RolloutState,
    ramp: Ramp,
    evidence: Evidence,
    context: RampContext,
    *,
    now: datetime,
) -> Iterator[Condition]:
    if evidence.problem is not None:
        yield Condition("evidence", GateOutcome.ERROR, f"the evidence cannot be read: {evidence.problem}")
    at = percent(state.exposure)
    # Only time at this step that was really served: neither held, killed, stale nor without a model.
    served = max(evidence.n(Metric.SERVED_S) - ramp.served_before_s, 0) / _DAY_S
    days = policy.ramp_step_hours / 24
    yield waited("served", f"served {span(served)} of {span(days)} at {at}", served, days)
    yield _observed(policy, ramp, evidence, at=at, now=now)
    yield _guardrails(context)
    yield _ratio(sample_ratio(evidence, state.exposure))
    yield from hindrances(state, context.around, since=ramp.step_started_at, now=now)


def _observed(policy: RolloutPolicy, ramp: Ramp, evidence: Evidence, *, at: str, now: datetime) -> Condition:
    """Exposed observations since the step began."""
    wanted = policy.ramp_observations
    n = max(evidence.observed - ramp.observed_before, 0)
    days = max((now - ramp.step_started_at).total_seconds(), 1.0) / _DAY_S
    said = f"observed {n} of {wanted} at {at}"
    per_day = n / days if n else None
    return enough("observations", said, n, wanted, per_day=per_day, what="observed decision")


def _guardrails(context: RampContext) -> Condition:
    """Every guardrail is quiet, as of the last minute; a breach is harm whenever it was seen."""
    outcomes = {each.outcome for each in context.guardrails}
    loud = [each for each in context.guardrails if each.outcome not in _QUIET]
    said = "; ".join(f"guardrail {each.name}, {each.outcome}: {each.sentence}" for each in loud)
    if "breach" in outcomes:
        return Condition("guardrails", GateOutcome.FAIL, said)
    if context.are_guardrails_stale or not context.guardrails:
        said = "the guardrails were not judged within the last minute"
        return Condition("guardrails", GateOutcome.INSUFFICIENT, said)
    if not loud:
        return Condition("guardrails", GateOutcome.PASS, f"{len(context.guardrails)} guardrails are quiet")
    outcome = GateOutcome.ERROR if "error" in outcomes else GateOutcome.INSUFFICIENT
    return Condition("guardrails", outcome, said)


def _ratio(ratio: SampleRatio | None) -> Condition:
    """As many actors are exposed as the exposure says."""
    if ratio is None:
        return Condition("sample_ratio", GateOutcome.PASS, "no actors to compare")
    outcome = GateOutcome.FAIL if ratio.is_broken else GateOutcome.PASS
    share = ratio.inside / ratio.n
    return Condition("sample_ratio", outcome, ratio.sentence, share, None, ratio.expected, ratio.n)
