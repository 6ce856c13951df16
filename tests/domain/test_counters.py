from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.admission import Claim
from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.counters import (
    LAST_BUCKET,
    Count,
    advisory_counts,
    bucket_edge_ms,
    bucket_middle_ms,
    decision_counts,
    draw_counts,
    latency_bucket,
    self_counts,
    served_counts,
    verdict_counts,
)
from app.domain.decision import AnsweredBy, Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.routing import Answer, FallbackReason
from app.domain.sampling import Draw, Stratum

LEGACY = LegacyAnswer("rules", Decision.DENY, "default", 0.1)
FAILED = LegacyAnswer("rules", Decision.DENY, None, 0.1, error="no answer")
ADMITTED = Claim.ADMITTED
REFUSED = [claim for claim in Claim if claim is not ADMITTED]
DRAW = Draw(Stratum.DISAGREEMENT, 2)


def said(outcome: Outcome, *, started: bool = True, cached: bool = False) -> Advisory:
    decision = Decision.ALLOW if outcome in (Outcome.OK, Outcome.UNSURE) else None
    chances = Probabilities(0.8, 0.1, 0.1) if decision else None
    return Advisory("v1", outcome, 900.0, started, decision, chances, cached=cached)


def metrics(counts: tuple[Count, ...]) -> dict[tuple[str, str], int]:
    return {(metric, label): n for metric, label, n in counts}


def test_an_unexposed_decision_is_no_evidence_of_its_epoch() -> None:
    answer = Answer(Decision.ALLOW, AnsweredBy.LEGACY)
    assert decision_counts(answer, phase=Phase.ADVISORY, exposed=False, claim=ADMITTED) == (
        ("unexposed", "allow", 1),
    )
    assert advisory_counts(said(Outcome.OK), LEGACY, exposed=False, claim=ADMITTED) == ()


def test_a_fallback_is_counted_where_the_model_should_have_answered() -> None:
    answer = Answer(Decision.DENY, AnsweredBy.LEGACY, FallbackReason.TIMEOUT)
    enforced = metrics(decision_counts(answer, phase=Phase.ENFORCED, exposed=True, claim=ADMITTED))
    assert enforced == {
        ("decision", "deny"): 1,
        ("answered", "legacy"): 1,
        ("enforced", "all"): 1,
        ("fallback", "timeout"): 1,
    }
    advisory = metrics(decision_counts(answer, phase=Phase.ADVISORY, exposed=True, claim=ADMITTED))
    assert not {"enforced", "fallback"} & {metric for metric, _ in advisory}


@pytest.mark.parametrize("claim", REFUSED)
def test_a_fallback_that_is_no_evidence_counts_neither_way(claim: Claim) -> None:
    for reason in (None, FallbackReason.UNSURE, FallbackReason.CIRCUIT_OPEN):
        answer = Answer(Decision.DENY, AnsweredBy.LEGACY, reason)
        counted = metrics(decision_counts(answer, phase=Phase.ENFORCED, exposed=True, claim=claim))
        assert counted == {("decision", "deny"): 1, ("answered", "legacy"): 1}


@pytest.mark.parametrize("claim", Claim)
def test_what_the_plane_took_from_the_model_is_always_shown(claim: Claim) -> None:
    answer = Answer(Decision.DENY, AnsweredBy.LEGACY, FallbackReason.KILL_SWITCH)
    counted = metrics(decision_counts(answer, phase=Phase.ENFORCED, exposed=True, claim=claim))
    assert counted["enforced", "all"] == counted["fallback", "kill_switch"] == 1


@pytest.mark.parametrize("claim", REFUSED)
@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.MALFORMED, Outcome.TIMEOUT])
def test_what_is_not_admitted_says_only_why(claim: Claim, outcome: Outcome) -> None:
    counted = advisory_counts(said(outcome), LEGACY, exposed=True, claim=claim)
    assert counted == (("observation", claim.value, 1),)


def test_a_second_answer_is_the_same_or_another_and_a_failed_one_is_neither() -> None:
    first = said(Outcome.OK)
    assert self_counts(first, first) == (("self", "same", 1),)
    assert self_counts(first, replace(first, decision=Decision.DENY)) == (("self", "other", 1),)
    assert self_counts(first, said(Outcome.TIMEOUT)) == ()


def test_an_answer_is_counted_with_its_pair_and_its_latency() -> None:
    assert metrics(advisory_counts(said(Outcome.OK), LEGACY, exposed=True, claim=ADMITTED)) == {
        ("observation", "ok"): 1,
        ("model", "allow"): 1,
        ("pair", "deny>allow"): 1,
        ("latency", str(latency_bucket(900.0))): 1,
    }


@pytest.mark.parametrize(
    "advisory",
    [
        pytest.param(None, id="not sampled"),
        pytest.param(said(Outcome.OVERLOADED), id="shed"),
        pytest.param(said(Outcome.OVERSIZE), id="too long"),
        pytest.param(said(Outcome.UNAVAILABLE, started=False), id="no worker"),
        pytest.param(said(Outcome.TIMEOUT, started=False), id="expired while waiting"),
    ],
)
def test_what_was_never_started_is_not_observed_and_no_error(advisory: Advisory | None) -> None:
    assert advisory_counts(advisory, LEGACY, exposed=True, claim=ADMITTED) == (
        ("observation", "not_observed", 1),
    )


@pytest.mark.parametrize("outcome", [Outcome.UNSURE, Outcome.TIMEOUT, Outcome.MALFORMED, Outcome.UNAVAILABLE])
def test_only_an_ok_answer_is_compared(outcome: Outcome) -> None:
    counted = metrics(advisory_counts(said(outcome), LEGACY, exposed=True, claim=ADMITTED))
    assert counted["observation", outcome] == 1
    assert not {"pair", "model"} & {metric for metric, _ in counted}


def test_a_failed_legacy_engine_is_no_opinion_to_compare_with() -> None:
    counted = metrics(advisory_counts(said(Outcome.OK), FAILED, exposed=True, claim=ADMITTED))
    assert ("model", "allow") in counted
    assert "pair" not in {metric for metric, _ in counted}


def test_a_time_out_counts_as_slower_than_every_limit() -> None:
    counted = metrics(advisory_counts(said(Outcome.TIMEOUT), LEGACY, exposed=True, claim=ADMITTED))
    assert counted["latency", str(LAST_BUCKET)] == 1


def test_an_answer_from_memory_is_no_second_observation() -> None:
    assert advisory_counts(said(Outcome.OK, cached=True), LEGACY, exposed=True, claim=ADMITTED) == ()


def test_only_a_drawn_verdict_counts_for_the_override_rate() -> None:
    assert metrics(verdict_counts(Decision.DENY, Decision.ALLOW, DRAW)) == {
        ("reviewed", "disagreement:2"): 1,
        ("overridden", "disagreement:2"): 1,
    }
    assert verdict_counts(Decision.DENY, Decision.ALLOW, None) == ()
    assert draw_counts(DRAW) == (("drawn", "disagreement:2", 1),)


def test_a_wrong_allow_counts_from_wherever_it_comes() -> None:
    assert verdict_counts(Decision.ALLOW, Decision.DENY, None) == (("wrong_allow", "all", 1),)
    drawn = metrics(verdict_counts(Decision.ALLOW, Decision.REQUIRE_ATTESTATION, DRAW))
    assert drawn["wrong_allow", "all"] == drawn["reviewed_allow", "all"] == 1


def test_counters_are_plain_texts_and_numbers() -> None:
    everything = (
        *decision_counts(
            Answer(Decision.DENY, AnsweredBy.LEGACY, FallbackReason.UNSURE),
            phase=Phase.ENFORCED,
            exposed=True,
            claim=ADMITTED,
        ),
        *advisory_counts(said(Outcome.OK), LEGACY, exposed=True, claim=ADMITTED),
        *verdict_counts(Decision.ALLOW, Decision.DENY, DRAW),
        *draw_counts(DRAW),
        *served_counts(5),
    )
    assert all(
        type(metric) is str and type(label) is str and type(n) is int for metric, label, n in everything
    )


@given(latency_ms=st.floats(5, 300_000))
def test_a_latency_lies_in_its_bucket_close_to_the_middle(latency_ms: float) -> None:
    k = latency_bucket(latency_ms)
    assert bucket_edge_ms(k - 1) * (1 - 1e-12) <= latency_ms <= bucket_edge_ms(k) * (1 + 1e-12)
    assert bucket_middle_ms(k) == pytest.approx(latency_ms, rel=0.0443)


@pytest.mark.parametrize(
    ("latency_ms", "bucket"), [(0.0, -80), (1.0, -80), (5_000.0, 0), (5_000.1, 1), (1e9, 48)]
)
def test_the_buckets_end_somewhere(latency_ms: float, bucket: int) -> None:
    assert latency_bucket(latency_ms) == bucket
