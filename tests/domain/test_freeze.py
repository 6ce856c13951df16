from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.condition import GateOutcome
from app.domain.freeze import EVERY, WEEK, Freeze, FreezeKind, freeze, frozen

BERLIN = "Europe/Berlin"
DENY, ALLOW = FreezeKind.DENY, FreezeKind.ALLOW


def local(day: int, hour: int, minute: int = 0, *, month: int = 3) -> datetime:
    """In Berlin, in 2027: summer time from 28 March 2:00 to 31 October 3:00."""
    return datetime(2027, month, day, hour, minute, tzinfo=ZoneInfo(BERLIN))


def window(start: datetime, end: datetime, kind: FreezeKind = DENY, **more: Any) -> Freeze:
    facts: dict[str, Any] = {"id": "f1", "rollout": EVERY, "weekly": False, "zone": BERLIN, "reason": "rest"}
    return Freeze(kind=kind, starts_at=start, ends_at=end, **{**facts, **more})


CHRISTMAS = window(local(24, 18, month=12), local(26, 8, month=12))
WEEKEND = window(local(19, 18), local(22, 8), weekly=True)  # from Friday evening on


@pytest.mark.parametrize(
    ("at", "rests"),
    [
        pytest.param(local(24, 17, 59, month=12), False, id="before"),
        pytest.param(local(24, 18, month=12), True, id="from its first moment"),
        pytest.param(local(26, 7, 59, month=12), True, id="to its last"),
        pytest.param(local(26, 8, month=12), False, id="the end is excluded"),
    ],
)
def test_a_freeze_rests_from_its_start_to_its_end(at: datetime, *, rests: bool) -> None:
    assert (frozen([CHRISTMAS], "read", at) is not None) is rests


@pytest.mark.parametrize(
    ("at", "rests"),
    [
        pytest.param(local(26, 17, 59), False, id="Friday 17:59 of the next week, winter time"),
        pytest.param(local(26, 18), True, id="Friday 18:00"),
        pytest.param(local(29, 7, 59), True, id="Monday 7:59, summer time since Sunday"),
        pytest.param(local(29, 8), False, id="Monday 8:00"),
        pytest.param(local(2, 18, month=4), True, id="Friday 18:00, summer time"),
        pytest.param(local(2, 17, 59, month=4), False, id="Friday 17:59, summer time"),
        pytest.param(local(12, 20), False, id="the week before it was declared for"),
        pytest.param(local(5, 20, month=11), True, id="Friday 20:00 months later, winter time again"),
    ],
)
def test_a_weekly_freeze_keeps_its_local_hours_when_the_clocks_change(at: datetime, *, rests: bool) -> None:
    assert (frozen([WEEKEND], "read", at) is not None) is rests


@pytest.mark.parametrize(
    ("at", "rests"),
    [
        pytest.param(datetime(2027, 10, 30, 23, 59, tzinfo=UTC), False, id="1:59, before"),
        pytest.param(datetime(2027, 10, 31, 0, 0, tzinfo=UTC), True, id="2:00 for the first time"),
        pytest.param(datetime(2027, 10, 31, 1, 29, tzinfo=UTC), True, id="2:29 for the second time"),
        pytest.param(datetime(2027, 10, 31, 1, 30, tzinfo=UTC), False, id="2:30 for the second time"),
    ],
)
def test_an_hour_that_comes_twice_rests_twice(at: datetime, *, rests: bool) -> None:
    nightly = window(local(24, 2, month=10), local(24, 2, 30, month=10), weekly=True)
    assert (frozen([nightly], "read", at) is not None) is rests


def test_an_hour_that_the_clocks_leave_out_shortens_no_freeze() -> None:
    before_dawn = window(local(21, 1), local(21, 2, 30), weekly=True)
    assert frozen([before_dawn], "read", datetime(2027, 3, 28, 1, 29, tzinfo=UTC)) is not None
    assert frozen([before_dawn], "read", datetime(2027, 3, 28, 1, 30, tzinfo=UTC)) is None


def test_a_freeze_of_one_rollout_leaves_the_others() -> None:
    own = window(CHRISTMAS.starts_at, CHRISTMAS.ends_at, rollout="write")
    assert frozen([own], "write", CHRISTMAS.starts_at) is not None
    assert frozen([own], "read", CHRISTMAS.starts_at) is None


OFFICE = window(local(22, 9), local(22, 17), ALLOW, weekly=True, id="office")


def test_where_hours_are_allowed_promotions_are_in_them_alone() -> None:
    assert frozen([OFFICE], "read", local(29, 12)) is None
    outside = frozen([OFFICE], "read", local(29, 17))
    assert outside is not None
    assert outside.until == local(5, 9, month=4)
    assert frozen([], "read", local(29, 17)) is None


def test_hours_of_any_allowance_are_enough() -> None:
    other = window(local(30, 9), local(30, 10), ALLOW)
    assert frozen([OFFICE, other], "read", local(30, 9, 30)) is None


def test_allowed_hours_that_are_all_over_say_what_ends_the_rest() -> None:
    once = window(local(22, 9), local(22, 17), ALLOW, id="f9")
    found = frozen([once], "read", local(23, 9))
    assert found is not None
    assert found.until is None
    assert "phasegate freeze end f9" in found.sentence


@given(st.integers(0, 60 * 24 * 400), st.booleans())
def test_deny_wins(minutes: int, first: bool) -> None:  # noqa: FBT001
    at = local(1, 0) + timedelta(minutes=minutes)
    always = window(local(1, 0) - WEEK, local(1, 0) + 100 * WEEK)
    freezes = [always, OFFICE] if first else [OFFICE, always]
    assert frozen(freezes, "read", at) is not None


@given(st.integers(0, 60 * 24 * 400))
def test_nothing_rests_any_more_when_it_says_so_and_everything_until_then(minutes: int) -> None:
    at = local(19, 0) + timedelta(minutes=minutes)
    freezes = [WEEKEND, OFFICE, CHRISTMAS]
    found = frozen(freezes, "read", at)
    if found is not None:
        assert found.until is not None
        assert found.until > at
        assert frozen(freezes, "read", found.until) is None
        assert frozen(freezes, "read", found.until - timedelta(microseconds=1)) is not None


def test_rest_without_a_gap_has_no_end_in_sight() -> None:
    whole = [window(local(day, 0), local(day + 4, 0), weekly=True, id=f"f{day}") for day in (19, 22)]
    found = frozen(whole, "read", local(20, 0))
    assert found is not None
    assert (found.until, "no end in sight" in found.sentence) == (None, True)


def test_the_condition_says_until_when_and_why() -> None:
    at = local(25, 8, month=12)
    judged = freeze(frozen([CHRISTMAS], "read", at), now=at)
    assert (judged.outcome, judged.eta_s) == (GateOutcome.INSUFFICIENT, 86_400.0)
    assert judged.sentence == "frozen until 2027-12-26 07:00 UTC: rest (freeze f1)"
    assert freeze(None, now=at).outcome is GateOutcome.PASS
