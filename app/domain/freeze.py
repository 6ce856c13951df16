"""May anybody loosen a rollout at this hour?

A freeze of kind `deny` is a time in which promotions rest, one of kind `allow` a time in which alone they
may happen, where there is one at all. Deny wins. A weekly one comes again every seven days at the same hours
of its zone, whether or not the clocks were changed in between.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from app.domain.clock import spoken
from app.domain.condition import Condition, GateOutcome

EVERY = "*"
WEEK = timedelta(days=7)

_AHEAD = 100  # ends of windows, one after another, before "until when" is given up


class FreezeKind(StrEnum):
    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Freeze:
    """From `starts_at` to `ends_at`, both aware, the end excluded; shorter than a week where `weekly`."""

    id: str
    kind: FreezeKind
    rollout: str  # or `EVERY`
    starts_at: datetime
    ends_at: datetime
    weekly: bool
    zone: str  # IANA name
    reason: str

    def concerns(self, rollout: str) -> bool:
        return self.rollout in (EVERY, rollout)

    def ends(self, at: datetime) -> datetime | None:
        """When the window ends that is open at an instant, or None where none is."""
        return next((end for start, end in self._windows(at) if start <= at < end), None)

    def next_start(self, at: datetime) -> datetime | None:
        """When the next window opens after an instant, if ever one does."""
        return min((start for start, _ in self._windows(at) if start > at), default=None)

    def _windows(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Every window that could be open at an instant, and the one after it."""
        if not self.weekly:
            yield self.starts_at, self.ends_at
            return
        week = max((at - self.starts_at) // WEEK, 0)
        for number in range(max(week - 1, 0), week + 3):
            # Where an hour comes twice or not at all, the longer reading.
            yield min(self._shifted(self.starts_at, number)), max(self._shifted(self.ends_at, number))

    def _shifted(self, instant: datetime, weeks: int) -> tuple[datetime, ...]:
        """The same hour of a later week; two readings where the clocks are changed at that hour."""
        if not weeks:
            return (instant,)
        there = instant.astimezone(ZoneInfo(self.zone)) + weeks * WEEK  # arithmetic on the clock's face
        return tuple(there.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


@dataclass(frozen=True, slots=True)
class Frozen:
    """Why nothing may be loosened, and until when; None where no end is in sight."""

    sentence: str
    until: datetime | None


def frozen(freezes: Iterable[Freeze], rollout: str, now: datetime) -> Frozen | None:
    """What stands against loosening a rollout now, or None. Freezes that were ended are not among them."""
    own = [freeze for freeze in freezes if freeze.concerns(rollout)]
    found = _blocked(own, now)
    if found is None:
        return None
    why, until = found
    for _ in range(_AHEAD):
        if until is None or (after := _blocked(own, until)) is None:
            break
        until = after[1]
    else:
        until = None
    till = "with no end in sight" if until is None else f"until {spoken(until)}"
    return Frozen(f"frozen {till}: {why}", until)


def freeze(found: Frozen | None, *, now: datetime) -> Condition:
    """Nobody has asked for rest at this hour."""
    if found is None:
        return Condition("freeze", GateOutcome.PASS, "no freeze")
    eta_s = None if found.until is None else (found.until - now).total_seconds()
    return Condition("freeze", GateOutcome.INSUFFICIENT, found.sentence, eta_s=eta_s)


def _blocked(freezes: list[Freeze], at: datetime) -> tuple[str, datetime | None] | None:
    """What stands against loosening at an instant, and when that changes."""
    for each in freezes:
        if each.kind is FreezeKind.DENY and (end := each.ends(at)) is not None:
            return f"{each.reason} (freeze {each.id})", end
    allowed = [each for each in freezes if each.kind is FreezeKind.ALLOW]
    if not allowed or any(each.ends(at) for each in allowed):
        return None
    starts = [start for each in allowed if (start := each.next_start(at)) is not None]
    if starts:
        return "outside the hours that are allowed", min(starts)
    ended = allowed[-1].id
    return f"the hours that were allowed are over: phasegate freeze end {ended} --reason …", None
