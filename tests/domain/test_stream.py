from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.stream import (
    ONE,
    Label,
    Replay,
    StreamState,
    Tally,
    fold_labels,
    fold_totals,
)
from app.store.streams import from_json, to_json

MINUTE_US = 60_000_000
LATER_US = 10**13
LIMIT = 0.05


def labels_of(values: Sequence[bool | None]) -> list[Label]:
    return [Label(f"d{number:04}", number * MINUTE_US, bad, 1.0) for number, bad in enumerate(values)]


def look(state: StreamState, labels: list[Label], *, now_us: int = LATER_US) -> Replay:
    return fold_labels(state, labels, limit=LIMIT, smallest_inclusion=1.0, now_us=now_us, horizon_days=14)


FRESH = StreamState(1, "h", 0)
values = st.lists(st.sampled_from([True, False, None]), max_size=60)


@given(values)
def test_an_open_label_counts_as_good_until_it_is_judged(seen: list[bool | None]) -> None:
    provisional = look(FRESH, labels_of(seen))
    as_good = look(FRESH, labels_of([bool(value) for value in seen]))
    assert (provisional.peak, provisional.e_value) == (as_good.peak, as_good.e_value)


@given(values)
def test_a_provisional_value_never_exceeds_the_final_one(seen: list[bool | None]) -> None:
    final = look(FRESH, labels_of([value is not False for value in seen]))
    assert look(FRESH, labels_of(seen)).peak <= final.peak


@given(values, st.lists(st.integers(0, 60), max_size=4))
def test_looking_often_is_looking_once(seen: list[bool | None], looks: list[int]) -> None:
    # Labels are judged late and out of order: at each look some that are open now were not known yet.
    state = FRESH
    for known in sorted(looks):
        partly = [value if number * 7 % 61 < known else None for number, value in enumerate(seen)]
        state = look(state, labels_of(partly)).state
    labels = labels_of(seen)
    often, once = look(state, labels), look(FRESH, labels)
    assert often.e_value == pytest.approx(once.e_value)
    assert (often.judged, often.pending) == (once.judged, once.pending)


def test_the_watermark_waits_for_the_oldest_open_label() -> None:
    replay = look(FRESH, labels_of([False, True, None, True]))
    assert (replay.state.watermark, replay.judged, replay.pending) == ("d0001", 3, 1)
    assert replay.state.seen == {ONE: (2, 1)}


def test_a_label_closed_without_a_verdict_is_good_and_lets_the_watermark_on() -> None:
    closed = [replace(label, closed_unjudged=True) for label in labels_of([None, None])]
    replay = look(FRESH, closed)
    assert (replay.state.watermark, replay.judged, replay.pending) == ("d0001", 0, 0)
    assert replay.e_value == look(FRESH, labels_of([False, False])).e_value


def test_a_young_decision_does_not_move_the_watermark() -> None:
    labels = labels_of([False, False, False])
    assert look(FRESH, labels, now_us=labels[2].at_us).state.watermark == "d0001"
    assert look(FRESH, labels, now_us=labels[2].at_us).judged == 3


def test_an_alarm_of_any_prefix_is_seen() -> None:
    replay = look(FRESH, labels_of([True] * 6 + [False] * 400))
    assert replay.peak > 500 > replay.e_value


def test_an_unequally_drawn_label_weighs_less() -> None:
    rare, often = Label("d1", 1, bad=True, inclusion_probability=0.1), Label("d1", 1, True, 1.0)
    heavy, light = (
        fold_labels(
            FRESH, [label], limit=LIMIT, smallest_inclusion=0.1, now_us=LATER_US, horizon_days=14
        ).e_value
        for label in (rare, often)
    )
    assert heavy > light > 0.5


counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(counts, counts)
def test_only_what_is_new_is_folded_in(first: tuple[int, int], second: tuple[int, int]) -> None:
    sums = (first[0] + second[0], first[1] + second[1])
    once = fold_totals(FRESH, {ONE: Tally(*first, LIMIT)}, now_us=0, horizon_days=14)
    twice = fold_totals(once, {ONE: Tally(*sums, LIMIT)}, now_us=0, horizon_days=14)
    again = fold_totals(twice, {ONE: Tally(*sums, LIMIT)}, now_us=LATER_US, horizon_days=14)
    whole = fold_totals(FRESH, {ONE: Tally(*sums, LIMIT)}, now_us=0, horizon_days=14)
    assert twice.e_value == pytest.approx(whole.e_value, rel=1e-6, abs=1e-12)
    assert again == twice


def test_the_time_between_two_batches_is_due_once() -> None:
    half = 7 * 86_400 * 10**6
    state = fold_totals(FRESH, {ONE: Tally(1, 0, LIMIT)}, now_us=half, horizon_days=14)
    assert state.at_us == half
    assert state.e_value < 0.75  # the head start of a half, a quarter for the week, and one good sample


@pytest.mark.parametrize("tally", [Tally(9, 1, LIMIT), Tally(11, 0, LIMIT), Tally(11, 3, LIMIT)])
def test_counters_that_went_backwards_are_refused(tally: Tally) -> None:
    state = fold_totals(FRESH, {ONE: Tally(10, 1, LIMIT)}, now_us=0, horizon_days=14)
    with pytest.raises(ValueError, match="the counters went from 1 of 10"):
        fold_totals(state, {ONE: tally}, now_us=0, horizon_days=14)


@given(values, st.none() | st.floats(1, 1e300))
def test_a_stream_survives_being_written_down(seen: list[bool | None], alarm: float | None) -> None:
    state = replace(look(FRESH, labels_of(seen)).state, alarm=alarm)
    assert from_json(to_json(state)) == state
