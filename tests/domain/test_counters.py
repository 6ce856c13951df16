from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    retracted,
    served_counts,
    verdict_counts,
)
from app.domain.decision import AnsweredBy, Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.routing import Answer, FallbackReason
from app.domain.sampling import Draw, Stratum

LEGACY = LegacyAnswer("rules", Decision.DENY, "default", 0.1)
FAILED = LegacyAnswer("rules", Decision.DENY, None, 0.1, error="no answer")
DRAW = Draw(Stratum.DISAGREEMENT, 2)


def said(outcome: Outcome, *, started: bool = True, cached: bool = False) -> Advisory:
    decision = Decision.ALLOW if outcome in (Outcome.OK, Outcome.UNSURE) else None
    chances = Probabilities(0.8, 0.1, 0.1) if decision else None
    return Advisory("v1", outcome, 900.0, started, decision, chances, cached=cached)


def metrics(counts: tuple[Count, ...]) -> dict[tuple[str, str], int]:
    return {(metric, label): n for metric, label, n in counts}


def test_an_unexposed_decision_is_no_evidence_of_its_epoch() -> None:
    answer = Answer(Decision.ALLOW, AnsweredBy.LEGACY)
    assert decision_counts(answer, phase=Phase.ADVISORY, exposed=False) == (("unexposed", "allow", 1),)
    assert advisory_counts(said(Outcome.OK), LEGACY, exposed=False) == ()


def test_a_fallback_is_counted_where_the_model_should_have_answered() -> None:
    answer = Answer(Decision.DENY, AnsweredBy.LEGACY, FallbackReason.TIMEOUT)
    enforced = metrics(decision_counts(answer, phase=Phase.ENFORCED, exposed=True))
    assert enforced == {
        ("decision", "deny"): 1,
        ("answered", "legacy"): 1,
        ("enforced", "all"): 1,
        ("fallback", "timeout"): 1,
    }
    advisory = metrics(decision_counts(answer, phase=Phase.ADVISORY, exposed=True))
    assert not {"enforced", "fallback"} & {metric for metric, _ in advisory}


def test_an_answer_is_counted_with_its_pair_and_its_latency() -> None:
    assert metrics(advisory_counts(said(Outcome.OK), LEGACY, exposed=True)) == {
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
    assert advisory_counts(advisory, LEGACY, exposed=True) == (("observation", "not_observed", 1),)


@pytest.mark.parametrize("outcome", [Outcome.UNSURE, Outcome.TIMEOUT, Outcome.MALFORMED, Outcome.UNAVAILABLE])
def test_only_an_ok_answer_is_compared(outcome: Outcome) -> None:
    counted = metrics(advisory_counts(said(outcome), LEGACY, exposed=True))
    assert counted["observation", outcome] == 1
    assert not {"pair", "model"} & {metric for metric, _ in counted}


def test_a_failed_legacy_engine_is_no_opinion_to_compare_with() -> None:
    counted = metrics(advisory_counts(said(Outcome.OK), FAILED, exposed=True))
    assert ("model", "allow") in counted
    assert "pair" not in {metric for metric, _ in counted}


def test_a_time_out_counts_as_slower_than_every_limit() -> None:
    counted = metrics(advisory_counts(said(Outcome.TIMEOUT), LEGACY, exposed=True))
    assert counted["latency", str(LAST_BUCKET)] == 1


def test_an_answer_from_memory_is_no_second_observation() -> None:
    assert advisory_counts(said(Outcome.OK, cached=True), LEGACY, exposed=True) == ()


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


@given(
    model=st.none() | st.sampled_from(Decision),
    verdict=st.sampled_from(Decision),
    draw=st.none() | st.builds(Draw, st.sampled_from(Stratum), st.integers(0, 60)),
)
def test_an_undone_verdict_takes_back_all_that_it_added(
    model: Decision | None, verdict: Decision, draw: Draw | None
) -> None:
    counts = verdict_counts(model, verdict, draw)
    total: Counter[tuple[str, str]] = Counter()
    for metric, label, n in (*counts, *retracted(counts)):
        total[metric, label] += n
    assert not any(total.values())


def test_counters_are_plain_texts_and_numbers() -> None:
    everything = (
        *decision_counts(
            Answer(Decision.DENY, AnsweredBy.LEGACY, FallbackReason.UNSURE),
            phase=Phase.ENFORCED,
            exposed=True,
        ),
        *advisory_counts(said(Outcome.OK), LEGACY, exposed=True),
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
