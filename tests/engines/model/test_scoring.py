import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.scoring import read_labels
from app.engines.model.version import Limits

LIMITS = Limits(margin_at_least=0.25, confidence_at_least=0.5, coverage_at_least=0.1, max_situation_tokens=64)


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=8))
def test_probabilities_are_a_distribution_over_the_labels_and_coverage_their_share(
    logits: list[float],
) -> None:
    scores = read_labels(np.array(logits), [5, 2, 7], prompt_tokens=9)
    shares = scores.probabilities
    assert math.isclose(shares.allow + shares.require_attestation + shares.deny, 1)
    whole = sum(math.exp(one) for one in logits)
    assert math.isclose(scores.coverage, sum(math.exp(logits[at]) for at in (5, 2, 7)) / whole, rel_tol=1e-9)
    assert math.isclose(
        shares.deny * scores.coverage, math.exp(logits[5]) / whole, rel_tol=1e-9, abs_tol=1e-300
    )


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=8), st.floats(0.5, 20))
def test_a_temperature_moves_neither_the_order_of_the_labels_nor_their_coverage(
    logits: list[float], temperature: float
) -> None:
    plain = read_labels(np.array(logits), [5, 2, 7], prompt_tokens=9)
    warm = read_labels(np.array(logits), [5, 2, 7], prompt_tokens=9, temperature=temperature)
    odds = [math.exp((logits[at] - max(logits)) / temperature) for at in (5, 2, 7)]
    assert math.isclose(warm.probabilities.deny, odds[0] / sum(odds), rel_tol=1e-6, abs_tol=1e-12)
    assert warm.coverage == plain.coverage


def test_a_margin_within_the_measured_noise_is_unsure() -> None:
    noisy = Limits(margin_at_least=0.1, noise=0.3, coverage_at_least=0.1, max_situation_tokens=64)
    assert noisy.judge(Probabilities(0.6, 0.35, 0.05), 0.5) is Outcome.UNSURE
    assert noisy.judge(Probabilities(0.7, 0.25, 0.05), 0.5) is Outcome.OK


def test_a_tie_goes_to_the_severe_label() -> None:
    assert read_labels(np.zeros(4), [0, 1, 2], prompt_tokens=1).decision is Decision.DENY


@pytest.mark.parametrize(
    ("shares", "coverage", "outcome"),
    [
        ((0.8, 0.1, 0.1), 0.5, Outcome.OK),
        ((0.8, 0.1, 0.1), 0.09, Outcome.MALFORMED),
        ((0.55, 0.35, 0.1), 0.5, Outcome.UNSURE),
        ((0.49, 0.2, 0.31), 0.5, Outcome.UNSURE),
        ((math.nan, math.nan, math.nan), math.nan, Outcome.MALFORMED),
        ((math.nan, math.nan, math.nan), 0.5, Outcome.MALFORMED),
    ],
    ids=["clear", "not understood", "close", "not confident", "broken", "half broken"],
)
def test_only_a_clear_and_understood_answer_is_ok(
    shares: tuple[float, float, float], coverage: float, outcome: Outcome
) -> None:
    assert LIMITS.judge(Probabilities(*shares), coverage) is outcome
