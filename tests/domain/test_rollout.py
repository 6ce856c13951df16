from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import Risk
from app.domain.phase import Phase, lowest
from app.domain.rollout import (
    Investigation,
    RolloutPolicy,
    RolloutState,
    exposed,
    new_epoch,
    promoted,
    reset_to_shadow,
    rolled_back,
)
from app.errors import CeilingReached, Conflict
from tests.domain.making import NOW, policy, state

Step = Callable[[RolloutState, RolloutPolicy], RolloutState | None]


def promoting(to: Phase) -> Step:
    return lambda at, of: promoted(at, of, to=to, now=NOW)


STEPS: list[Step] = [
    *(promoting(to) for to in Phase),
    lambda at, of: rolled_back(at, of, now=NOW),
    lambda at, _: reset_to_shadow(at, now=NOW),
    lambda at, _: new_epoch(at, now=NOW),
    lambda at, _: exposed(at, exposure=0.5),
]


@given(ceiling=st.sampled_from(Phase), steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_no_sequence_of_transitions_passes_the_ceiling(ceiling: Phase, steps: list[Step]) -> None:
    of, at = policy(ceiling=ceiling), state()
    for take in steps:
        try:
            at = take(at, of) or at
        except (CeilingReached, Conflict):
            continue
        assert at.phase.rank <= ceiling.rank


@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_every_transition_moves_the_revision_and_a_new_phase_begins_a_new_epoch(steps: list[Step]) -> None:
    of, at = policy(), state()
    for take in steps:
        try:
            after = take(at, of)
        except (CeilingReached, Conflict):
            continue
        if after is None:
            continue
        assert after.revision == at.revision + 1
        assert after.epoch >= at.epoch
        if after.phase is not at.phase:
            assert after.epoch == at.epoch + 1
        at = after


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("to", Phase)
def test_a_promotion_goes_one_phase_up_and_nowhere_else(phase: Phase, to: Phase) -> None:
    if to.rank == phase.rank + 1:
        assert promoted(state(phase=phase), policy(), to=to, now=NOW).phase is to
    else:
        with pytest.raises(Conflict, match="not the next phase up"):
            promoted(state(phase=phase), policy(), to=to, now=NOW)


@pytest.mark.parametrize("phase", Phase)
def test_the_ceiling_holds_even_against_a_jump(phase: Phase) -> None:
    with pytest.raises(CeilingReached):
        promoted(state(phase=phase), policy(ceiling=Phase.ADVISORY), to=Phase.ENFORCED, now=NOW)


def test_a_promotion_starts_at_the_first_exposure_step_in_a_new_epoch() -> None:
    stepped = policy(exposure=(0.05, 0.25, 1.0))
    after = promoted(state(rolled_back=True), stepped, to=Phase.ADVISORY, now=NOW)
    assert (after.exposure, after.epoch, after.epoch_started_at) == (0.05, 2, NOW)
    assert not after.rolled_back


@pytest.mark.parametrize("phase", [Phase.ADVISORY, Phase.ENFORCED])
@pytest.mark.parametrize("target", [Phase.SHADOW, Phase.ADVISORY])
def test_a_rollback_goes_to_the_lower_of_its_target_and_one_phase_down(phase: Phase, target: Phase) -> None:
    after = rolled_back(state(phase=phase, exposure=0.05), policy(rollback_to=target), now=NOW)
    assert after is not None
    assert after.phase is lowest(target, phase.lower())
    assert (after.rolled_back, after.exposure, after.epoch) == (True, 1.0, 2)


@pytest.mark.parametrize("target", [Phase.SHADOW, Phase.ADVISORY])
def test_there_is_nothing_below_shadow(target: Phase) -> None:
    assert rolled_back(state(), policy(rollback_to=target), now=NOW) is None


@given(phase=st.sampled_from(Phase), target=st.sampled_from(Phase))
def test_no_rollback_raises_a_phase(phase: Phase, target: Phase) -> None:
    after = rolled_back(state(phase=phase), policy(rollback_to=target), now=NOW)
    assert after is None or after.phase.rank < phase.rank


def test_a_change_of_exposure_keeps_the_epoch() -> None:
    before = state(phase=Phase.ENFORCED, exposure=0.05)
    after = exposed(before, exposure=0.25)
    assert (after.exposure, after.epoch, after.phase) == (0.25, before.epoch, before.phase)
    assert after.epoch_started_at == before.epoch_started_at


def test_a_new_epoch_keeps_phase_and_exposure() -> None:
    before = state(phase=Phase.ENFORCED, exposure=0.25)
    after = new_epoch(before, now=NOW)
    assert (after.phase, after.exposure, after.epoch) == (Phase.ENFORCED, 0.25, before.epoch + 1)


def test_a_reset_goes_to_shadow_for_everyone() -> None:
    after = reset_to_shadow(state(phase=Phase.ENFORCED, exposure=0.25), now=NOW)
    assert (after.phase, after.exposure, after.epoch) == (Phase.SHADOW, 1.0, 2)


def test_an_investigation_is_open_until_it_is_closed() -> None:
    case = Investigation("i1", NOW, "v1")
    assert case.is_open
    assert not Investigation("i1", NOW, "v1", closed_at=NOW + timedelta(days=1)).is_open


@pytest.mark.parametrize(
    ("risk", "high"), [(Risk.LOW, False), (Risk.MEDIUM, False), (Risk.HIGH, True), (Risk.CRITICAL, True)]
)
def test_high_and_critical_risk_are_high(risk: Risk, *, high: bool) -> None:
    assert risk.is_high is high


def test_phases_have_one_order() -> None:
    assert [phase.higher() for phase in Phase] == [Phase.ADVISORY, Phase.ENFORCED, None]
    assert [phase.lower() for phase in Phase] == [Phase.SHADOW, Phase.SHADOW, Phase.ADVISORY]
