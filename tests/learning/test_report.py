"""Is one engine better than another, by the same held-out examples?"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from app.learning.report import (
    NOTHING,
    SIGNIFICANCE,
    Answers,
    answered,
    calibration_error,
    measures,
    p_value,
    paired,
    report_of,
    summary,
    threshold,
    verdict,
)

DENY, ATTEST, ALLOW = 0, 1, 2


def sure(labels: list[int], confidence: float = 0.9) -> Answers:
    shares = np.full((len(labels), 3), (1 - confidence) / 2)
    shares[np.arange(len(labels)), labels] = confidence
    return Answers.of(shares)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_exact(won: int, lost: int) -> None:
    expected = binomtest(won, won + lost, alternative="greater").pvalue if won + lost else 1.0
    assert p_value(won, lost) == pytest.approx(expected)


@given(st.integers(0, 40), st.integers(0, 40))
def test_one_more_win_is_never_worse_evidence(won: int, lost: int) -> None:
    assert p_value(won + 1, lost) <= p_value(won, lost)
    assert p_value(won, lost + 1) >= p_value(won, lost)


@pytest.mark.parametrize(
    ("won", "lost", "better"), [(0, 0, False), (3, 0, False), (4, 0, True), (7, 3, False)]
)
def test_few_wins_are_no_proof(won: int, lost: int, better: bool) -> None:  # noqa: FBT001
    assert (p_value(won, lost) <= SIGNIFICANCE) is better


def test_only_examples_on_which_exactly_one_is_right_count() -> None:
    truth = np.array([DENY, DENY, ALLOW, ATTEST])
    child, other = sure([DENY, DENY, DENY, DENY]), sure([DENY, ALLOW, ALLOW, DENY])
    found = paired(child, other, truth)
    assert (found["only_child_right"], found["only_other_right"]) == (1, 1)


def test_measures_say_what_was_wrongly_allowed() -> None:
    truth = np.array([DENY, DENY, ATTEST, ALLOW, ALLOW])
    found = measures(sure([ALLOW, DENY, ALLOW, ALLOW, DENY]), truth, np.arange(5))
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert (found["wrong_allows"], found["denies_allowed"], found["true_denies"]) == (2, 1, 2)
    assert found["allows_kept"] == pytest.approx(1 / 2)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 0 + 2 / 5) / 3)


def test_an_engine_without_probabilities_has_no_calibration() -> None:
    found = measures(Answers(np.array([DENY])), np.array([DENY]), np.array([0]))
    assert (found["ece"], found["answered_at_95"]) == (None, None)


def test_one_who_is_right_as_often_as_said_is_calibrated() -> None:
    truth = np.array([DENY] * 9 + [ALLOW])
    assert calibration_error(sure([DENY] * 10, 0.9).shares, truth) == pytest.approx(0)  # type: ignore[arg-type]
    assert calibration_error(sure([DENY] * 10, 0.7).shares, truth) == pytest.approx(0.2)  # type: ignore[arg-type]


def _shares(confidence: list[float]) -> np.ndarray:
    return np.array([[each, 1 - each, 0.0] for each in confidence])


def test_the_threshold_is_the_lowest_that_is_right_often_enough() -> None:
    confidence = [0.9] * 60 + [0.8] * 40 + [0.6] * 100
    truth = np.array([DENY] * 97 + [ALLOW] * 103)  # 3 of the first 100 are wrong, and all of the rest
    assert threshold(_shares(confidence), truth) == pytest.approx(0.8)


def test_equal_confidence_is_answered_together_or_not_at_all() -> None:
    truth = np.array([DENY] * 60 + [ALLOW] * 40)
    assert threshold(_shares([0.9] * 100), truth) == NOTHING


@pytest.mark.parametrize("count", [0, 5, 19])
def test_a_handful_of_right_answers_is_luck(count: int) -> None:
    assert threshold(_shares([0.9] * count).reshape(-1, 3), np.zeros(count, np.int64)) == NOTHING


def test_the_threshold_of_an_example_comes_from_the_other_folds() -> None:
    confidence, truth = [0.9] * 40 + [0.7] * 40, np.array([DENY] * 40 + [ALLOW] * 40)
    fold = np.array([0, 1] * 40)
    assert answered(_shares(confidence), truth, fold).tolist() == [True] * 40 + [False] * 40


def judged(child: list[int], parent: list[int], legacy: list[int], truth: list[int]) -> dict[str, Any]:
    return report_of(
        truth=np.array(truth),
        child=sure(child),
        parent=sure(parent),
        legacy=sure(legacy),
        fold=np.arange(len(truth)) % 5,
        facts={"examples": len(truth), "groups": len(truth)},
    )


def test_better_than_both_is_better() -> None:
    truth = [DENY] * 10 + [ALLOW] * 10
    report = judged(truth, [DENY] * 20, [ALLOW] * 20, truth)
    assert report["better"] is True
    assert verdict(report) == []
    assert any("accuracy 1.000" in line for line in summary(report))


def test_better_than_one_alone_is_not_better() -> None:
    truth = [DENY] * 10 + [ALLOW] * 10
    report = judged(truth, [DENY] * 20, truth, truth)
    assert report["better"] is False
    assert [reason.partition(":")[0] for reason in verdict(report)] == [
        "no better than the legacy engine alone"
    ]


def test_more_denies_allowed_than_both_is_not_better() -> None:
    truth = [DENY] * 10 + [ATTEST] * 20
    others = [DENY] * 10 + [DENY] * 20
    child = [ALLOW] + [DENY] * 9 + [ATTEST] * 20
    assert verdict(judged(child, others, others, truth)) == [
        "more true denies allowed than both its parent and the legacy engine"
    ]
