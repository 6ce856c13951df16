from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.assessment import Assessment, Facts, GuardrailOutcome, to_wire
from app.domain.clock import to_us
from app.domain.counters import Metric
from app.domain.evidence import unreadable
from app.domain.guardrail import advance, limits_hash, threshold_of
from app.domain.limits import Action, Guardrail, GuardrailLimits, Risk
from app.domain.phase import Phase
from app.domain.stream import Label, StreamState
from app.store.streams import from_json, to_json
from tests.domain.making import NOW, START, evidence, policy, reviewed_totals, shadow_totals

OK, WARNING, BREACH, INSUFFICIENT, ERROR, DRY_RUN, STALE = GuardrailOutcome
BASELINE = {
    "allow": 195,
    "require_attestation": 60,
    "deny": 45,
    "allow>allow": 195,
    "require_attestation>require_attestation": 60,
    "deny>deny": 45,
}
BAD = {
    (Metric.OBSERVATION, "timeout"): 400,
    (Metric.LATENCY, "48"): 400,
    (Metric.ENFORCED, "all"): 400,
    (Metric.FALLBACK, "timeout"): 400,
    (Metric.MODEL, "deny"): 400,
    (Metric.PAIR, "allow>deny"): 400,
    (Metric.SELF, "other"): 400,
    (Metric.WRONG_ALLOW, "all"): 1,
}
LATER = (Guardrail.OVERRIDE, Guardrail.AGREEMENT_DRIFT)  # has no labels, or no week before this one
GOOD = ("all", "48", "deny", "allow>deny")
OTHERS = [guardrail for guardrail in Guardrail if guardrail not in LATER]
COUNTED = [guardrail for guardrail in OTHERS if guardrail is not Guardrail.WRONG_ALLOW]


def facts(totals: dict[tuple[Metric, str], int], **changes: Any) -> Facts:
    plain = Facts(policy(), Phase.ENFORCED, evidence(totals), NOW, baseline=BASELINE)
    return replace(plain, **changes)


def limited(**limits: Any) -> GuardrailLimits:
    return GuardrailLimits(**limits)


def labels(values: Iterable[bool | None]) -> list[Label]:
    first = to_us(NOW - timedelta(days=1))
    return [Label(f"d{k:05}", first + k * 10**8, bad, 1.0) for k, bad in enumerate(values)]


def look(guardrail: Guardrail, seen: Facts, state: StreamState | None = None) -> Assessment:
    return advance(guardrail, state, seen)[1]


@pytest.mark.parametrize("guardrail", Guardrail)
@pytest.mark.parametrize("phase", Phase)
def test_every_guardrail_is_judged_in_every_phase(guardrail: Guardrail, phase: Phase) -> None:
    assessment = look(guardrail, facts(shadow_totals(50), phase=phase))
    assert assessment.name is guardrail
    assert to_wire(assessment).keys() == {
        "name", "outcome", "action", "e_value", "threshold", "rate", "limit", "n", "pending", "sentence",
        "dry_run",
    }  # fmt: skip


@pytest.mark.parametrize("guardrail", Guardrail)
def test_no_data_is_neither_good_nor_harm(guardrail: Guardrail) -> None:
    assert look(guardrail, facts({})).outcome is INSUFFICIENT


@pytest.mark.parametrize("guardrail", OTHERS)
def test_harm_is_found(guardrail: Guardrail) -> None:
    state, assessment = advance(guardrail, None, facts(BAD, policy=policy(risk=Risk.HIGH)))
    assert assessment.outcome is BREACH
    assert assessment.raised
    assert state.alarm is not None


def test_overridden_decisions_are_harm() -> None:
    assessment = look(
        Guardrail.OVERRIDE, facts(reviewed_totals(30, overridden=30), labels=labels([True] * 30))
    )
    assert (assessment.outcome, assessment.action, assessment.n) == (BREACH, Action.ROLLBACK, 30)
    assert "reached 500" in assessment.sentence


@pytest.mark.parametrize("guardrail", COUNTED)
def test_a_healthy_rollout_is_ok(guardrail: Guardrail) -> None:
    good = {
        **shadow_totals(1_000),
        (Metric.ENFORCED, "all"): 1_000,
        (Metric.MODEL, "allow"): 650,
        (Metric.MODEL, "require_attestation"): 200,
        (Metric.MODEL, "deny"): 150,
        (Metric.PAIR, "allow>allow"): 1_000,
        (Metric.SELF, "same"): 1_000,
    }
    assert look(guardrail, facts(good)).outcome is OK


def test_a_warning_comes_before_the_breach() -> None:
    seen = facts({}, labels=labels([True] * 3))
    assessment = look(Guardrail.OVERRIDE, seen)
    assert assessment.outcome is WARNING
    assert assessment.e_value is not None
    assert 500**0.5 <= assessment.e_value < 500


@pytest.mark.parametrize("guardrail", OTHERS)
def test_an_alarm_stands_for_the_epoch_but_is_raised_once(guardrail: Guardrail) -> None:
    of = policy(risk=Risk.HIGH)
    state, _ = advance(guardrail, None, facts(BAD, policy=of))
    calm = {metric: n + 100_000 * (metric[1] in GOOD) for metric, n in BAD.items()}
    calm |= {(Metric.OBSERVATION, "ok"): 100_000, (Metric.SELF, "same"): 100_000}
    state, again = advance(guardrail, state, facts(calm, policy=of))
    assert again.outcome is BREACH
    assert not again.raised
    assert state.alarm is not None
    assert "the alarm of this epoch stands" in again.sentence


@pytest.mark.parametrize("guardrail", COUNTED)
def test_another_epoch_starts_anew(guardrail: Guardrail) -> None:
    state, _ = advance(guardrail, None, facts(BAD))
    fresh = facts({}, evidence=evidence({}, epoch=2))
    state, assessment = advance(guardrail, state, fresh)
    assert (state.epoch, state.alarm, assessment.outcome) == (2, None, INSUFFICIENT)


@pytest.mark.parametrize("guardrail", COUNTED)
def test_a_changed_limit_starts_anew_with_what_comes_after_it(guardrail: Guardrail) -> None:
    state, _ = advance(guardrail, None, facts(BAD))
    loosened = policy(guardrails=GuardrailLimits(horizon_days=15.0))
    state, assessment = advance(guardrail, state, facts(BAD, policy=loosened))
    assert assessment.outcome is not BREACH
    assert state.alarm is None
    worse = {metric: 2 * n for metric, n in BAD.items()}
    assert look(guardrail, facts(worse, policy=loosened), state).outcome is BREACH


def test_a_changed_limit_leaves_the_labels_behind_it_out() -> None:
    seen = facts({}, labels=labels([True] * 30))
    state, _ = advance(Guardrail.OVERRIDE, None, seen)
    changed = policy(guardrails=GuardrailLimits(override_limit=0.2))
    state, _ = advance(
        Guardrail.OVERRIDE, state, replace(seen, policy=changed, labels=labels([True] * 31)[30:])
    )
    state, assessment = advance(Guardrail.OVERRIDE, state, replace(seen, policy=changed, labels=[]))
    assert (assessment.outcome, state.watermark) == (INSUFFICIENT, "d00030")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("override_limit", {Guardrail.OVERRIDE}),
        ("error_limit", {Guardrail.ERROR}),
        ("fallback_limit", {Guardrail.FALLBACK}),
        ("shift_limit", {Guardrail.SHIFT, Guardrail.PAIRED_SHIFT}),
        ("latency_target_ms", {Guardrail.LATENCY}),
        ("latency_alert_ms", {Guardrail.LATENCY_ALERT}),
        ("drift_limit", {Guardrail.AGREEMENT_DRIFT}),
        ("self_disagreement_limit", {Guardrail.SELF_DISAGREEMENT}),
        ("alpha", set(Guardrail)),
        ("stale_after_days", set()),
    ],
)
def test_only_the_limits_of_a_guardrail_itself_start_it_anew(setting: str, expected: set[Guardrail]) -> None:
    before, after = policy(), policy(guardrails=limited(**{setting: 0.2345}))
    changed = {name for name in Guardrail if limits_hash(before, name) != limits_hash(after, name)}
    assert changed == expected
    assert limits_hash(before, Guardrail.SHIFT) != limits_hash(before, Guardrail.SHIFT, BASELINE)


@pytest.mark.parametrize(
    "effect", [{"actions": {"error": Action.NOTIFY}}, {"dry_run": ("error",)}], ids=["action", "dry run"]
)
def test_what_was_no_reason_to_act_is_none_when_its_effect_changes(effect: dict[str, Any]) -> None:
    before, after = policy(guardrails=GuardrailLimits(**effect)), policy()
    state, seen = advance(Guardrail.ERROR, None, facts(BAD, policy=before))
    assert seen.raised
    state, assessment = advance(Guardrail.ERROR, state, facts(BAD, policy=after))
    assert (assessment.outcome, state.alarm) == (OK, None)
    worse = {metric: 2 * n for metric, n in BAD.items()}
    assert look(Guardrail.ERROR, facts(worse, policy=after), state).outcome is BREACH


@pytest.mark.parametrize("guardrail", OTHERS)
def test_evidence_that_cannot_be_read_is_an_error_and_no_rollback(guardrail: Guardrail) -> None:
    lost = unreadable("read", "v1", epoch=1, epoch_started_at=START, problem="the database is away")
    assessment = look(guardrail, facts({}, evidence=lost))
    assert assessment.outcome is ERROR
    assert "the database is away" in assessment.sentence


def test_a_limit_that_changes_while_nothing_can_be_read_lets_only_speak_what_comes_after_it() -> None:
    state, _ = advance(Guardrail.ERROR, None, facts({}))
    changed = policy(guardrails=GuardrailLimits(error_limit=0.02))
    lost = unreadable("read", "v1", epoch=1, epoch_started_at=START, problem="the database is away")
    state, _ = advance(Guardrail.ERROR, state, facts({}, evidence=lost, policy=changed))
    assert look(Guardrail.ERROR, facts(BAD, policy=changed), state).outcome is not BREACH


def test_counters_that_went_backwards_are_an_error_and_leave_the_stream_alone() -> None:
    state, _ = advance(Guardrail.ERROR, None, facts(shadow_totals(100)))
    after, assessment = advance(Guardrail.ERROR, state, facts(shadow_totals(90)))
    assert (assessment.outcome, after) == (ERROR, state)


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.ADVISORY])
def test_fallbacks_count_in_enforced_only(phase: Phase) -> None:
    assessment = look(Guardrail.FALLBACK, facts(BAD, phase=phase))
    assert assessment.outcome is INSUFFICIENT
    assert "in enforced only" in assessment.sentence


def test_a_kill_switch_is_no_fallback_of_the_model() -> None:
    killed = {(Metric.ENFORCED, "all"): 500, (Metric.FALLBACK, "kill_switch"): 500}
    assert look(Guardrail.FALLBACK, facts(killed)).outcome is INSUFFICIENT


@pytest.mark.parametrize(
    ("risk", "action"),
    [
        (Risk.LOW, Action.ROLLBACK),
        (Risk.MEDIUM, Action.ROLLBACK),
        (Risk.HIGH, Action.HOLD),
        (Risk.CRITICAL, Action.HOLD),
    ],
)
def test_on_high_risk_forced_fallbacks_hold_and_do_not_roll_back(risk: Risk, action: Action) -> None:
    assert policy(risk=risk).action(Guardrail.FALLBACK) is action


@pytest.mark.parametrize(
    ("risk", "outcome", "action"),
    [
        (Risk.LOW, WARNING, Action.NOTIFY),
        (Risk.MEDIUM, WARNING, Action.NOTIFY),
        (Risk.HIGH, BREACH, Action.ROLLBACK),
        (Risk.CRITICAL, BREACH, Action.ROLLBACK),
    ],
)
def test_one_confirmed_wrong_allow_is_a_breach_where_the_risk_is_high(
    risk: Risk, outcome: GuardrailOutcome, action: Action
) -> None:
    seen = facts({(Metric.WRONG_ALLOW, "all"): 1, (Metric.REVIEWED_ALLOW, "all"): 900})
    assessment = look(Guardrail.WRONG_ALLOW, replace(seen, policy=policy(risk=risk)))
    assert (assessment.outcome, assessment.action) == (outcome, action)


@pytest.mark.parametrize("n", [0, 299])
def test_a_shift_needs_a_baseline_of_300(n: int) -> None:
    assessment = look(Guardrail.SHIFT, facts(BAD, baseline={"allow": n} if n else None))
    assert assessment.outcome is INSUFFICIENT
    assert f"there are {n}" in assessment.sentence


def test_slow_answers_alert_without_rolling_back() -> None:
    slow = {(Metric.LATENCY, "4"): 400}  # between the target and the alert
    assert look(Guardrail.LATENCY, facts(slow)).outcome is BREACH
    assert look(Guardrail.LATENCY_ALERT, facts(slow)).outcome is OK
    assert look(Guardrail.LATENCY_ALERT, facts(BAD)).action is Action.NOTIFY


def test_the_streams_that_act_share_alpha_evenly_and_those_that_notify_have_their_own() -> None:
    usual = {name: threshold_of(name, policy()) for name in (Guardrail.OVERRIDE, *COUNTED)}
    acting = {name for name in usual if policy().action(name) is not Action.NOTIFY}
    assert len(acting) == 5
    assert usual == {name: pytest.approx(500 if name in acting else 100) for name in usual}


def test_a_guardrail_that_is_made_to_act_takes_its_share_of_alpha() -> None:
    acts = policy(guardrails=GuardrailLimits(actions={"shift": Action.HOLD, "error": Action.NOTIFY}))
    more = policy(guardrails=GuardrailLimits(actions={"shift": Action.HOLD}))
    assert threshold_of(Guardrail.SHIFT, acts) == threshold_of(Guardrail.LATENCY, acts) == pytest.approx(500)
    assert threshold_of(Guardrail.ERROR, acts) == pytest.approx(100)
    assert threshold_of(Guardrail.LATENCY, more) == pytest.approx(600)


@pytest.mark.parametrize("guardrail", [name for name in OTHERS if name is not Guardrail.WRONG_ALLOW])
def test_a_dry_run_says_what_it_would_have_done_and_nothing_else_changes(guardrail: Guardrail) -> None:
    dry = policy(guardrails=GuardrailLimits(dry_run=(guardrail.value,)))
    real, told = look(guardrail, facts(BAD)), look(guardrail, facts(BAD, policy=dry))
    assert (real.outcome, told.outcome, told.dry_run, told.raised) == (BREACH, DRY_RUN, True, True)
    assert (told.e_value, told.threshold) == (real.e_value, real.threshold)
    assert told.sentence.startswith(real.sentence)
    done = {Action.ROLLBACK: "rolled back", Action.HOLD: "held the rollout", Action.NOTIFY: "notified"}
    assert told.sentence.endswith(f"it would have {done[told.action]}")


def test_a_dry_run_that_is_fine_is_fine() -> None:
    dry = policy(guardrails=GuardrailLimits(dry_run=("error",)))
    assert look(Guardrail.ERROR, facts(shadow_totals(100), policy=dry)).outcome is OK


def test_a_warning_is_raised_once_in_an_epoch() -> None:
    state, first = advance(Guardrail.OVERRIDE, None, facts({}, labels=labels([True] * 3)))
    _, second = advance(Guardrail.OVERRIDE, state, facts({}, labels=labels([True] * 3)))
    assert [(one.outcome, one.raised) for one in (first, second)] == [(WARNING, True), (WARNING, False)]


@pytest.mark.parametrize("guardrail", [name for name in COUNTED if name is not Guardrail.AGREEMENT_DRIFT])
@pytest.mark.parametrize(("days", "is_stale"), [(2.9, False), (3, True)])
def test_evidence_without_news_is_stale(guardrail: Guardrail, days: float, *, is_stale: bool) -> None:
    seen = facts({metric: n // 400 for metric, n in BAD.items()})
    state, first = advance(guardrail, None, seen)
    later = replace(seen, now=NOW + timedelta(days=days))
    after, assessment = advance(guardrail, state, later)
    assert after == state
    assert assessment.outcome is (STALE if is_stale else first.outcome)
    assert ("nothing new since 2026-11-16T00:00:00.000000Z" in assessment.sentence) is is_stale
    news = {metric: n + (metric[1] in GOOD) for metric, n in later.evidence.totals.items()}
    news |= {("observation", "ok"): 1, ("self", "same"): 1}
    fresh = replace(later, evidence=replace(later.evidence, totals=news))
    assert look(guardrail, fresh, state).outcome is not STALE


def test_a_breach_never_goes_stale() -> None:
    state, _ = advance(Guardrail.ERROR, None, facts(BAD))
    assert look(Guardrail.ERROR, facts(BAD, now=NOW + timedelta(days=30)), state).outcome is BREACH


def test_what_waits_for_a_verdict_is_no_silence() -> None:
    judged, waiting = labels([False] * 20), labels([*[False] * 20, None])
    later = NOW + timedelta(days=5)
    assert look(Guardrail.OVERRIDE, facts({}, labels=judged, now=later)).outcome is STALE
    assert look(Guardrail.OVERRIDE, facts({}, labels=waiting, now=later)).outcome is OK


def test_late_verdicts_are_judged_in_the_order_of_their_decisions() -> None:
    # All overrides are known at once and all agreements late: in order of arrival that is an alarm.
    values = [None, None, None, None, None, None, None, None, None, True] * 30
    waiting = look(Guardrail.OVERRIDE, facts({}, labels=labels(values)))
    assert waiting.outcome is OK
    assert (waiting.n, waiting.pending) == (30, 270)
    arrived = look(Guardrail.OVERRIDE, facts({}, labels=labels(value for value in values if value)))
    assert arrived.outcome is BREACH


@pytest.mark.parametrize(("deadline_ms", "settled"), [(5_000.0, True), (600_000.0, False)])
def test_no_label_is_left_behind_by_one_that_was_decided_after_it(
    deadline_ms: float, *, settled: bool
) -> None:
    slow = policy(deadline_ms=deadline_ms)
    early = Label("d1", to_us(NOW - timedelta(minutes=5)), bad=False, inclusion_probability=1.0)
    state, _ = advance(Guardrail.OVERRIDE, None, facts({}, labels=[early], policy=slow))
    assert (state.watermark == "d1") is settled


@given(seen=st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=80), at=st.integers(0, 79))
def test_more_overrides_never_improve_an_assessment(seen: list[bool | None], at: int) -> None:
    order = [OK, WARNING, BREACH]
    worse = [*seen]
    worse[at % len(seen)] = True
    before = look(Guardrail.OVERRIDE, facts({}, labels=labels(seen)))
    after = look(Guardrail.OVERRIDE, facts({}, labels=labels(worse)))
    if before.outcome is not INSUFFICIENT:
        assert order.index(after.outcome) >= order.index(before.outcome)


@given(n=st.integers(1, 3_000), bad=st.integers(0, 3_000), more=st.integers(1, 50))
def test_more_errors_never_improve_an_assessment(n: int, bad: int, more: int) -> None:
    order = [OK, WARNING, BREACH]
    few, many = min(bad, n), min(bad + more, n)
    before, after = (look(Guardrail.ERROR, facts(shadow_totals(n, errors=errors))) for errors in (few, many))
    assert order.index(after.outcome) >= order.index(before.outcome)


@pytest.mark.parametrize("guardrail", Guardrail)
def test_a_stream_goes_on_from_what_was_written_down(guardrail: Guardrail) -> None:
    seen = facts(shadow_totals(50), labels=labels([True, False]))
    state, _ = advance(guardrail, None, seen)
    later = replace(seen, evidence=evidence(shadow_totals(80, errors=3)), now=NOW + timedelta(hours=1))
    assert advance(guardrail, from_json(to_json(state)), later) == advance(guardrail, state, later)
