"""Does each sentence of the design's chapter on phases have its test?

The left column quotes the chapter; what is not quoted, versions beside the loaded one, has no code yet.
"""

import re
from pathlib import Path

import pytest

SENTENCES: dict[str, tuple[str, ...]] = {
    # the table
    "shadow: the caller gets the legacy decision, at legacy speed": (
        "test_below_enforced_the_legacy_decision_leaves_whatever_the_model_says",
        "test_below_enforced_a_hanging_model_delays_nobody",
    ),
    "shadow: the model is observed in the background, compared": (
        "test_in_shadow_the_model_is_observed_in_the_background_and_compared",
    ),
    "shadow: disagreements collected as edge cases": (
        "test_in_shadow_disagreements_are_collected_for_people",
    ),
    "advisory: legacy decision, plus the advisory if it is there within the advisory wait": (
        "test_the_advisory_comes_along_where_it_is_there_within_the_wait",
        "test_the_advisory_is_never_waited_for_by_default",
    ),
    "advisory: recommends, with reasoning": ("test_in_advisory_the_model_recommends_with_reasoning",),
    "advisory: people judge; their verdict is final on attestations": (
        "test_the_verdict_becomes_the_decision_in_force_and_final",
    ),
    "enforced: model decision within the deadline; else legacy with a fallback_reason": (
        "test_in_enforced_the_model_decides",
        "test_the_model_has_what_is_left_of_the_rollouts_deadline",
        "test_a_model_that_fails_leads_to_the_legacy_answer_with_its_reason",
    ),
    "enforced: sampled decisions are judged; wrong allows are reported": (
        "test_in_enforced_sampled_decisions_are_judged",
        "test_a_confirmed_wrong_allow_on_high_risk_rolls_back_and_the_next_decision_is_legacy",
    ),
    # attestation
    "from advisory on, require_attestation opens a binding review": (
        "test_from_advisory_on_an_attestation_opens_a_binding_review",
        "test_in_shadow_an_attestation_is_the_legacy_engines_business_alone",
    ),
    "its verdict becomes the decision in force": (
        "test_the_verdict_becomes_the_decision_in_force_and_final",
    ),
    "the ledger keeps the first answer; wait_s shows the one in force, answered_by reviewer": (
        "test_the_ledger_keeps_the_first_answer",
        "test_whoever_waits_hears_of_the_verdict",
    ),
    "final is false only while a binding review is open": (
        "test_a_wait_that_is_over_says_that_nothing_is_final",
        "test_after_its_time_an_attestation_is_deny",
    ),
    "after 15 minutes it expires to deny": (
        "test_after_its_time_an_attestation_is_deny",
        "test_it_is_deny_at_once_even_before_the_sweep",
        "test_a_verdict_that_comes_too_late_changes_nothing",
    ),
    "an allow verdict carries valid_until": ("test_an_allow_says_until_when_it_is_valid",),
    "every other review is after the fact and changes evidence alone": (
        "test_every_other_review_is_after_the_fact",
        "test_a_report_never_becomes_the_decision_in_force",
    ),
    # approval
    "approval human: from advisory on, an allow, whoever gave it, becomes require_attestation": (
        "test_where_a_human_approves_no_allow_leaves_from_advisory_on",
        "test_in_shadow_nobody_has_to_approve",
    ),
    "applied after routing; comparisons use the raw answers": (
        "test_where_a_human_approves_no_allow_leaves_from_advisory_on",
    ),
    # observation
    "observation is sampled by hash before queueing": (
        "test_what_is_not_sampled_is_not_observed_and_no_error",
    ),
    "adapted to what the worker can do": (
        "test_the_share_that_is_looked_at_follows_what_the_worker_gets_done",
    ),
    "unsampled and shed ones are not_observed, never errors": (
        "test_what_is_not_sampled_is_not_observed_and_no_error",
        "test_what_is_shed_is_not_observed_and_no_error",
    ),
    "errors are time-outs, crashes and malformed answers of work that was started": (
        "test_errors_are_what_went_wrong_in_work_that_was_started",
        "test_what_was_never_started_is_not_observed",
    ),
    "where the model allows what the legacy engine denies, the review goes first": (
        "test_where_the_model_allows_what_the_legacy_engine_denies_the_review_goes_first",
    ),
    # combine
    "in enforced both engines are asked": ("test_in_enforced_both_engines_are_asked",),
    "stricter: the more severe answer; ties say model; a stricter legacy answer says legacy": (
        "test_above_low_risk_the_more_severe_answer_leaves_and_ties_are_the_models",
    ),
    "model: the model's answer, except that its allow over a legacy deny becomes require_attestation": (
        "test_on_low_risk_the_model_answers_but_never_allows_over_a_deny",
    ),
    # fallback reasons
    "timeout, malformed, unsure, unavailable, overloaded, oversize": (
        "test_a_model_that_fails_leads_to_the_legacy_answer_with_its_reason",
    ),
    "circuit_open, kill_switch, stale_state": ("test_what_no_caller_can_provoke_is_not_tightened",),
    "a fallback that a caller can provoke turns a legacy allow into require_attestation": (
        "test_on_high_risk_a_fallback_that_a_caller_can_provoke_turns_allow_into_attestation",
    ),
    "and the fallback guardrail holds and notifies instead of rolling back": (
        "test_on_high_risk_fallbacks_hold_and_notify_and_never_bring_back_the_laxer_engine",
    ),
    # kill switch and hold
    "operators engage it, an approver releases it": (
        "test_operators_engage_the_kill_switch_and_approvers_release_it",
    ),
    "every rollout answers by the legacy engine at once, no phase changes": (
        "test_the_kill_switch_gives_every_rollout_to_the_legacy_engine_at_once",
    ),
    "released with a reason, at the first exposure step": (
        "test_a_released_kill_switch_begins_at_the_first_exposure_step",
    ),
    "hold freezes promotions and ramps, not rollbacks": (
        "test_a_gate_stays_shut_while",
        "test_a_hold_freezes_what_raises_exposure_and_lets_it_sink",
        "test_a_held_ramp_waits_and_the_held_time_does_not_count",
        "test_a_rollback_asks_for_no_revision_and_works_while_held_and_killed",
    ),
    # rollback
    "to the lower of its target and one phase down": (
        "test_a_rollback_goes_to_the_lower_of_its_target_and_one_phase_down",
    ),
    "in shadow a breach is only reported": ("test_in_shadow_a_breach_is_only_reported",),
    "it opens an investigation (root cause; fix; who)": (
        "test_a_rollback_opens_an_investigation_that_a_person_closes_with_a_cause",
        "test_an_investigation_has_one_of_the_known_causes",
    ),
    "promotion again needs it closed and 7 days of observation since then": (
        "test_a_gate_stays_shut_while",
        "test_promotion_again_needs_observed_days_after_the_investigation",
    ),
    # versions
    "show_legacy: the agreement is not independent, is marked, and is insufficient in every gate": (
        "test_agreement_of_a_version_that_saw_the_legacy_answer_passes_no_gate",
        "test_a_version_that_is_shown_the_legacy_answer_gets_it",
    ),
    # reviews
    "drawn at random with recorded probability": ("test_a_drawn_review_records_the_probability_that_it_had",),
    "unjudged after review_due it closes: 0 in the guardrail stream, missing in the gate": (
        "test_a_drawn_review_that_nobody_judges_closes_and_is_missing_in_the_gate",
    ),
    "the gate needs 90 % of its draws judged": (
        "test_a_drawn_review_that_nobody_judges_closes_and_is_missing_in_the_gate",
    ),
    "no drawn review judged for 7 days: held, after 7 more demoted": (
        "test_lapsed_oversight_holds_after_seven_days_and_demotes_after_seven_more",
        "test_one_early_verdict_is_no_oversight_for_ever",
        "test_where_nothing_was_drawn_nothing_lapses",
    ),
    "nobody judges a situation whose actor or key is theirs": (
        "test_nobody_judges_a_situation_whose_actor_is_theirs",
        "test_nobody_judges_what_their_own_key_asked",
    ),
    "nor approves their own request": ("test_nobody_approves_their_own_request",),
    # soak
    "soak counts days of the epoch with at least 20 observations": (
        "test_a_day_with_few_observations_is_no_soak",
        "test_soak_opens_the_gate_only_after_its_days",
    ),
    "without held, killed, stale or model-down time": (
        "test_held_time_is_not_served",
        "test_killed_time_is_not_served",
        "test_stale_time_is_not_served",
        "test_time_without_a_model_is_not_served",
    ),
    "a clock that jumps by over 60 s makes gates error": ("test_a_clock_that_jumps_makes_gates_an_error",),
}

_WRITTEN = {
    name
    for path in Path(__file__).parent.glob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_sentence_has_its_test(sentence: str) -> None:
    assert SENTENCES[sentence]
    assert set(SENTENCES[sentence]) <= _WRITTEN
