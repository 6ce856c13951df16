import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.counters import Metric
from app.domain.evidence import from_totals, to_wire, unreadable
from tests.domain.making import START, evidence, reviewed_totals, shadow_totals

SHAPE = {
    "rollout", "version", "epoch_started_at", "decisions", "observed", "agreement", "confusion", "overrides",
    "errors", "latency_ms", "distribution", "fallbacks",
}  # fmt: skip


def test_the_wire_form_has_every_member_that_others_rely_on() -> None:
    wire = to_wire(evidence(shadow_totals(100, disagreed=4, errors=2, late=1)), alpha=0.05)
    assert wire.keys() >= SHAPE
    assert wire["agreement"].keys() >= {"n", "agreed", "rate", "lower", "independent"}
    assert wire["overrides"].keys() >= {"reviewed", "overridden", "rate", "upper"}
    assert wire["errors"].keys() >= {"n", "bad", "rate", "by_outcome"}
    assert wire["latency_ms"].keys() == {"p50", "p95", "p99"}
    assert wire["epoch_started_at"] == "2026-11-01T00:00:00.000000Z"


def test_the_figures_are_those_of_the_counters() -> None:
    wire = to_wire(evidence(shadow_totals(100, disagreed=4, errors=2)), alpha=0.05)
    assert (wire["decisions"], wire["observed"]) == (100, 100)
    assert (wire["agreement"]["n"], wire["agreement"]["agreed"]) == (98, 94)
    assert wire["agreement"]["lower"] < wire["agreement"]["rate"] == pytest.approx(94 / 98)
    assert wire["confusion"] == {"allow>allow": 94, "deny>allow": 4}
    assert (wire["errors"]["bad"], wire["errors"]["rate"]) == (2, 0.02)
    assert wire["distribution"] == {"allow": 98, "require_attestation": 0, "deny": 0}


def test_without_data_every_rate_and_bound_is_unknown() -> None:
    wire = to_wire(evidence({}), alpha=0.05)
    unknown = [
        *(wire["agreement"][name] for name in ("rate", "lower")),
        *(wire["overrides"][name] for name in ("rate", "upper")),
        wire["errors"]["rate"],
        *wire["latency_ms"].values(),
    ]
    assert set(unknown) == {None}


def test_agreement_with_a_shown_legacy_answer_is_marked_as_not_independent() -> None:
    wire = to_wire(evidence(shadow_totals(10), independent=False), alpha=0.05)
    assert wire["agreement"]["independent"] is False


def test_what_was_not_observed_is_no_observation_and_no_error() -> None:
    seen = evidence({**shadow_totals(10, errors=1), (Metric.OBSERVATION, "not_observed"): 90})
    assert (seen.observed, seen.errors) == (10, 1)


def test_unsure_is_an_observation_but_no_error() -> None:
    seen = evidence({(Metric.OBSERVATION, "unsure"): 3, (Metric.OBSERVATION, "malformed"): 1})
    assert (seen.observed, seen.errors) == (4, 1)


def test_a_kill_switch_and_a_stale_plane_are_no_fallbacks_of_the_model() -> None:
    seen = evidence(
        {
            (Metric.ENFORCED, "all"): 100,
            (Metric.FALLBACK, "kill_switch"): 30,
            (Metric.FALLBACK, "stale_state"): 10,
            (Metric.FALLBACK, "timeout"): 6,
        }
    )
    assert (seen.fell_back, seen.should_have_answered) == (6, 60)


def test_only_days_with_twenty_observations_are_soak() -> None:
    seen = from_totals(
        "read",
        "v1",
        epoch=1,
        epoch_started_at=START,
        totals={},
        days={1: (20, 43_200), 2: (19, 86_400), 3: (500, 86_400)},
    )
    assert seen.soak_days == 1.5


def test_percentiles_are_within_a_bucket_of_the_truth() -> None:
    seen = evidence({(Metric.LATENCY, str(k)): 1 for k in range(-80, 20)})
    assert seen.percentile_ms(0.5) == pytest.approx(5_000 * 2 ** (-31.5 / 8), rel=0.05)
    assert seen.percentile_ms(0.99) == pytest.approx(5_000 * 2 ** (17.5 / 8), rel=0.05)


def test_latency_at_the_limit_is_not_above_it() -> None:
    seen = evidence({(Metric.LATENCY, "0"): 5, (Metric.LATENCY, "1"): 7, (Metric.LATENCY, "48"): 2})
    assert seen.above_ms(5_000) == 9
    assert seen.above_ms(300_000) == 2


def test_the_override_rate_is_estimated_out_of_both_strata() -> None:
    seen = evidence(
        {
            (Metric.PAIR, "allow>allow"): 900,
            (Metric.PAIR, "deny>allow"): 100,
            (Metric.DRAWN, "agreement:8"): 60,
            (Metric.REVIEWED, "agreement:8"): 60,
            (Metric.DRAWN, "disagreement:2"): 50,
            (Metric.REVIEWED, "disagreement:2"): 50,
            (Metric.OVERRIDDEN, "disagreement:2"): 25,
        }
    )
    assert seen.override_rate == pytest.approx(0.05)
    assert {(group.n, group.bad): group.weight for group in seen.override_groups} == {
        (60, 0): 1.0,
        (50, 25): pytest.approx(1 / 8),
    }


@pytest.mark.parametrize(
    "totals",
    [
        pytest.param({(Metric.OBSERVATION, "ok"): -1}, id="negative"),
        pytest.param(reviewed_totals(10, overridden=11), id="more overridden than reviewed"),
        pytest.param(reviewed_totals(10, drawn=9), id="more reviewed than drawn"),
        pytest.param({(Metric.FALLBACK, "timeout"): 1}, id="more fallbacks than decisions"),
        pytest.param({(Metric.LATENCY, "slow"): 1}, id="no bucket"),
        pytest.param({(Metric.REVIEWED, "stratum"): 1}, id="no draw"),
    ],
)
def test_counters_that_cannot_be_true_are_not_read(totals: dict[tuple[Metric, str], int]) -> None:
    seen = evidence(totals)
    assert seen.problem
    assert seen.totals == {}
    assert to_wire(seen, alpha=0.05)["problem"] == seen.problem


def test_evidence_that_could_not_be_fetched_says_why() -> None:
    seen = unreadable("read", "v1", epoch=1, epoch_started_at=START, problem="the database is away")
    assert seen.problem == "the database is away"


@given(n=st.integers(1, 500), bad=st.data())
def test_the_bounds_lie_on_the_cautious_side(n: int, bad: st.DataObject) -> None:
    overridden = bad.draw(st.integers(0, n))
    wire = to_wire(evidence(reviewed_totals(n, overridden=overridden)), alpha=0.05)
    assert wire["overrides"]["upper"] >= wire["overrides"]["rate"] == overridden / n
