"""Is a share of actors said to be wrong only where it is?"""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.counters import Metric
from app.domain.ratio import MISMATCH, SampleRatio, arm_count, log_m, sample_ratio
from tests.domain.making import evidence

SHARES = pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
BROKEN = math.log(MISMATCH)


def counted(*watches: tuple[int, int], share: float = 0.05) -> dict[tuple[Metric, str], int]:
    """What sets of (actors, those inside) leave in the counters."""
    totals = {}
    for number, (n, inside) in enumerate(watches):
        for is_inside, actors in ((True, inside), (False, n - inside)):
            _, label, _ = arm_count(share, inside=is_inside, watch=f"w{number}")
            totals[Metric.ARM, label] = actors
    return totals


def ratio_of(totals: dict[tuple[Metric, str], int], share: float = 0.05) -> SampleRatio | None:
    return sample_ratio(evidence(totals), share)


@SHARES
def test_a_right_share_is_called_wrong_in_one_stream_of_a_thousand_at_most(share: float) -> None:
    streams, actors, alarms = 8_000, 2_000, 0
    rng = np.random.default_rng(20)
    n = np.arange(1, actors + 1)
    for _ in range(8):
        inside = rng.random((streams // 8, actors)) < share
        x = inside.cumsum(axis=1)
        # The odds that the mixture offers on each actor, whose product M is: where it is largest, we look.
        hit, missed = (x - inside + 0.5) / n / share, (n - 1 - x + inside + 0.5) / n / (1 - share)
        peaks = np.log(np.where(inside, hit, missed)).cumsum(axis=1).argmax(axis=1)
        alarms += sum(
            log_m(int(peak) + 1, int(seen[peak]), expected=share) >= BROKEN
            for seen, peak in zip(x, peaks, strict=True)
        )
    chance = 3 * math.sqrt(streams / MISMATCH)  # three standard errors of such a count
    assert alarms <= streams / MISMATCH + chance


@pytest.mark.parametrize(
    ("share", "odds", "median", "late"),
    [(0.05, 2.0, 700, 1_300), (0.25, 2.0, 210, 360), (0.5, 2.0, 200, 350), (0.05, 0.5, 1_700, 2_800)],
)
def test_a_skew_of_two_to_one_is_found_soon(share: float, odds: float, median: int, late: int) -> None:
    rng = random.Random(21)
    skewed = odds * share / (odds * share + 1 - share)

    def found_after() -> int:
        inside = 0
        for n in range(1, 5_000):
            inside += rng.random() < skewed
            if log_m(n, inside, expected=share) >= BROKEN:
                return n
        return 5_000

    delays = sorted(found_after() for _ in range(100))
    assert delays[50] <= median
    assert delays[95] <= late


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.floats(0.01, 0.99))
def test_the_test_is_two_sided(counts: tuple[int, int], share: float) -> None:
    n, inside = counts
    assert log_m(n, inside, expected=share) == pytest.approx(
        log_m(n, n - inside, expected=1 - share), abs=1e-6
    )


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_one_more_actor_is_a_fair_bet(counts: tuple[int, int]) -> None:
    n, inside = counts
    share, now = 0.2, math.exp(log_m(n, inside, expected=0.2))
    then = share * math.exp(log_m(n + 1, inside + 1, expected=share))
    then += (1 - share) * math.exp(log_m(n + 1, inside, expected=share))
    assert then == pytest.approx(now, rel=1e-6)


@pytest.mark.parametrize(("n", "inside", "share"), [(3, 4, 0.5), (3, -1, 0.5), (3, 1, 0.0), (3, 1, 1.0)])
def test_what_is_no_count_or_no_share_is_refused(n: int, inside: int, share: float) -> None:
    with pytest.raises(ValueError, match="is no"):
        log_m(n, inside, expected=share)


def test_without_actors_or_with_everybody_exposed_there_is_no_ratio() -> None:
    assert ratio_of({}) is None
    assert ratio_of(counted((100, 100)), share=1.0) is None
    assert ratio_of(counted((100, 5), share=0.25)) is None


def test_a_skewed_set_breaks_the_ratio_and_says_its_numbers() -> None:
    ratio = ratio_of(counted((1_000, 120)))
    assert ratio is not None
    assert ratio.is_broken
    assert ratio.sentence == "120 of 1000 actors exposed, expected 5 % of them: no chance of the draw"


def test_a_right_share_is_not_broken() -> None:
    ratio = ratio_of(counted((1_000, 52)))
    assert ratio is not None
    assert (ratio.n, ratio.inside, ratio.is_broken) == (1_000, 52, False)


def test_the_same_actors_seen_by_several_instances_prove_nothing_more() -> None:
    almost = (200, 24)
    assert log_m(*almost, expected=0.05) < BROKEN < log_m(400, 48, expected=0.05)
    ratio = ratio_of(counted(almost, almost))
    assert ratio is not None
    assert not ratio.is_broken
