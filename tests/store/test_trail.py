"""Does a trail stay short, and keep its ends?"""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.store.trail import POINTS, Trail, points_of


def _walked(times: list[int]) -> Trail:
    trail = Trail()
    for at_s in times:
        trail.add(at_s, float(at_s), 0.5)
    return trail


def _times(trail: Trail) -> list[int]:
    return [at_s for at_s, _, _ in json.loads(trail.text or "[]")]


@given(st.lists(st.integers(0, 10_000), max_size=500))
def test_a_trail_never_has_more_points_than_it_may_and_keeps_its_ends(gaps: list[int]) -> None:
    times = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    kept = _times(_walked(times))
    assert len(kept) <= POINTS
    assert kept == sorted(kept)
    assert kept[:1] == times[:1]
    assert kept[-1:] == times[-1:]


def test_points_that_come_evenly_stay_evenly_apart() -> None:
    kept = _times(_walked(list(range(0, 5 * 10_000, 5))))
    gaps = {later - earlier for earlier, later in pairwise(kept[:-1])}
    assert len(gaps) == 1
    assert len(kept) > POINTS / 2


def test_a_trail_goes_on_where_it_was_left() -> None:
    times = list(range(0, 5_000, 5))
    whole, half = _walked(times), Trail.of(_walked(times[:500]).text)
    for at_s in times[500:]:
        half.add(at_s, float(at_s), 0.5)
    assert _times(half) == _times(whole)


def test_evidence_beyond_all_numbers_and_a_rate_that_nobody_knows_can_be_read_again() -> None:
    trail = Trail()
    trail.add(0, float("inf"), None)
    assert points_of(trail.text) == [{"at": "1970-01-01T00:00:00.000000Z", "e_value": 1e300, "rate": None}]


def test_what_was_kept_before_there_were_trails_has_no_points() -> None:
    assert points_of(None) == []
    assert Trail.of(None).text is None
