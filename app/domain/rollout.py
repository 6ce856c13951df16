"""What has a phase, which limits does it carry, and which change of it is legal?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from app.domain.limits import (
    Action,
    GateLimits,
    Guardrail,
    GuardrailLimits,
    Requirement,
    Risk,
    default_action,
)
from app.domain.phase import Phase, lowest
from app.errors import CeilingReached, Conflict


class Combine(StrEnum):
    """How two answers become one in enforced (DESIGN 4)."""

    STRICTER = "stricter"
    MODEL = "model"


class Approval(StrEnum):
    """`human`: from advisory on, no allow leaves without a person."""

    NONE = "none"
    HUMAN = "human"


class Comparison(StrEnum):
    """How a candidate is compared with the active version: both see each situation, or each has its actors."""

    BOTH = "both"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """One entry of `policies/rollouts.yaml`."""

    name: str
    actions: tuple[str, ...]
    risk: Risk
    ceiling: Phase
    when: str | None = None
    gates: Mapping[Phase, GateLimits] = field(default_factory=dict)
    guardrails: GuardrailLimits = field(default_factory=GuardrailLimits)
    exposure: tuple[float, ...] = (1.0,)  # steps, shares 0..1, rising
    requires: tuple[Requirement, ...] = ()
    combine: Combine = Combine.STRICTER
    approval: Approval = Approval.NONE
    rollback_to: Phase = Phase.ADVISORY
    deadline_ms: float = 5_000.0
    advisory_wait_ms: float = 0.0
    observe_rate: float = 1.0
    review_rate: float = 0.05
    attestation_ttl_s: float = 900.0
    review_due_days: float = 7.0
    lapse_days: float = 7.0
    confidence_at_least: float = 0.0
    gate_alpha: float = 0.05
    rollback_observe_days: float = 7.0
    cache: bool = False  # whether an identical question may be answered from memory
    window_hours: float = 24.0  # a situation is evidence once in this time, an actor `actor_share` of it
    actor_share: float = 0.05
    actors_at_least: int = 10  # different ones, for a promotion
    ask_twice_rate: float = 0.01  # of the observations, to see whether the model agrees with itself
    double_review_rate: float = 0.10  # of the drawn reviews, by a second person who sees neither opinion
    ramp_step_hours: float = 24.0  # how long each automatic step of exposure lasts, at least
    ramp_observations: int = 50  # exposed ones, before the next step

    def action(self, guardrail: Guardrail) -> Action:
        """What a breach of this guardrail leads to: as the policy says, or as its risk suggests."""
        chosen = self.guardrails.actions.get(guardrail)
        return Action(chosen) if chosen else default_action(guardrail, self.risk)


@dataclass(frozen=True, slots=True)
class Investigation:
    """Opened by a rollback; promotion waits until it is closed."""

    id: str
    opened_at: datetime
    version: str
    cause: str | None = None
    fix: str | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None

    @property
    def is_open(self) -> bool:
        return self.closed_at is None


class RampState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Ramp:
    """Steps of exposure that a person approved; `domain/ramp.py` says when the next one is due.

    `steps` are all of the policy's up to the approved one, shares 0..1, rising. The rollout has been at its
    exposure since `step_started_at`, and what the epoch had served and observed by then is `…_before`.
    """

    steps: tuple[float, ...]
    started_by: str  # key id
    started_at: datetime
    step_started_at: datetime
    served_before_s: int
    observed_before: int
    state: RampState = RampState.RUNNING
    why: str | None = None  # it is no longer running

    def ended(self, state: RampState, why: str) -> "Ramp":
        return replace(self, state=state, why=why)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where a rollout stands. `exposure` is a share of actors, 0..1.

    `candidate` observes beside `version` since `candidate_since`; where they split the traffic,
    `candidate_share` of the actors are its own.
    """

    name: str
    phase: Phase
    exposure: float
    revision: int
    epoch: int
    epoch_started_at: datetime
    version: str
    candidate: str | None = None
    previous: str | None = None
    held: bool = False
    hold_reason: str | None = None
    rolled_back: bool = False
    investigation: Investigation | None = None
    candidate_mode: Comparison | None = None
    candidate_share: float | None = None
    candidate_since: datetime | None = None
    ramp: Ramp | None = None

    @property
    def running_ramp(self) -> Ramp | None:
        return self.ramp if self.ramp is not None and self.ramp.state is RampState.RUNNING else None


def promoted(state: RolloutState, policy: RolloutPolicy, *, to: Phase, now: datetime) -> RolloutState:
    """One phase up, at the first exposure step, in a new epoch. The gate is judged elsewhere.

    Raises `CeilingReached` (law 7) and `Conflict("not-next-phase")`.
    """
    if to.rank > policy.ceiling.rank:
        raise CeilingReached(policy.name, policy.ceiling)
    if to is not state.phase.higher():
        raise Conflict("not-next-phase", f"{state.name} is in {state.phase}; {to} is not the next phase up")
    return _entered(state, phase=to, exposure=policy.exposure[0], now=now, rolled_back=False)


def rolled_back(state: RolloutState, policy: RolloutPolicy, *, now: datetime) -> RolloutState | None:
    """The lower of the rollback target and one phase down, or None in shadow: there is nothing below."""
    if state.phase is Phase.SHADOW:
        return None
    target = lowest(policy.rollback_to, state.phase.lower())
    return _entered(state, phase=target, exposure=1.0, now=now, rolled_back=True)


def reset_to_shadow(state: RolloutState, *, now: datetime) -> RolloutState:
    """Shadow under a new epoch: what a loosened policy and a killed plane's return cost."""
    return _entered(state, phase=Phase.SHADOW, exposure=1.0, now=now, rolled_back=state.rolled_back)


def new_epoch(state: RolloutState, *, now: datetime) -> RolloutState:
    """The same phase with its evidence begun anew."""
    return _entered(state, phase=state.phase, exposure=state.exposure, now=now, rolled_back=state.rolled_back)


def exposed(state: RolloutState, *, exposure: float, ramp: Ramp | None = None) -> RolloutState:
    """Another share of actors; the epoch goes on. A ramp ends, unless the change is its own."""
    return replace(state, exposure=exposure, ramp=ramp, revision=state.revision + 1)


def with_candidate(
    state: RolloutState, version: str, *, mode: Comparison, share: float | None, now: datetime
) -> RolloutState:
    """A version begins to observe beside the active one, whose phase and epoch go on.

    Raises `Conflict("candidate-exists")` and `Conflict("already-active")`.
    """
    if state.candidate is not None:
        raise Conflict(
            "candidate-exists",
            f"{state.name} has the candidate {state.candidate}: withdraw it before there is another",
        )
    if version == state.version:
        raise Conflict("already-active", f"{version} is what {state.name} runs on")
    return replace(
        state,
        candidate=version,
        candidate_mode=mode,
        candidate_share=share,
        candidate_since=now,
        revision=state.revision + 1,
    )


def withdrawn(state: RolloutState) -> RolloutState:
    """The candidate observes no longer. Raises `Conflict("no-candidate")`."""
    if state.candidate is None:
        raise Conflict("no-candidate", f"{state.name} has no candidate")
    return replace(_without_candidate(state), revision=state.revision + 1)


def activated(state: RolloutState, version: str, *, exposure: float, now: datetime) -> RolloutState:
    """Another version takes over in a new epoch; the one before stays ready as `previous`.

    Whether it may is judged elsewhere. Raises `Conflict("already-active")`.
    """
    if version == state.version:
        raise Conflict("already-active", f"{version} is what {state.name} runs on")
    after = replace(new_epoch(state, now=now), version=version, previous=state.version, exposure=exposure)
    return _without_candidate(after) if state.candidate == version else after


def first_exposure(policy: RolloutPolicy, state: RolloutState) -> float:
    """What another version takes over with: like a promotion, above shadow it begins with the first of the actors."""
    return state.exposure if state.phase is Phase.SHADOW else min(state.exposure, policy.exposure[0])


def reverted(state: RolloutState, *, now: datetime) -> RolloutState:
    """Back to the previous version, in the same phase and for the same actors.

    Raises `Conflict("no-previous")`.
    """
    if state.previous is None:
        raise Conflict("no-previous", f"{state.name} has no previous version to return to")
    return activated(state, state.previous, exposure=state.exposure, now=now)


def _without_candidate(state: RolloutState) -> RolloutState:
    return replace(state, candidate=None, candidate_mode=None, candidate_share=None, candidate_since=None)


def _entered(
    state: RolloutState, *, phase: Phase, exposure: float, now: datetime, rolled_back: bool
) -> RolloutState:
    return replace(
        state,
        phase=phase,
        exposure=exposure,
        revision=state.revision + 1,
        epoch=state.epoch + 1,
        epoch_started_at=now,
        rolled_back=rolled_back,
        ramp=None,  # what a person approved was approved for the epoch that ends
    )
