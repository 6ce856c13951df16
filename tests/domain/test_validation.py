"""Are the figures of a validation what the definitions say?"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Advisory, Outcome, Probabilities, Reasoning
from app.domain.decision import Decision
from app.domain.limits import Risk
from app.domain.sequential import lower_bound
from app.domain.situation import Situation, Trust
from app.domain.validation import Case, Result, brier, calibration_error, difference, report

ALLOW, ATTEST, DENY = Decision


def case(name: str = "a", expected: Decision = ALLOW, **changes: Any) -> Case:
    situation = Situation(changes.pop("action", "read"), "member", "ann", Trust(0.8, 0.8, 0.8))
    return Case(name, changes.pop("tags", ("easy",)), situation, expected, "because", **changes)


def said(decision: Decision | None, confidence: float = 0.8, **changes: Any) -> Advisory:
    """An answer whose other labels share the rest, or no answer at all."""
    if decision is None:
        return Advisory("v1", Outcome.TIMEOUT, 100.0)
    rest = (1 - confidence) / 2
    shares = {label.value: confidence if label is decision else rest for label in Decision}
    return Advisory(
        "v1",
        changes.pop("outcome", Outcome.OK),
        changes.pop("latency_ms", 10.0),
        decision=decision,
        probabilities=Probabilities(**shares),
        confidence=confidence,
        **changes,
    )


def result(
    of: Case, advisory: Advisory, *, legacy: Decision = DENY, risk: Risk = Risk.LOW, why: str | None = None
) -> Result:
    return Result(of, risk, legacy, advisory, None if why is None else Reasoning(why))


def test_a_case_passes_by_its_expected_answer_or_one_as_defensible() -> None:
    strict, lenient = case(expected=DENY), case(expected=DENY, accept=frozenset({ATTEST}))
    assert [strict.passes(decision) for decision in Decision] == [False, False, True]
    assert [lenient.passes(decision) for decision in Decision] == [False, True, True]
    assert not lenient.passes(None)


def test_pass_rates_are_told_over_raw_answers_and_over_sure_ones() -> None:
    found = report(
        [
            result(case("a"), said(ALLOW)),
            result(case("b"), said(ALLOW, outcome=Outcome.UNSURE)),
            result(case("c", DENY), said(ALLOW)),
            result(case("d"), said(None)),
        ]
    )
    assert (found["n"], found["passed"], found["pass_rate"]) == (4, 2, 0.5)
    assert found["answered"] == {"rate": 0.5, "n": 2, "passed": 1, "pass_rate": 0.5}
    assert found["unsure"] == 1
    assert found["outcomes"] == {"ok": 2, "unsure": 1, "timeout": 1}
    assert found["lower"] == lower_bound(4, 2, 0.05)
    assert [each["id"] for each in found["failures"]] == ["c", "d"]


def test_a_wrong_allow_is_a_sure_allow_of_what_should_not_be_counted_by_risk() -> None:
    wrong = case("a", DENY)
    found = report(
        [
            result(wrong, said(ALLOW), risk=Risk.HIGH),
            result(wrong, said(ALLOW, outcome=Outcome.UNSURE), risk=Risk.HIGH),
            result(case("b", ATTEST, accept=frozenset({ALLOW})), said(ALLOW), risk=Risk.CRITICAL),
            result(case("c", ATTEST), said(ALLOW), risk=Risk.LOW, legacy=ALLOW),
            result(case("d", ATTEST), said(DENY), risk=Risk.LOW),
        ]
    )
    assert found["wrong_allows"] == {"low": 1, "medium": 0, "high": 1, "critical": 0}
    assert found["legacy"]["wrong_allows"] == {"low": 1, "medium": 0, "high": 0, "critical": 0}


def test_the_legacy_engine_alone_and_the_stricter_of_both_stand_beside() -> None:
    found = report(
        [
            result(case("a", DENY), said(ALLOW), legacy=DENY),
            result(case("b", DENY), said(DENY), legacy=ALLOW),
            result(case("c", ALLOW), said(DENY, outcome=Outcome.UNSURE), legacy=ALLOW),
            result(case("d", ALLOW), said(ALLOW), legacy=ATTEST),
        ]
    )
    assert [found[name]["passed"] for name in ("legacy", "stricter")] == [2, 3]
    assert found["passed"] == 2


def test_the_confusion_has_nine_cells_and_leaves_out_what_was_not_answered() -> None:
    found = report(
        [
            result(case("a", DENY), said(ALLOW)),
            result(case("b", DENY), said(ALLOW)),
            result(case("c", ATTEST), said(ATTEST)),
            result(case("d", ATTEST), said(None)),
        ]
    )["confusion"]
    assert len(found) == 9
    assert {pair: n for pair, n in found.items() if n} == {
        "deny>allow": 2,
        "require_attestation>require_attestation": 1,
    }


def test_results_are_grouped_by_each_of_their_tags_and_by_action() -> None:
    found = report(
        [
            result(case("a", tags=("easy", "night")), said(ALLOW)),
            result(case("b", tags=("hard", "night"), action="deploy"), said(DENY), legacy=ALLOW),
        ]
    )
    assert found["by_tag"]["night"] == {"n": 2, "passed": 1, "pass_rate": 0.5, "legacy": 0.5}
    assert found["by_tag"]["easy"] == {"n": 1, "passed": 1, "pass_rate": 1.0, "legacy": 0.0}
    assert found["by_action"]["deploy"] == {"n": 1, "passed": 0, "pass_rate": 0.0, "legacy": 1.0}


def test_the_calibration_error_by_hand() -> None:
    # Bin (0.9, 1]: one right at 0.95. Bin (0.8, 0.9]: one of two right at 0.85 and 0.9.
    answers = [(0.95, ALLOW), (0.85, DENY), (0.9, ALLOW)]
    results = [result(case(), said(decision, sure)) for sure, decision in answers]
    by_hand = (1 / 3) * abs(1 - 0.95) + (2 / 3) * abs(0.5 - 0.875)
    assert calibration_error(results) == pytest.approx(by_hand)
    assert calibration_error([result(case(), said(None))]) is None


@given(st.lists(st.tuples(st.floats(0.34, 1.0), st.sampled_from(Decision)), min_size=1, max_size=40))
def test_the_calibration_error_is_that_of_numpys_bins(answers: list[tuple[float, Decision]]) -> None:
    found = calibration_error([result(case(), said(decision, sure)) for sure, decision in answers])
    sure = np.array([confidence for confidence, _ in answers])
    right = np.array([decision is ALLOW for _, decision in answers], dtype=float)
    # Where a product like 10 * 0.7 lands beside the edge, the bins themselves differ.
    places = np.ceil(sure * 10) - 1
    error = sum(
        (places == place).mean() * abs(right[places == place].mean() - sure[places == place].mean())
        for place in np.unique(places)
    )
    assert found == pytest.approx(float(error))
    assert 0 <= (found or 0) <= 1


def test_the_brier_score_by_hand() -> None:
    shares = Probabilities(allow=0.7, require_attestation=0.2, deny=0.1)
    one = Advisory("v1", Outcome.OK, 1.0, decision=ALLOW, probabilities=shares, confidence=0.7)
    assert brier([result(case(expected=ALLOW), one)]) == pytest.approx(0.3**2 + 0.2**2 + 0.1**2)
    assert brier([result(case(expected=DENY), one)]) == pytest.approx(0.7**2 + 0.2**2 + 0.9**2)
    assert brier([result(case(), said(ALLOW, 1.0)), result(case(), said(DENY, 1.0))]) == 1.0
    assert brier([result(case(), said(None))]) is None


def test_reasoning_coverage_is_the_share_with_words_of_those_that_were_asked() -> None:
    with_words, empty = (result(case(), said(ALLOW), why=why) for why in ("mainly because of trust", "  "))
    unasked = result(case(), said(ALLOW))
    assert report([with_words, empty, unasked])["reasoning"] == {"coverage": 0.5, "n": 2}
    assert report([unasked])["reasoning"] == {"coverage": None, "n": 0}


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=60))
def test_latency_percentiles_are_by_nearest_rank(values: list[float]) -> None:
    found = report([result(case(), said(ALLOW, latency_ms=value)) for value in values])["latency_ms"]
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        at_most = sum(value <= found[name] for value in values)
        assert at_most >= math.floor(share * len(values))
        assert found[name] == np.quantile(values, share, method="inverted_cdf")


def test_a_difference_names_what_became_better_worse_and_other() -> None:
    expected = {"a": ALLOW, "b": ALLOW, "c": DENY, "d": ALLOW}
    old = {"a": DENY, "b": ALLOW, "c": ALLOW, "d": ALLOW}
    new = {"a": ALLOW, "b": DENY, "c": ATTEST, "d": ALLOW}
    before, after = (
        report([result(case(name, expected[name]), said(answers[name])) for name in expected])
        for answers in (old, new)
    )
    assert difference(before, after) == {"n": 4, "better": ["a"], "worse": ["b"], "other": ["c"]}
    assert difference(after, after) == {"n": 4, "better": [], "worse": [], "other": []}
