"""Which engine answers a situation, who only observes it, and what does the caller get?"""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import AnsweredBy, Decision, LegacyAnswer, stricter
from app.domain.phase import Phase
from app.domain.rollout import Approval, Combine, RolloutPolicy, RolloutState


class Engine(StrEnum):
    LEGACY = "legacy"
    MODEL = "model"


class FallbackReason(StrEnum):
    """Why the legacy engine answered in a phase where the model should have."""

    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    UNSURE = "unsure"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    CIRCUIT_OPEN = "circuit_open"
    KILL_SWITCH = "kill_switch"
    STALE_STATE = "stale_state"
    OVERSIZE = "oversize"

    @property
    def can_be_provoked(self) -> bool:
        """A caller can bring it about by what they send or how much."""
        return self in _PROVOKED


_PROVOKED = frozenset(
    {
        FallbackReason.TIMEOUT,
        FallbackReason.MALFORMED,
        FallbackReason.UNSURE,
        FallbackReason.OVERLOADED,
        FallbackReason.OVERSIZE,
    }
)


@dataclass(frozen=True, slots=True)
class PlaneState:
    """What holds for every rollout at one instant, as this instance knows it."""

    kill_switch: bool = False
    is_stale: bool = False
    circuit_open: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A plan, not an act: `services/decide.py` carries it out."""

    phase: Phase  # the one that applies to this actor
    exposed: bool
    answered_by: Engine
    observed_by: Engine | None  # answers too, but binds nobody
    fallback_reason: FallbackReason | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets, and on whose word."""

    decision: Decision
    answered_by: AnsweredBy
    fallback_reason: FallbackReason | None = None


def route(rollout: RolloutState, actor: float, plane: PlaneState) -> Route:
    """Choose the engines for one situation.

    Total and pure: every rollout, actor and state of the plane has exactly one route, and no state
    of failure leads to the model (law 3). `actor` is uniform in [0, 1): sticky per actor.
    """
    exposed = rollout.phase is Phase.SHADOW or actor < rollout.exposure
    phase = rollout.phase if exposed else rollout.phase.lower()
    if phase is not Phase.ENFORCED:
        return Route(phase, exposed, Engine.LEGACY, Engine.MODEL)
    # In this order because the first is a person's word and the others are the machine's.
    if plane.kill_switch:
        return Route(phase, exposed, Engine.LEGACY, None, FallbackReason.KILL_SWITCH)
    if plane.is_stale:
        return Route(phase, exposed, Engine.LEGACY, None, FallbackReason.STALE_STATE)
    if plane.circuit_open:
        return Route(phase, exposed, Engine.LEGACY, None, FallbackReason.CIRCUIT_OPEN)
    return Route(phase, exposed, Engine.MODEL, Engine.LEGACY)


def settle(policy: RolloutPolicy, plan: Route, legacy: LegacyAnswer, advisory: Advisory | None) -> Answer:
    """Make one answer of the two engines' answers.

    `advisory` counts only where the route names the model. Every path that ends in the model's own
    allow needs an `ok` advisory and a legacy engine that answered.
    """
    answer = _settle(policy, plan, legacy, advisory)
    if (
        policy.approval is Approval.HUMAN
        and plan.phase is not Phase.SHADOW
        and answer.decision is Decision.ALLOW
    ):
        return Answer(Decision.REQUIRE_ATTESTATION, answer.answered_by, answer.fallback_reason)
    return answer


def _settle(policy: RolloutPolicy, plan: Route, legacy: LegacyAnswer, advisory: Advisory | None) -> Answer:
    if legacy.failed:
        return Answer(Decision.DENY, AnsweredBy.FAIL_SAFE, plan.fallback_reason)
    if plan.answered_by is Engine.LEGACY:
        return _by_legacy(policy, legacy, plan.fallback_reason)
    if advisory is None:
        return _by_legacy(policy, legacy, FallbackReason.UNAVAILABLE)
    if advisory.outcome is not Outcome.OK:
        return _by_legacy(policy, legacy, FallbackReason(advisory.outcome))
    if advisory.decision is None:
        return _by_legacy(policy, legacy, FallbackReason.MALFORMED)
    return combined(policy.combine, legacy.decision, advisory.decision)


def combined(combine: Combine, legacy: Decision, model: Decision) -> Answer:
    """What two answers come to, where the model's counts."""
    if combine is Combine.MODEL:
        over_deny = model is Decision.ALLOW and legacy is Decision.DENY
        return Answer(Decision.REQUIRE_ATTESTATION if over_deny else model, AnsweredBy.MODEL)
    by = AnsweredBy.MODEL if model.severity >= legacy.severity else AnsweredBy.LEGACY
    return Answer(stricter(model, legacy), by)


def _by_legacy(policy: RolloutPolicy, legacy: LegacyAnswer, reason: FallbackReason | None) -> Answer:
    # Forcing the laxer engine must not pay (DESIGN 4, fallback reasons).
    tightened = (
        policy.risk.is_high
        and reason is not None
        and reason.can_be_provoked
        and legacy.decision is Decision.ALLOW
    )
    decision = Decision.REQUIRE_ATTESTATION if tightened else legacy.decision
    return Answer(decision, AnsweredBy.LEGACY, reason)
