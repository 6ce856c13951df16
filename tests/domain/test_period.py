"""Where do days, weeks and months begin and end?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.period import Period, completed, span_of

INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.sampled_from(Period), INSTANTS)
def test_every_instant_lies_in_one_span_of_whole_days(period: Period, at: datetime) -> None:
    span = span_of(period, at)
    assert span.starts_at <= at < span.ends_at
    assert (
        span_of(period, span.starts_at) == span_of(period, span.ends_at - timedelta(microseconds=1)) == span
    )
    assert span_of(period, span.ends_at).starts_at == span.ends_at
    assert span.starts_at.timetz() == span.ends_at.timetz() == datetime.min.replace(tzinfo=UTC).timetz()


@pytest.mark.parametrize(
    ("period", "at", "name"),
    [
        (Period.DAILY, "2027-02-28T23:59:59+00:00", "daily-2027-02-28"),
        (Period.WEEKLY, "2027-01-03T12:00:00+00:00", "weekly-2026-12-28"),
        (Period.MONTHLY, "2028-02-29T00:00:00+00:00", "monthly-2028-02-01"),
    ],
)
def test_a_span_is_named_by_its_first_day(period: Period, at: str, name: str) -> None:
    assert span_of(period, datetime.fromisoformat(at)).id == name


def test_a_day_is_that_of_utc() -> None:
    at = datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert span_of(Period.DAILY, at).id == "daily-2026-12-31"


def test_only_what_is_over_and_not_from_before_the_beginning_is_completed() -> None:
    now, since = datetime(2027, 1, 18, 9, tzinfo=UTC), datetime(2027, 1, 15, 9, tzinfo=UTC)
    days = [span.id for span in completed(Period.DAILY, now=now, since=since, at_most=7)]
    assert days == ["daily-2027-01-17", "daily-2027-01-16", "daily-2027-01-15"]
    assert [span.id for span in completed(Period.DAILY, now=now, since=since, at_most=1)] == days[:1]
    assert list(completed(Period.MONTHLY, now=now, since=since, at_most=7)) == []
