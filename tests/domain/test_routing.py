"""Laws 3, 5 and 7 of the design, and each sentence of its fourth chapter that routing decides."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.decision import AnsweredBy, Decision, LegacyAnswer, stricter
from app.domain.limits import Risk
from app.domain.phase import Phase
from app.domain.rollout import Approval, Combine, RolloutPolicy, RolloutState
from app.domain.routing import Answer, Engine, FallbackReason, PlaneState, Route, route, settle
from tests.domain.making import policy, state

ALLOW, ATTEST, DENY = Decision
NORMAL, KILLED = PlaneState(), PlaneState(kill_switch=True)
PROVOKED = [Outcome.TIMEOUT, Outcome.MALFORMED, Outcome.UNSURE, Outcome.OVERLOADED, Outcome.OVERSIZE]


def legacy(decision: Decision = ALLOW, *, error: str | None = None) -> LegacyAnswer:
    return LegacyAnswer("rules", DENY if error else decision, None if error else "a rule", 0.2, error)


def said(decision: Decision | None = ALLOW, outcome: Outcome = Outcome.OK) -> Advisory:
    return Advisory("v1", outcome, 800.0, decision=decision, probabilities=Probabilities(0.8, 0.1, 0.1))


def settled(
    model: Advisory | None,
    other: LegacyAnswer,
    *,
    phase: Phase = Phase.ENFORCED,
    plane: PlaneState = NORMAL,
    **of: Any,
) -> Answer:
    rollout = policy(**of)
    return settle(rollout, route(state(phase=phase), 0.0, plane), other, model)


decisions = st.sampled_from(Decision)
actors = st.floats(0, 1, exclude_max=True)
planes = st.builds(PlaneState, st.booleans(), st.booleans(), st.booleans())
states = st.builds(
    lambda phase, exposure: state(phase=phase, exposure=exposure), st.sampled_from(Phase), st.floats(0, 1)
)
policies = st.builds(
    lambda risk, combine, approval: policy(risk=risk, combine=combine, approval=approval),
    st.sampled_from(Risk),
    st.sampled_from(Combine),
    st.sampled_from(Approval),
)
answers = st.builds(legacy, decisions) | st.just(legacy(error="no answer"))
advisories = st.none() | st.builds(said, st.none() | decisions, st.sampled_from(Outcome))


@given(states, actors, planes)
def test_no_failing_plane_routes_to_the_model(rollout: RolloutState, actor: float, plane: PlaneState) -> None:
    assume(plane != NORMAL)
    assert route(rollout, actor, plane).answered_by is Engine.LEGACY


@given(policies, states, actors, planes, answers, advisories)
def test_no_failure_leads_to_the_models_allow(
    of: RolloutPolicy,
    rollout: RolloutState,
    actor: float,
    plane: PlaneState,
    other: LegacyAnswer,
    model: Advisory | None,
) -> None:
    answer = settle(of, route(rollout, actor, plane), other, model)
    if answer.answered_by is AnsweredBy.MODEL:
        assert plane == NORMAL
        assert not other.failed
        assert model is not None
        assert model.answer is not None
        assert stricter(answer.decision, model.answer) is answer.decision


@given(policies, states, actors, planes, answers, advisories)
def test_an_allow_is_the_word_of_an_engine_that_answered(
    of: RolloutPolicy,
    rollout: RolloutState,
    actor: float,
    plane: PlaneState,
    other: LegacyAnswer,
    model: Advisory | None,
) -> None:
    answer = settle(of, route(rollout, actor, plane), other, model)
    if answer.decision is ALLOW:
        allowed = other.decision if answer.answered_by is AnsweredBy.LEGACY else model and model.answer
        assert allowed is ALLOW
        assert not other.failed


@given(policies, states, actors, planes, advisories)
def test_a_failed_legacy_engine_is_a_deny_whatever_the_model_says(
    of: RolloutPolicy, rollout: RolloutState, actor: float, plane: PlaneState, model: Advisory | None
) -> None:
    answer = settle(of, route(rollout, actor, plane), legacy(error="no answer"), model)
    assert (answer.decision, answer.answered_by) == (DENY, AnsweredBy.FAIL_SAFE)


@given(policies, states, actors, planes, answers)
def test_without_an_advisory_the_model_decides_nothing(
    of: RolloutPolicy, rollout: RolloutState, actor: float, plane: PlaneState, other: LegacyAnswer
) -> None:
    answer = settle(of, route(rollout, actor, plane), other, None)
    assert answer.answered_by is not AnsweredBy.MODEL
    assert stricter(answer.decision, other.decision) is answer.decision


@given(policies, states, actors, planes, answers, advisories)
def test_below_enforced_the_model_changes_no_answer(
    of: RolloutPolicy,
    rollout: RolloutState,
    actor: float,
    plane: PlaneState,
    other: LegacyAnswer,
    model: Advisory | None,
) -> None:
    plan = route(rollout, actor, plane)
    assume(plan.phase is not Phase.ENFORCED)
    assert settle(of, plan, other, model) == settle(of, plan, other, None)
    assert plan.answered_by is Engine.LEGACY
    assert plan.observed_by is Engine.MODEL
    assert plan.fallback_reason is None


@given(states, actors, planes)
def test_the_phase_that_applies_is_never_above_the_rollouts(
    rollout: RolloutState, actor: float, plane: PlaneState
) -> None:
    assert route(rollout, actor, plane).phase.rank <= rollout.phase.rank


@pytest.mark.parametrize("phase", [Phase.ADVISORY, Phase.ENFORCED])
@pytest.mark.parametrize(("actor", "exposed"), [(0.0, True), (0.249, True), (0.25, False), (0.99, False)])
def test_actors_outside_the_exposed_share_are_treated_as_one_phase_lower(
    phase: Phase, actor: float, *, exposed: bool
) -> None:
    plan = route(state(phase=phase, exposure=0.25), actor, NORMAL)
    assert plan.exposed is exposed
    assert plan.phase is (phase if exposed else phase.lower())


@given(actors, st.floats(0, 1))
def test_everyone_is_exposed_to_shadow(actor: float, exposure: float) -> None:
    plan = route(state(exposure=exposure), actor, NORMAL)
    assert (plan.phase, plan.exposed) == (Phase.SHADOW, True)


@given(actors, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_exposure_takes_nobody_out(actor: float, one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    if route(state(phase=Phase.ENFORCED, exposure=narrow), actor, NORMAL).exposed:
        assert route(state(phase=Phase.ENFORCED, exposure=wide), actor, NORMAL).exposed


@pytest.mark.parametrize("other", Decision)
@pytest.mark.parametrize("model", Decision)
def test_the_stricter_answer_stands_and_a_tie_says_model(model: Decision, other: Decision) -> None:
    answer = settled(said(model), legacy(other), combine=Combine.STRICTER)
    by = AnsweredBy.LEGACY if other.severity > model.severity else AnsweredBy.MODEL
    assert answer == Answer(stricter(model, other), by, fallback_reason=None)


@pytest.mark.parametrize("other", Decision)
@pytest.mark.parametrize("model", Decision)
def test_the_models_answer_stands_but_its_allow_over_a_deny_becomes_an_attestation(
    model: Decision, other: Decision
) -> None:
    answer = settled(said(model), legacy(other), combine=Combine.MODEL)
    expected = ATTEST if (model, other) == (ALLOW, DENY) else model
    assert answer == Answer(expected, AnsweredBy.MODEL)


@pytest.mark.parametrize(
    ("plane", "reason"),
    [
        pytest.param(KILLED, FallbackReason.KILL_SWITCH, id="kill switch"),
        pytest.param(PlaneState(is_stale=True), FallbackReason.STALE_STATE, id="stale"),
        pytest.param(PlaneState(circuit_open=True), FallbackReason.CIRCUIT_OPEN, id="circuit open"),
        pytest.param(PlaneState(True, True, True), FallbackReason.KILL_SWITCH, id="a person's word first"),
        pytest.param(
            PlaneState(False, True, True), FallbackReason.STALE_STATE, id="stale before the circuit"
        ),
    ],
)
def test_the_plane_takes_the_answer_from_the_model_and_says_why(
    plane: PlaneState, reason: FallbackReason
) -> None:
    assert settled(said(DENY), legacy(ALLOW), plane=plane) == Answer(ALLOW, AnsweredBy.LEGACY, reason)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_a_model_that_gives_no_answer_leaves_it_to_legacy_with_its_outcome_as_the_reason(
    outcome: Outcome,
) -> None:
    answer = settled(said(DENY, outcome), legacy(ALLOW))
    assert answer == Answer(ALLOW, AnsweredBy.LEGACY, FallbackReason(outcome.value))


def test_an_ok_without_a_decision_is_malformed() -> None:
    assert settled(said(None), legacy(ALLOW)).fallback_reason is FallbackReason.MALFORMED


def test_a_model_that_was_never_asked_is_unavailable() -> None:
    assert settled(None, legacy(ATTEST)) == Answer(ATTEST, AnsweredBy.LEGACY, FallbackReason.UNAVAILABLE)


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("outcome", PROVOKED)
def test_on_high_risk_a_fallback_that_a_caller_can_provoke_never_allows(risk: Risk, outcome: Outcome) -> None:
    answer = settled(said(ALLOW, outcome), legacy(ALLOW), risk=risk)
    assert answer.decision is (ATTEST if risk.is_high else ALLOW)
    assert answer.answered_by is AnsweredBy.LEGACY


@pytest.mark.parametrize("risk", [Risk.HIGH, Risk.CRITICAL])
@pytest.mark.parametrize("other", [ATTEST, DENY])
@pytest.mark.parametrize("outcome", PROVOKED)
def test_a_provoked_fallback_only_tightens(risk: Risk, other: Decision, outcome: Outcome) -> None:
    assert settled(said(ALLOW, outcome), legacy(other), risk=risk).decision is other


@pytest.mark.parametrize("plane", [KILLED, PlaneState(is_stale=True), PlaneState(circuit_open=True)])
def test_what_no_caller_can_provoke_keeps_the_legacy_allow(plane: PlaneState) -> None:
    assert settled(said(ALLOW), legacy(ALLOW), plane=plane, risk=Risk.CRITICAL).decision is ALLOW


def test_the_reasons_that_a_caller_can_provoke_are_five() -> None:
    provoked = {reason.value for reason in FallbackReason if reason.can_be_provoked}
    assert provoked == {"timeout", "malformed", "unsure", "overloaded", "oversize"}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("other", Decision)
def test_from_advisory_on_no_allow_leaves_without_a_person(phase: Phase, other: Decision) -> None:
    answer = settled(said(ALLOW), legacy(other), phase=phase, approval=Approval.HUMAN)
    allowed = other is ALLOW and phase is Phase.SHADOW
    assert (answer.decision is ALLOW) is allowed
    if other is ALLOW and not allowed:
        assert answer.decision is ATTEST


@given(policies, states, actors, planes, answers, advisories)
def test_approval_changes_the_decision_and_nothing_else(
    of: RolloutPolicy,
    rollout: RolloutState,
    actor: float,
    plane: PlaneState,
    other: LegacyAnswer,
    model: Advisory | None,
) -> None:
    plan = route(rollout, actor, plane)
    without = settle(replace(of, approval=Approval.NONE), plan, other, model)
    human = settle(replace(of, approval=Approval.HUMAN), plan, other, model)
    assert (human.answered_by, human.fallback_reason) == (without.answered_by, without.fallback_reason)
    assert stricter(human.decision, without.decision) is human.decision


def test_in_enforced_both_engines_are_asked() -> None:
    plan = route(state(phase=Phase.ENFORCED), 0.0, NORMAL)
    assert plan == Route(Phase.ENFORCED, exposed=True, answered_by=Engine.MODEL, observed_by=Engine.LEGACY)
