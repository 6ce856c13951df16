"""How are instants written, in rows and on the wire?"""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Whole microseconds since 1970, UTC."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def rfc3339(us: int) -> str:
    """`2026-11-24T08:30:00.000001Z`."""
    return from_us(us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_or_none(us: int | None) -> str | None:
    return None if us is None else rfc3339(us)
