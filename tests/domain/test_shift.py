import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.shift import shift_tallies, total_variation
from app.domain.stream import StreamState, fold_totals

BASELINE = {"allow": 195, "require_attestation": 60, "deny": 45}
LABELS = list(BASELINE)
answers = st.fixed_dictionaries({label: st.integers(0, 500) for label in LABELS})


def samples_until_alarm(chance: random.Random, shares: dict[str, float], most: int) -> int | None:
    state = StreamState(1, "", 0)
    seen = dict.fromkeys(LABELS, 0)
    for n in range(1, most + 1):
        seen[chance.choices(LABELS, list(shares.values()))[0]] += 1
        state = fold_totals(
            state, shift_tallies(seen, BASELINE, limit=0.20), now_us=n * 86_400_000, horizon_days=14
        )
        if state.e_value >= 100:
            return n
    return None


def test_a_shift_of_twenty_points_is_found() -> None:
    chance = random.Random(20)
    shifted = {"allow": 0.45, "require_attestation": 0.40, "deny": 0.15}
    found = [samples_until_alarm(chance, shifted, 3_000) for _ in range(25)]
    delays = [delay for delay in found if delay is not None]
    assert len(delays) == 25
    assert statistics.median(delays) == pytest.approx(426, rel=0.4)


def test_a_model_that_denies_everything_is_found_at_once() -> None:
    alarm = samples_until_alarm(random.Random(1), {"allow": 0, "require_attestation": 0, "deny": 1}, 100)
    assert alarm is not None
    assert alarm <= 15


def test_a_shift_within_half_of_the_limit_is_no_alarm() -> None:
    chance = random.Random(10)
    within = {"allow": 0.57, "require_attestation": 0.27, "deny": 0.16}
    assert [samples_until_alarm(chance, within, 1_500) for _ in range(15)] == [None] * 15


def test_limits_outside_zero_and_one_are_left_out() -> None:
    tallies = shift_tallies({"allow": 9}, {"allow": 295, "deny": 5}, limit=0.20)
    assert set(tallies) == {"allow-", "require_attestation+", "deny+"}


@given(answers=answers)
def test_every_stream_counts_every_answer(answers: dict[str, int]) -> None:
    n = sum(answers.values())
    for tally in shift_tallies(answers, BASELINE, limit=0.20).values():
        whole, bad = tally.counts
        assert whole == n
        assert 0 <= bad <= n


def test_total_variation_is_the_largest_change_of_a_share() -> None:
    moved = {"allow": 130, "require_attestation": 100, "deny": 70}
    assert total_variation(moved, BASELINE) == pytest.approx(65 / 300)
    assert total_variation({}, BASELINE) is None
    assert total_variation(moved, {}) is None
