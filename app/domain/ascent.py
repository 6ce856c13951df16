"""May a rollout's exposure go one step further by itself, or must it come back?

`assess_ramp` judges and touches nothing; `carried_out` is what becomes of the rollout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, assert_never

from app.domain import circumstance
from app.domain.condition import Condition, GateOutcome, span, told, waited, worst
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.freeze import Frozen, freeze
from app.domain.phase import Phase
from app.domain.ramp import Ramp, RampState
from app.domain.ramp import to_wire as ramp_document
from app.domain.ratio import sample_ratio
from app.domain.rollout import RolloutPolicy, RolloutState, exposed

_DAY_S = 86_400.0
_QUIET = frozenset({"ok", "insufficient", "dry_run"})  # no data is no harm, and no reason to wait for ever
_HARM = frozenset({"breach", "error"})


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
    kill_switch: bool = False
    clock_jump_us: int | None = None
    frozen: Frozen | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing changes."""


@dataclass(frozen=True, slots=True)
class StepUp:
    to: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """`names` are the guardrails that it is for: each brings a ramp down once."""

    to: float
    why: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """The ramp ends; a person may start another. `to` is the exposure from then on."""

    to: float
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last approved step has been held as long as the others."""


Act = Wait | StepUp | StepDown | Stop | Done


@dataclass(frozen=True, slots=True)
class RampAssessment:
    act: Act
    conditions: tuple[Condition, ...]
    sentence: str


def steps_up_to(policy: RolloutPolicy, to: float) -> tuple[float, ...]:
    """What a ramp to this share has for steps: none of the policy's is skipped."""
    return tuple(step for step in policy.exposure if step <= to)


def assess_ramp(
    policy: RolloutPolicy, state: RolloutState, evidence: Evidence, context: RampContext, *, now: datetime
) -> RampAssessment:
    """Judge the running ramp of a rollout; raises ValueError where there is none."""
    ramp = state.ramp
    if ramp is None or not ramp.is_running:
        raise ValueError(f"{state.name} has no running ramp")
    conditions = tuple(_conditions(policy, state, ramp, evidence, context, now=now))
    act = _act(policy, state, ramp, evidence, context, conditions)
    return RampAssessment(act, conditions, _sentence(act, ramp, conditions))


def carried_out(
    state: RolloutState, assessment: RampAssessment, evidence: Evidence, *, now: datetime
) -> RolloutState:
    """The rollout after what its ramp's assessment says; the same one where that is to wait."""
    ramp = state.ramp
    assert ramp is not None
    match assessment.act:
        case Wait():
            return state
        case StepUp(to):
            return exposed(state, exposure=to, ramp=_at(ramp, to, evidence, eased=(), now=now))
        case StepDown(to, _, names):
            eased = tuple(sorted({*ramp.eased, *names}))
            return exposed(state, exposure=to, ramp=_at(ramp, to, evidence, eased=eased, now=now))
        case Stop(to, why):
            return exposed(state, exposure=to, ramp=ramp.ended(RampState.STOPPED, why))
        case Done():
            over = ramp.ended(RampState.DONE, assessment.sentence)
            return exposed(state, exposure=state.exposure, ramp=over)
        case _:
            assert_never(assessment.act)


def to_wire(ramp: Ramp, assessment: RampAssessment | None) -> dict[str, Any]:
    """The `ramp` shape; one that has ended has no assessment and no conditions."""
    conditions = [asdict(judged) for judged in assessment.conditions] if assessment else []
    for judged in conditions:
        judged["eta"] = judged.pop("eta_s")
    sentence = assessment.sentence if assessment else f"{ramp.state}: {ramp.why}"
    return {**ramp_document(ramp), "sentence": sentence, "conditions": conditions}


def _act(
    policy: RolloutPolicy,
    state: RolloutState,
    ramp: Ramp,
    evidence: Evidence,
    context: RampContext,
    conditions: Sequence[Condition],
) -> Act:
    # First whether there still is what a person approved: nothing else may be done in its name (law 4).
    gone = _gone(policy, state, ramp)
    if gone is not None:
        return Stop(state.exposure, gone)
    # Then the ruler before what it measures: unreadable counters, or guardrails over a skewed share of the
    # actors, say nothing, and nothing could be counted from here on.
    if evidence.problem is not None:
        return Stop(ramp.lower or ramp.step, f"the evidence cannot be read: {evidence.problem}")
    ratio = sample_ratio(evidence, state.exposure)
    if ratio is not None and ratio.is_broken:
        return Stop(min(state.exposure, ramp.steps[0]), ratio.sentence)
    # Then harm, before any hold, freeze or kill switch: those keep a ramp from going up, never from coming down.
    harmful = [each for each in context.guardrails if each.outcome in _HARM]
    if harmful:
        return _eased(ramp, harmful)
    # Only what is left may go up.
    if worst(judged.outcome for judged in conditions) is not GateOutcome.PASS:
        return Wait()
    return Done() if ramp.upper is None else StepUp(ramp.upper)


def _eased(ramp: Ramp, harmful: Sequence[Watched]) -> Act:
    """One step down for what is new: an alarm stands for its epoch, and must not pull the ramp down anew each minute."""
    new = [each for each in harmful if each.name not in ramp.eased]
    if not new or ramp.lower is None:
        return Wait()
    why = "; ".join(f"guardrail {each.name}: {each.sentence}" for each in new)
    return StepDown(ramp.lower, why, tuple(each.name for each in new))


def _gone(policy: RolloutPolicy, state: RolloutState, ramp: Ramp) -> str | None:
    """Why the ramp has no ground any more, or None where it has."""
    if state.phase is Phase.SHADOW or state.epoch != ramp.epoch:
        return "another epoch began"
    if state.exposure != ramp.step:
        return f"the exposure is {_percent(state.exposure)}, not the ramp's {_percent(ramp.step)}"
    if steps_up_to(policy, ramp.steps[-1]) != ramp.steps:
        return "the policy has other steps now"
    return None


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
    yield _served(policy, ramp, evidence)
    yield _observed(policy, ramp, evidence, now=now)
    yield _guardrails(context)
    ratio = sample_ratio(evidence, state.exposure)
    if ratio is None:
        yield Condition("sample_ratio", GateOutcome.PASS, "no actors to compare")
    else:
        outcome = GateOutcome.FAIL if ratio.is_broken else GateOutcome.PASS
        share = ratio.inside / ratio.n
        yield Condition("sample_ratio", outcome, ratio.sentence, share, None, ratio.expected, ratio.n)
    yield circumstance.held(state)
    yield circumstance.kill_switch(engaged=context.kill_switch)
    yield circumstance.clock(context.clock_jump_us, epoch_started_at=ramp.step_started_at, now=now)
    yield freeze(context.frozen, now=now)


def _served(policy: RolloutPolicy, ramp: Ramp, evidence: Evidence) -> Condition:
    """Time at this step that was really served: neither held, killed, stale nor without a model."""
    # A policy that was tightened meanwhile counts, one that was loosened is not what was approved.
    days = max(ramp.step_hours, policy.ramp_step_hours) / 24
    served = max(evidence.n(Metric.SERVED_S) - ramp.served_before_s, 0) / _DAY_S
    return waited("served", f"served {span(served)} of {span(days)} at {_percent(ramp.step)}", served, days)


def _observed(policy: RolloutPolicy, ramp: Ramp, evidence: Evidence, *, now: datetime) -> Condition:
    """Exposed observations since the step began."""
    wanted = max(ramp.observations, policy.ramp_observations)
    n = max(evidence.observed - ramp.observed_before, 0)
    more = max(wanted - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    days = max((now - ramp.step_started_at).total_seconds(), 1.0) / _DAY_S
    said = f"observed {n} of {wanted} at {_percent(ramp.step)}"
    judged = Condition("observations", outcome, said, float(n), None, float(wanted), n, more)
    return told(judged, n / days if n else None, "observed decision")


def _guardrails(context: RampContext) -> Condition:
    """Every guardrail is quiet, as of the last minute."""
    if context.are_guardrails_stale or not context.guardrails:
        said = "the guardrails were not judged within the last minute"
        return Condition("guardrails", GateOutcome.INSUFFICIENT, said)
    loud = [each for each in context.guardrails if each.outcome not in _QUIET]
    if not loud:
        return Condition("guardrails", GateOutcome.PASS, f"{len(context.guardrails)} guardrails are quiet")
    outcomes = {each.outcome for each in loud}
    outcome = GateOutcome.FAIL if outcomes & _HARM else GateOutcome.INSUFFICIENT
    said = "; ".join(f"{each.name} {each.outcome}: {each.sentence}" for each in loud)
    return Condition("guardrails", outcome, said)


def _sentence(act: Act, ramp: Ramp, conditions: Sequence[Condition]) -> str:
    match act:
        case Wait():
            waits = [judged.sentence for judged in conditions if judged.outcome is not GateOutcome.PASS]
            return f"waits at {_percent(ramp.step)}: {'; '.join(waits)}"
        case StepUp(to):
            return f"from {_percent(ramp.step)} to {_percent(to)}: {_held(conditions)}"
        case StepDown(to, why, _):
            return f"back from {_percent(ramp.step)} to {_percent(to)}: {why}"
        case Stop(to, why):
            return f"stopped at {_percent(to)}: {why}"
        case Done():
            return f"done at {_percent(ramp.step)}: {_held(conditions)}"
        case _:
            assert_never(act)


def _at(ramp: Ramp, step: float, evidence: Evidence, *, eased: tuple[str, ...], now: datetime) -> Ramp:
    served_s, observed = evidence.n(Metric.SERVED_S), evidence.observed
    return ramp.at(step, served_s=served_s, observed=observed, eased=eased, now=now)


def _held(conditions: Sequence[Condition]) -> str:
    """What a step rests on, in numbers; that nothing stood against it goes without saying."""
    counted = (judged for judged in conditions if judged.value is not None or judged.name == "guardrails")
    return "; ".join(judged.sentence for judged in counted)


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"
