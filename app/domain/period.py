"""Which day, week or month does an instant lie in?"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_DAY = timedelta(days=1)


class Period(StrEnum):
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class Span:
    """One period, from its first instant on to the first one after it. Days and months are UTC's, weeks ISO's."""

    period: Period
    starts_at: datetime
    ends_at: datetime

    @property
    def id(self) -> str:
        """The name of its report, such as `weekly-2027-01-11`."""
        return f"{self.period}-{self.starts_at:%Y-%m-%d}"


def span_of(period: Period, at: datetime) -> Span:
    """The span that holds an instant."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case Period.DAILY:
            return Span(period, day, day + _DAY)
        case Period.WEEKLY:
            monday = day - day.weekday() * _DAY
            return Span(period, monday, monday + 7 * _DAY)
        case Period.MONTHLY:
            first = day.replace(day=1)
            return Span(period, first, (first + 31 * _DAY).replace(day=1))


def completed(period: Period, *, now: datetime, since: datetime, at_most: int) -> Iterator[Span]:
    """The spans that are over and did not end before `since`, newest first."""
    span = span_of(period, now)
    for _ in range(at_most):
        span = span_of(period, span.starts_at - _DAY)
        if span.ends_at <= since:
            return
        yield span
