"""The vectors and figures of EVIDENCE.md 4 and 5, on streams few enough to be quick."""

import math
import random
import statistics
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.sequential import (
    Group,
    above,
    below,
    e_value,
    fewest,
    gap,
    log_m,
    lower_bound,
    needed,
    no_events_needed,
    no_events_upper,
    start,
    step,
    upper,
    upper_bound,
    watch,
    weighted_log_m,
    weighted_rate,
    weighted_step,
)

LIMIT, ALPHA, N = 0.05, 0.01, 14_000
GAP = 0.5 / N

counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
few = st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
limits = st.floats(0.005, 0.5)


@pytest.mark.parametrize(
    ("samples", "alarm_at", "evidence"),
    [
        pytest.param([1] * 10, 3, 127.794, id="all bad"),
        pytest.param([0] * 20 + [1] * 20, 27, 292.793, id="20 good, then bad"),
        pytest.param([0] * 2000 + [1] * 20, 2007, 188.753, id="2000 good, then bad"),
        pytest.param([0, 0, 0, 0, 1] * 20, 50, 150.222, id="every fifth bad"),
        pytest.param(([0] * 19 + [1]) * 700, None, 0.0026574, id="exactly at the limit"),
    ],
)
def test_the_alarm_comes_at_the_sample_that_the_formula_says(
    samples: list[int], alarm_at: int | None, evidence: float
) -> None:
    seen = watch(samples, limit=LIMIT, alpha=ALPHA, gap=GAP)
    assert seen.alarm_at == alarm_at
    assert seen.e_value == pytest.approx(evidence, rel=2e-5)
    assert seen.n == (alarm_at or len(samples))


def test_a_watch_reads_nothing_behind_the_alarm() -> None:
    samples = iter([1] * 10)
    watch(samples, limit=LIMIT, alpha=ALPHA, gap=GAP)
    assert len(list(samples)) == 7


def test_the_allowance_of_the_horizon_is_spent_by_its_end() -> None:
    assert start()[0] + gap(14 * 86_400, 14) == 1.0
    assert gap(-5.0, 14) == 0.0


def runs(chance: random.Random, rate: float, samples: int) -> Iterator[tuple[int, int]]:
    """Batches of good samples with the bad one that ends each, as (n, bad)."""
    left = samples
    while left > 0:
        good = int(math.log(1 - chance.random()) / math.log1p(-rate))
        yield (good + 1, 1) if good < left else (left, 0)
        left -= good + 1


def false_alarms(rate: float, streams: int) -> int:
    chance = random.Random(f"false alarms at {rate}")
    alarms = 0
    for _ in range(streams):
        stream = start()
        for n, bad in runs(chance, rate, N):
            # The good ones first: evidence can only reach the line at a bad one.
            stream = step(stream, n=n - bad, bad=0, limit=LIMIT, gap=GAP * (n - bad))
            stream = step(stream, n=bad, bad=bad, limit=LIMIT, gap=GAP * bad)
            if e_value(stream) >= 1 / ALPHA:
                alarms += 1
                break
    return alarms


def test_at_the_limit_one_stream_in_a_hundred_alarms_falsely_at_most() -> None:
    assert false_alarms(LIMIT, 400) <= 0.0147 * 400 + 3 * math.sqrt(0.0147 * 400)


def test_at_half_the_limit_hardly_any_stream_alarms() -> None:
    assert false_alarms(LIMIT / 2, 400) <= 1


@pytest.mark.parametrize(
    ("rate", "median", "p95", "streams"),
    [
        pytest.param(2 * LIMIT, 550, 1080, 120, id="doubled"),
        pytest.param(4 * LIMIT, 100, 185, 150, id="four times"),
        pytest.param(0.5, 20, 36, 150, id="every second"),
    ],
)
def test_a_jump_is_found_in_time(rate: float, median: int, p95: int, streams: int) -> None:
    chance = random.Random(f"jump to {rate}")
    delays = []
    for _ in range(streams):
        samples = [
            *(chance.random() < LIMIT / 2 for _ in range(2_000)),
            *(chance.random() < rate for _ in range(4_000)),
        ]
        alarm_at = watch(map(int, samples), limit=LIMIT, alpha=ALPHA, gap=GAP).alarm_at
        assert alarm_at is not None
        delays.append(alarm_at - 2_000)
    assert statistics.median(delays) <= median
    assert sorted(delays)[int(0.95 * streams)] <= p95 * 1.1  # a quantile of few streams wavers


@given(batch=few, limit=limits)
def test_a_batch_is_its_samples_where_no_time_passes(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    whole = step(start(), n=n, bad=bad, limit=limit, gap=0.0)
    one_by_one = start()
    for sample in [1] * bad + [0] * (n - bad):
        one_by_one = step(one_by_one, n=1, bad=sample, limit=limit, gap=0.0)
    assert one_by_one == pytest.approx(whole, rel=1e-6, abs=1e-12)


@given(limit=limits, due=st.floats(0, 1))
def test_a_sample_at_the_limit_is_no_evidence_on_average(limit: float, due: float) -> None:
    worse = e_value(step(start(), n=1, bad=1, limit=limit, gap=due))
    better = e_value(step(start(), n=1, bad=0, limit=limit, gap=due))
    assert limit * worse + (1 - limit) * better == pytest.approx(e_value(start()) + due)


@given(batch=counts, limit=limits)
def test_one_more_bad_sample_never_lessens_the_evidence(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    fewer = step(start(), n=n + 1, bad=bad, limit=limit, gap=0.0)
    more = step(start(), n=n + 1, bad=bad + 1, limit=limit, gap=0.0)
    assert e_value(more) >= e_value(fewer)


@pytest.mark.parametrize("bad_share", [0, 1])
def test_no_flood_overflows_a_stream(bad_share: int) -> None:
    stream = step(start(), n=10**9, bad=10**9 * bad_share, limit=LIMIT, gap=0.0)
    assert math.isfinite(e_value(stream))
    assert math.isfinite(e_value(step(stream, n=10**9, bad=0, limit=LIMIT, gap=0.1)))


@given(bad=st.booleans(), limit=limits, due=st.floats(0, 1))
def test_a_label_of_full_weight_is_a_sample(*, bad: bool, limit: float, due: float) -> None:
    weighted = weighted_step(start(), bad=bad, weight=1.0, limit=limit, gap=due)
    assert weighted == pytest.approx(step(start(), n=1, bad=bad, limit=limit, gap=due))


def test_weights_undo_an_unequal_draw() -> None:
    # One in ten is a disagreement, always overridden and always drawn; the rest is fine, one in 16 drawn.
    # The override rate is 0.1, the limit 0.12; of the drawn ones nearly two in three are overridden.
    chance, weighted, unweighted = random.Random(7), 0, 0
    for _ in range(60):
        fair = plain = start()
        fair_alarm = plain_alarm = False
        for _ in range(4_000):
            disagreement = chance.random() < 0.1
            if not disagreement and chance.random() >= 1 / 16:
                continue
            weight = 1 / 16 if disagreement else 1.0
            fair = weighted_step(fair, bad=disagreement, weight=weight, limit=0.12, gap=GAP)
            plain = step(plain, n=1, bad=disagreement, limit=0.12, gap=GAP)
            fair_alarm |= e_value(fair) >= 1 / ALPHA
            plain_alarm |= e_value(plain) >= 1 / ALPHA
        weighted += fair_alarm
        unweighted += plain_alarm
    assert weighted <= 2
    assert unweighted == 60


@cache
def passes_from(bad: int, limit: float) -> int:
    """The fewest observations that pass with so many bad ones: a good one more never weakens the proof."""
    more = fewest(lambda good: log_m(bad + good, bad, limit) + math.log(0.05))
    assert more is not None
    return bad + more


def first_pass(chance: random.Random, rate: float, *, limit: float, most: int) -> int | None:
    """Asked after every observation."""
    bad = 0
    for n in range(1, most + 1):
        bad += chance.random() < rate
        if n >= passes_from(bad, limit):
            return n
    return None


@pytest.mark.parametrize("limit", [0.05, 0.1])
def test_asking_again_and_again_promotes_falsely_one_time_in_twenty_at_most(limit: float) -> None:
    chance, streams = random.Random("false promotions"), 1_000
    passed = sum(first_pass(chance, limit, limit=limit, most=2_000) is not None for _ in range(streams))
    assert passed <= 0.05 * streams + 2 * math.sqrt(0.05 * 0.95 * streams)


@pytest.mark.parametrize(
    ("limit", "rate", "median", "p90"),
    [
        pytest.param(0.10, 0.05, 188, 453, id="agreement above 0.9 at 0.95"),
        pytest.param(0.10, 0.03, 86, 172, id="agreement above 0.9 at 0.97"),
        pytest.param(0.10, 0.01, 36, 86, id="agreement above 0.9 at 0.99"),
        pytest.param(0.05, 0.02, 249, 559, id="override below 0.05 at 0.02"),
        pytest.param(0.05, 0.01, 131, 249, id="override below 0.05 at 0.01"),
        pytest.param(0.01, 0.0025, 663, 1_604, id="errors below 0.01 at 0.0025"),
        pytest.param(0.01, 0.001, 377, 883, id="errors below 0.01 at 0.001"),
    ],
)
def test_a_good_model_passes_after_as_many_observations_as_promised(
    limit: float, rate: float, median: int, p90: int
) -> None:
    chance = random.Random(f"promotions at {rate}")
    passes = sorted(first_pass(chance, rate, limit=limit, most=9_999) or 9_999 for _ in range(800))
    assert statistics.median(passes) == pytest.approx(median, rel=0.12)
    assert passes[int(0.9 * len(passes))] == pytest.approx(p90, rel=0.15)


@pytest.mark.parametrize(("n", "passes"), [(298, False), (299, True)])
def test_zero_wrong_allows_below_one_percent_take_299(n: int, *, passes: bool) -> None:
    assert (no_events_needed(0.01, 0.05) <= n) is passes
    assert (no_events_upper(n, 0.05) <= 0.01) is passes
    assert no_events_needed(0.01, 0.05) == 299


@pytest.mark.parametrize(("n", "passes"), [(376, False), (377, True)])
def test_the_mixture_takes_377_for_the_same(n: int, *, passes: bool) -> None:
    assert below([Group(n, 0)], 0.01, 0.05) is passes


@given(n=st.integers(1, 14), limit=st.floats(0.05, 0.5))
def test_proof_of_a_low_rate_is_a_martingale_at_the_limit(n: int, limit: float) -> None:
    mean = sum(
        math.comb(n, bad) * limit**bad * (1 - limit) ** (n - bad) * math.exp(log_m(n, bad, limit))
        for bad in range(n + 1)
    )
    assert mean == pytest.approx(1.0)


@given(batch=counts, limit=limits)
def test_one_more_bad_observation_never_strengthens_the_proof(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    assert log_m(n + 1, bad + 1, limit) <= log_m(n + 1, bad, limit) + 1e-9


@given(batch=counts, limit=limits)
def test_one_more_good_observation_never_weakens_the_proof(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    assert log_m(n + 1, bad, limit) >= log_m(n, bad, limit) - 1e-9


@given(batch=counts, limit=limits, alpha=st.floats(0.001, 0.2))
def test_nothing_is_proved_both_ways(batch: tuple[int, int], limit: float, alpha: float) -> None:
    groups = [Group(*batch)]
    assert not (below(groups, limit, alpha) and above(groups, limit, alpha))


@given(batch=counts, alpha=st.floats(0.01, 0.2))
def test_the_bounds_enclose_the_rate(batch: tuple[int, int], alpha: float) -> None:
    n, bad = batch
    rate = bad / n if n else 0.0
    assert 0 <= lower_bound(n, bad, alpha) <= rate <= upper_bound(n, bad, alpha) <= 1


@given(batch=counts)
def test_the_upper_bound_is_where_the_proof_begins(batch: tuple[int, int]) -> None:
    n, bad = batch
    bound = upper_bound(n, bad, 0.05)
    if bound < 0.999:
        assert log_m(n, bad, bound * 1.0001) >= math.log(20) - 1e-6
        assert log_m(n, bad, bound * 0.999) < math.log(20)


@given(batch=counts, limit=st.floats(0.02, 0.3))
def test_what_is_needed_is_what_would_pass(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    more = needed([Group(n, bad)], limit, 0.05)
    if more is None:
        assert bad > 0
    else:
        rate = bad / n if n else 0.0
        assert log_m(n + more, (n + more) * rate, limit) >= math.log(20) - 0.02


def test_at_or_above_the_limit_no_number_would_do() -> None:
    assert needed([Group(100, 5)], 0.05, 0.05) is None


def test_without_observations_the_best_case_is_asked_for() -> None:
    assert needed([Group(0, 0)], 0.01, 0.05) == 377
    assert needed([Group(300, 0)], 0.01, 0.05) == 77


@given(batch=counts, limit=limits, weight=st.floats(0.01, 1))
def test_groups_of_one_weight_are_one_group(batch: tuple[int, int], limit: float, weight: float) -> None:
    n, bad = batch
    groups = [Group(n, bad, weight), Group(10, 1, weight)]
    assert weighted_log_m(groups, limit) == log_m(n + 10, bad + 1, limit)


@given(batch=counts, limit=limits)
def test_nearly_equal_weights_are_nearly_one_group(batch: tuple[int, int], limit: float) -> None:
    n, bad = batch
    assume(bad <= n * limit)
    groups = [Group(n, bad), Group(5, 0, 1 - 1e-9)]
    assert weighted_log_m(groups, limit) == pytest.approx(log_m(n + 5, bad, limit), abs=0.05, rel=0.01)


def test_a_bound_of_unequal_draws_is_that_of_the_population() -> None:
    # All of the few disagreements were judged, and overridden; of the agreements one in 20, and none was.
    groups = [Group(50, 50, 0.05), Group(950, 0)]
    assert weighted_rate(groups) == pytest.approx(2.5 / 952.5)
    assert upper(groups, 0.05) < 0.02
    assert upper_bound(1_000, 50, 0.05) > 0.05


@pytest.mark.parametrize(("n", "bad", "limit"), [(3, 4, 0.1), (3, -1, 0.1), (3, 1, 0.0), (3, 1, 1.0)])
def test_what_is_no_count_or_no_limit_is_refused(n: int, bad: int, limit: float) -> None:
    with pytest.raises(ValueError, match="not"):
        log_m(n, bad, limit)
    with pytest.raises(ValueError, match="not"):
        step(start(), n=n, bad=bad, limit=limit, gap=0.0)
