"""What will happen if somebody pulls a lever of a rollout now, said before they do?"""

from datetime import UTC, datetime
from typing import Any

from app.domain.condition import percent, span
from app.domain.phase import Phase
from app.domain.rollout import (
    Approval,
    Combine,
    RolloutPolicy,
    RolloutState,
    first_exposure,
    promoted,
    rolled_back,
)

_EVER = datetime.max.replace(tzinfo=UTC)  # what is told of a change does not hang on when it is made


def prospects(policy: RolloutPolicy, state: RolloutState) -> dict[str, Any]:
    """Sentences: of each phase what it means, and of each lever that can be pulled what it does."""
    return {
        "phases": {phase.value: _meaning(policy, phase) for phase in Phase},
        "promote": _promotion(policy, state),
        "rollback": _rollback(policy, state),
        "hold": f"{state.name} stays as it is: no promotion and no ramp until somebody ends the hold. "
        "Guardrails go on and still roll back.",
        "resume": "Promotions and ramps are possible again. What the gate asks for stays the same.",
        "investigation": _investigation(policy, state),
        "exposure": [_step(policy, state, share) for share in policy.exposure],
        "activate": _activation(policy, state),
        "revert": _reversion(state),
    }


def _meaning(policy: RolloutPolicy, phase: Phase) -> str:
    if phase is Phase.SHADOW:
        return "The legacy engine answers everybody. The model is asked beside it and only compared."
    if phase is Phase.ADVISORY:
        said = "The legacy engine still answers; the model's recommendation goes with the answer."
        asks = (
            "whatever would be allowed" if policy.approval is Approval.HUMAN else "what asks for attestation"
        )
        return f"{said} People decide {asks}."
    within = f"The model answers within {policy.deadline_ms / 1000:.3g} s, else the legacy engine does."
    if policy.combine is Combine.STRICTER:
        return f"{within} Of two different answers the stricter one counts."
    return f"{within} Where it allows what the legacy engine denies, a person decides."


def _promotion(policy: RolloutPolicy, state: RolloutState) -> str | None:
    to = state.phase.higher()
    if to is None or to.rank > policy.ceiling.rank:
        return None
    after = promoted(state, policy, to=to, now=_EVER)
    rest = "" if after.exposure == 1 else f"; for everybody else {state.phase} goes on"
    return (
        f"{state.name} goes to {to} for {percent(after.exposure)} of the actors{rest}. {_meaning(policy, to)} "
        f"Epoch {after.epoch} begins: its evidence and its guardrails start from nothing."
    )


def _rollback(policy: RolloutPolicy, state: RolloutState) -> str | None:
    after = rolled_back(state, policy, now=_EVER)
    if after is None:
        return None
    days = span(policy.rollback_observe_days)
    return (
        f"{state.name} goes to {after.phase} at once, for everybody. {_meaning(policy, after.phase)} "
        f"An investigation opens; after it is closed the version is observed for {days} before a promotion."
    )


def _investigation(policy: RolloutPolicy, state: RolloutState) -> str | None:
    case = state.investigation
    if case is None or not case.is_open:
        return None
    return (
        f"The investigation of {case.version} is closed with its cause and its fix, for good. "
        f"A promotion is possible after {span(policy.rollback_observe_days)} of observation from then on."
    )


def _step(policy: RolloutPolicy, state: RolloutState, share: float) -> dict[str, Any]:
    """One step of exposure; only the next one up may be taken, and any one down."""
    above = min((step for step in policy.exposure if step > state.exposure), default=None)
    said = f"{percent(share)} of the actors get {state.phase}, the others {state.phase.lower()}; the epoch goes on."
    if share == 1:
        said = f"Every actor gets {state.phase}; the epoch goes on."
    return {"share": share, "sentence": said, "offered": share < state.exposure or share == above}


def _activation(policy: RolloutPolicy, state: RolloutState) -> str:
    return (
        f"It takes over in {state.phase} for {percent(first_exposure(policy, state))} of the actors; {state.version} stays ready as the "
        f"previous one. Epoch {state.epoch + 1} begins: evidence and guardrails start from nothing."
    )


def _reversion(state: RolloutState) -> str | None:
    if state.previous is None:
        return None
    return (
        f"{state.previous} answers again, in the same phase and for the same actors; {state.version} becomes the "
        f"previous one. Epoch {state.epoch + 1} begins. Where {state.previous} is under an open investigation, "
        f"{state.name} goes to shadow instead."
    )
