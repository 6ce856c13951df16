from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.circumstance import OtherRollout, Surroundings
from app.domain.clock import to_us
from app.domain.condition import Condition, GateOutcome, worst
from app.domain.counters import Metric
from app.domain.evidence import Evidence, unreadable
from app.domain.gate import Gate, GateContext, assess_gate, to_wire, try_gate
from app.domain.limits import GateLimits, Requirement, Risk
from app.domain.phase import Phase
from app.domain.proofs import Validated
from app.domain.rollout import Investigation, RolloutPolicy, RolloutState
from tests.domain.making import NOW, START, evidence, policy, reviewed_totals, shadow_totals, state

PASS, INSUFFICIENT, FAIL, ERROR = GateOutcome
GOOD = evidence({**shadow_totals(), **reviewed_totals(400)})
ADVISED = state(phase=Phase.ADVISORY)


def judged(
    seen: Evidence = GOOD,
    *,
    to: Phase = Phase.ADVISORY,
    of: RolloutPolicy | None = None,
    at: RolloutState | None = None,
    context: GateContext | None = None,
) -> Gate:
    return assess_gate(of or policy(), at or state(), seen, context or seeing(), to=to, now=NOW)


def seeing(**more: Any) -> GateContext:
    """A plane in which nothing hinders a promotion, but for what is said."""
    return replace(GateContext(latest_at=NOW), **more)


def one(gate: Gate, name: str) -> Condition:
    return next(condition for condition in gate.conditions if condition.name == name)


def asking(**limits: Any) -> RolloutPolicy:
    """A policy whose gate to enforced asks for this alone."""
    return policy(gates={Phase.ENFORCED: GateLimits(**limits)})


@pytest.mark.parametrize("to", [Phase.ADVISORY, Phase.ENFORCED])
def test_good_evidence_passes_and_says_so(to: Phase) -> None:
    gate = judged(to=to)
    assert gate.outcome is PASS
    assert {condition.outcome for condition in gate.conditions} == {PASS}
    assert gate.sentence == f"ready for {to}: all {len(gate.conditions)} conditions hold"


@pytest.mark.parametrize("to", [Phase.ADVISORY, Phase.ENFORCED])
@pytest.mark.parametrize("risk", Risk)
def test_no_evidence_never_promotes(to: Phase, risk: Risk) -> None:
    gate = judged(evidence({}, days=0), to=to, of=policy(risk=risk))
    assert gate.outcome is INSUFFICIENT
    assert gate.sentence.startswith(f"not yet ready for {to}: ")


@given(
    observed=st.integers(0, 30),
    reviewed=st.integers(0, 60),
    days=st.integers(0, 15),
    risk=st.sampled_from(Risk),
)
def test_insufficient_evidence_never_promotes(observed: int, reviewed: int, days: int, risk: Risk) -> None:
    seen = evidence({**shadow_totals(observed), **reviewed_totals(reviewed)}, days=days)
    for to in (Phase.ADVISORY, Phase.ENFORCED):
        assert judged(seen, to=to, of=policy(risk=risk)).outcome is not PASS


@pytest.mark.parametrize(
    "limits",
    [pytest.param(None, id="no gate"), pytest.param(GateLimits(), id="a gate that asks for nothing")],
)
def test_a_gate_without_conditions_is_shut(limits: GateLimits | None) -> None:
    gates = {} if limits is None else {Phase.ADVISORY: limits}
    assert judged(of=policy(gates=gates)).outcome is ERROR


def test_evidence_that_cannot_be_read_is_an_error_and_never_passes() -> None:
    seen = unreadable("read", "v1", epoch=1, epoch_started_at=START, problem="the database is away")
    gate = judged(seen)
    assert gate.outcome is ERROR
    assert "the database is away" in gate.sentence


@pytest.mark.parametrize(
    ("disagreed", "outcome"),
    [pytest.param(100, PASS), pytest.param(190, INSUFFICIENT), pytest.param(400, FAIL)],
)
def test_agreement_needs_proof_either_way(disagreed: int, outcome: GateOutcome) -> None:
    condition = one(judged(evidence(shadow_totals(2_000, disagreed=disagreed))), "agreement")
    assert condition.outcome is outcome
    assert condition.value is not None
    assert condition.bound is not None
    assert condition.bound < condition.value == 1 - disagreed / 2_000
    assert (condition.bound > 0.90) is (outcome is PASS)


def test_a_condition_tells_its_figures_in_a_sentence() -> None:
    condition = one(judged(evidence(shadow_totals(100, disagreed=5))), "agreement")
    assert condition.sentence.startswith("agreement 95 % of 100 compared, lower bound 8")
    assert condition.sentence.endswith(f", needs above 90 %: {condition.needed} more compared decisions")


def test_agreement_with_a_shown_legacy_answer_is_insufficient_however_high() -> None:
    condition = one(judged(evidence(shadow_totals(5_000), independent=False)), "agreement")
    assert condition.outcome is INSUFFICIENT
    assert "not independent" in condition.sentence


@pytest.mark.parametrize(
    ("errors", "outcome"), [pytest.param(2, PASS), pytest.param(18, INSUFFICIENT), pytest.param(60, FAIL)]
)
def test_errors_need_proof_either_way(errors: int, outcome: GateOutcome) -> None:
    assert one(judged(evidence(shadow_totals(2_000, errors=errors))), "error").outcome is outcome


@pytest.mark.parametrize(
    ("late", "outcome"), [pytest.param(50, PASS), pytest.param(95, INSUFFICIENT), pytest.param(200, FAIL)]
)
def test_latency_needs_proof_that_one_in_twenty_is_late_at_most(late: int, outcome: GateOutcome) -> None:
    condition = one(judged(evidence(shadow_totals(2_000, late=late))), "latency_p95")
    assert condition.outcome is outcome
    assert (condition.bound is not None and condition.bound <= 5_000) is (outcome is PASS)


@pytest.mark.parametrize(
    ("overridden", "outcome"), [pytest.param(4, PASS), pytest.param(18, INSUFFICIENT), pytest.param(60, FAIL)]
)
def test_overrides_need_proof_either_way(overridden: int, outcome: GateOutcome) -> None:
    gate = judged(evidence(reviewed_totals(400, overridden=overridden)), to=Phase.ENFORCED, at=ADVISED)
    assert one(gate, "override").outcome is outcome


def test_so_many_reviews_must_be_judged_as_the_policy_says() -> None:
    of = asking(reviewed_at_least=100)
    few = one(judged(evidence(reviewed_totals(99)), to=Phase.ENFORCED, of=of), "reviewed")
    assert (few.outcome, few.needed) == (INSUFFICIENT, 1)
    assert judged(evidence(reviewed_totals(100)), to=Phase.ENFORCED, of=of).outcome is PASS


@pytest.mark.parametrize(("drawn", "outcome"), [(444, PASS), (445, INSUFFICIENT)])
def test_nine_in_ten_draws_must_be_judged(drawn: int, outcome: GateOutcome) -> None:
    gate = judged(evidence(reviewed_totals(400, drawn=drawn)), to=Phase.ENFORCED)
    assert one(gate, "reviews_judged").outcome is outcome


@pytest.mark.parametrize("risk", [Risk.HIGH, Risk.CRITICAL])
@pytest.mark.parametrize(("allows", "outcome"), [(298, INSUFFICIENT), (299, PASS)])
def test_high_risk_needs_299_judged_allows_without_one_wrong(
    risk: Risk, allows: int, outcome: GateOutcome
) -> None:
    of = policy(risk=risk)
    gate = judged(evidence(reviewed_totals(400, allows=allows)), to=Phase.ENFORCED, of=of)
    assert one(gate, "wrong_allows").outcome is outcome
    assert one(gate, "wrong_allows").needed == 299 - allows


def test_one_wrong_allow_is_enough_to_fail_on_high_risk() -> None:
    seen = evidence(reviewed_totals(5_000, overridden=1, allows=5_000, wrong=1))
    gate = judged(seen, to=Phase.ENFORCED, of=policy(risk=Risk.HIGH))
    assert gate.outcome is FAIL
    assert "1 wrong allow confirmed among 5000 judged allows" in gate.sentence


@pytest.mark.parametrize(("wrong", "outcome"), [(0, PASS), (1, FAIL)])
def test_advisory_on_high_risk_needs_no_confirmed_wrong_allow_but_no_reviews_either(
    wrong: int, outcome: GateOutcome
) -> None:
    seen = evidence(shadow_totals() | {(Metric.WRONG_ALLOW, "all"): wrong})
    gate = judged(seen, to=Phase.ADVISORY, of=policy(risk=Risk.HIGH))
    assert (gate.outcome, one(gate, "wrong_allows").outcome) == (outcome, outcome)


def test_on_low_risk_wrong_allows_are_a_condition_only_where_the_policy_says_so() -> None:
    seen = evidence(reviewed_totals(400, overridden=1, allows=400, wrong=1))
    assert judged(seen, to=Phase.ENFORCED, at=ADVISED).outcome is PASS
    strict = asking(override_below=0.05, wrong_allow_below=0.02)
    assert judged(seen, to=Phase.ENFORCED, at=ADVISED, of=strict).outcome is FAIL


def validation_of(found: Validated | str | None) -> Condition:
    context = seeing(validation=found)
    return one(judged(to=Phase.ENFORCED, of=asking(validation_above=0.95), context=context), "validation")


@pytest.mark.parametrize(
    ("passed", "outcome"), [pytest.param(58, PASS), pytest.param(57, FAIL, id="at it"), pytest.param(0, FAIL)]
)
def test_validation_must_lie_above_the_limit(passed: int, outcome: GateOutcome) -> None:
    found = validation_of(Validated(60, passed / 60, 1, current=True))
    assert found.outcome is outcome
    assert found.sentence.endswith(" of 60, 1 wrong allows, needs above 95 %")


@pytest.mark.parametrize(
    "found", [None, Validated(60, 1.0, 0, current=False)], ids=["none", "of other suites"]
)
def test_without_a_validation_of_todays_suites_there_is_none(found: Validated | None) -> None:
    condition = validation_of(found)
    assert condition.outcome is INSUFFICIENT
    assert condition.sentence.endswith("run phasegate validate v1 --record")


def test_suites_that_cannot_be_read_never_pass() -> None:
    condition = validation_of("core.jsonl is away")
    assert (condition.outcome, "core.jsonl is away" in condition.sentence) == (ERROR, True)


def test_a_gate_that_does_not_ask_for_a_validation_does_not_miss_it() -> None:
    assert "validation" not in {condition.name for condition in judged(to=Phase.ENFORCED).conditions}


def test_soak_waits_for_the_days_that_the_policy_says() -> None:
    condition = one(judged(evidence(shadow_totals(), days=13)), "soak")
    assert condition.outcome is INSUFFICIENT
    assert (condition.value, condition.limit, condition.eta_s) == (13.0, 14, 86_400.0)
    assert condition.sentence == "soak 13 days of 14 days: about 1 day more"


def case(*, closed: bool) -> Investigation:
    end = NOW - timedelta(days=3) if closed else None
    return Investigation("i1", NOW - timedelta(days=5), "v1", closed_at=end)


@pytest.mark.parametrize(
    ("closed", "days", "outcome"),
    [
        pytest.param(False, 30.0, FAIL, id="open"),
        pytest.param(True, 6.9, INSUFFICIENT, id="observed too briefly since"),
        pytest.param(True, 7.0, PASS, id="closed and observed"),
    ],
)
def test_after_a_rollback_promotion_waits_for_its_explanation_and_a_week(
    *, closed: bool, days: float, outcome: GateOutcome
) -> None:
    context = seeing(observed_days_since_closed=days)
    gate = judged(at=state(investigation=case(closed=closed)), context=context)
    assert gate.outcome is one(gate, "investigation").outcome is outcome


def test_a_hold_freezes_promotions() -> None:
    gate = judged(at=state(held=True, hold_reason="a strange week"))
    assert gate.outcome is FAIL
    assert "held: a strange week" in gate.sentence


def test_nothing_is_promoted_under_the_kill_switch() -> None:
    assert judged(context=seeing(around=Surroundings(kill_switch=True))).outcome is FAIL


@pytest.mark.parametrize(
    ("ago", "epoch_ago", "outcome"),
    [
        pytest.param(timedelta(days=3), timedelta(days=15), ERROR, id="inside the epoch"),
        pytest.param(timedelta(hours=23), timedelta(hours=1), ERROR, id="before a young epoch, today"),
        pytest.param(timedelta(days=3), timedelta(days=2), PASS, id="before the epoch, long ago"),
    ],
)
def test_a_clock_that_jumped_makes_the_gate_an_error(
    ago: timedelta, epoch_ago: timedelta, outcome: GateOutcome
) -> None:
    context = seeing(around=Surroundings(clock_jump_us=to_us(NOW - ago)))
    gate = judged(at=state(epoch_started_at=NOW - epoch_ago), context=context)
    assert gate.outcome is outcome


REQUIRING = policy(requires=(Requirement("write", enforced_days=3, override_below=0.10),))


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        pytest.param(None, ERROR, id="unknown"),
        pytest.param(OtherRollout(Phase.ADVISORY, GOOD), INSUFFICIENT, id="not enforced"),
        pytest.param(
            OtherRollout(Phase.ENFORCED, evidence(reviewed_totals(400), days=2)),
            INSUFFICIENT,
            id="too briefly",
        ),
        pytest.param(
            OtherRollout(Phase.ENFORCED, evidence(reviewed_totals(400, overridden=80))), FAIL, id="overridden"
        ),
        pytest.param(OtherRollout(Phase.ENFORCED, evidence({})), INSUFFICIENT, id="nothing judged"),
        pytest.param(OtherRollout(Phase.ENFORCED, GOOD), PASS, id="has held"),
    ],
)
def test_the_tier_below_must_have_held(other: OtherRollout | None, outcome: GateOutcome) -> None:
    context = seeing(others={"write": other} if other else {})
    gate = judged(to=Phase.ENFORCED, of=REQUIRING, context=context)
    assert one(gate, "requires:write").outcome is gate.outcome is outcome
    assert judged(of=REQUIRING, context=context).outcome is PASS  # only enforcement waits for it


def test_error_is_worse_than_fail_and_fail_worse_than_insufficient() -> None:
    assert worst([PASS, FAIL, INSUFFICIENT]) is FAIL
    assert worst([FAIL, ERROR, PASS]) is ERROR
    assert worst([]) is INSUFFICIENT


def test_the_wait_is_told_at_the_present_traffic() -> None:
    context = seeing(pace={Metric.PAIR: 50.0})
    condition = one(judged(evidence(shadow_totals(20)), context=context), "agreement")
    assert condition.needed is not None
    assert condition.eta_s == pytest.approx(condition.needed / 50 * 86_400)
    assert one(judged(evidence(shadow_totals(20))), "agreement").eta_s is None


@given(n=st.integers(1, 2_000), share=st.floats(0, 1), risk=st.sampled_from(Risk), more=st.integers(1, 50))
def test_more_overrides_never_improve_a_gate(n: int, share: float, risk: Risk, more: int) -> None:
    few = int(n * share)
    many = min(few + more, n)
    order = tuple(GateOutcome).index
    of = policy(risk=risk)
    better, worse = (
        judged(evidence(reviewed_totals(n, overridden=overridden)), to=Phase.ENFORCED, of=of)
        for overridden in (few, many)
    )
    # A proof that the rate is too high outweighs missing evidence, so the order is that of `GateOutcome`.
    assert order(worse.outcome) >= order(better.outcome)


def test_the_wire_form_has_every_member_that_others_rely_on() -> None:
    wire = to_wire(judged())
    assert wire.keys() == {"rollout", "to", "outcome", "sentence", "conditions"}
    for condition in wire["conditions"]:
        assert condition.keys() == {
            "name", "outcome", "value", "bound", "limit", "n", "needed", "eta", "sentence",
        }  # fmt: skip


def test_bare_counts_can_be_tried() -> None:
    trial = try_gate(300, 2, limit=0.05, alpha=0.05)
    assert trial.outcome is PASS
    assert trial.upper == pytest.approx(0.0292, abs=1e-4)
    assert try_gate(300, 14, limit=0.05, alpha=0.05).outcome is INSUFFICIENT
    assert try_gate(300, 60, limit=0.05, alpha=0.05).outcome is FAIL
    assert try_gate(0, 0, limit=0.05, alpha=0.05).outcome is INSUFFICIENT
    with pytest.raises(ValueError, match="not a count"):
        try_gate(3, 4, limit=0.05, alpha=0.05)


def test_every_metric_of_a_gate_is_one_that_the_ledger_counts() -> None:
    assert {metric for metric, _ in GOOD.totals} <= {metric.value for metric in Metric}
