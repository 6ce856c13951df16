"""May a rollout be loosened as things stand around it?"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.domain.clock import to_us
from app.domain.condition import Condition, GateOutcome, span, waited
from app.domain.evidence import Evidence
from app.domain.freeze import Frozen, freeze
from app.domain.limits import Requirement
from app.domain.phase import Phase
from app.domain.proofs import override
from app.domain.rollout import Investigation, RolloutState

# Conditions that say nothing about the evidence: they come and go without a second look at it.
PASSING = frozenset({"held", "kill_switch", "freeze"})

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class OtherRollout:
    """The present state of a rollout that another one requires."""

    phase: Phase
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What may stand against loosening a rollout, whatever its evidence says."""

    kill_switch: bool = False
    clock_jump_us: int | None = None
    frozen: Frozen | None = None


def hindrances(
    state: RolloutState, around: Surroundings, *, since: datetime, now: datetime
) -> Iterator[Condition]:
    """Hold, kill switch, clock and freeze; evidence has been gathered `since`."""
    if state.held:
        yield Condition("held", GateOutcome.FAIL, f"held: {state.hold_reason or 'no reason given'}")
    else:
        yield Condition("held", GateOutcome.PASS, "not held")
    if around.kill_switch:
        yield Condition("kill_switch", GateOutcome.FAIL, "the kill switch is engaged")
    else:
        yield Condition("kill_switch", GateOutcome.PASS, "the kill switch is released")
    yield _clock(around.clock_jump_us, since=since, now=now)
    yield freeze(around.frozen, now=now)


def investigation(case: Investigation, *, observed_days: float, days: float) -> Condition:
    """The last rollback is explained, and the version has been observed for `days` since."""
    if case.is_open:
        return Condition(
            "investigation", GateOutcome.FAIL, f"close its investigation, then {span(days)} of observation"
        )
    said = f"{span(observed_days)} of {span(days)} observed since its investigation closed"
    return waited("investigation", said, observed_days, days)


def required(requirement: Requirement, other: OtherRollout | None, *, alpha: float) -> Condition:
    """Another rollout has been enforced for long enough, and people do not override it too often."""
    name, days = f"requires:{requirement.rollout}", requirement.enforced_days
    if other is None or other.evidence.problem:
        return Condition(name, GateOutcome.ERROR, f"{requirement.rollout} cannot be read")
    if other.phase is not Phase.ENFORCED:
        said = f"{requirement.rollout} is in {other.phase}, needs {span(days)} enforced"
        return Condition(name, GateOutcome.INSUFFICIENT, said, limit=days)
    served = other.evidence.soak_days
    condition = waited(name, f"{requirement.rollout} enforced {span(served)} of {span(days)}", served, days)
    if requirement.override_below is None or condition.outcome is not GateOutcome.PASS:
        return condition
    judged = override(other.evidence, limit=requirement.override_below, alpha=alpha, per_day=None)
    said = f"{condition.sentence}; its {judged.sentence}"
    return Condition(name, judged.outcome, said, judged.value, judged.bound, judged.limit, judged.n)


def _clock(jump_us: int | None, *, since: datetime, now: datetime) -> Condition:
    """Times are worth nothing where the clock has jumped, since then or within a day."""
    if jump_us is not None and jump_us >= min(to_us(since), to_us(now) - _DAY_US):
        said = "the clock jumped by more than 60 s: times of this epoch cannot be trusted"
        return Condition("clock", GateOutcome.ERROR, said)
    return Condition("clock", GateOutcome.PASS, "the clock is steady")
