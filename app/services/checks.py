"""What is one check before a start, and how does it end?"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from app.errors import PhasegateError, StoreUnavailable


class CheckOutcome(StrEnum):
    PASS = "pass"  # noqa: S105 -- not a password
    WARNING = "warning"  # serves, but not as it should
    FAIL = "fail"
    SKIPPED = "skipped"  # rests on a check that failed, or does not apply


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. `mend` says what to do, where something is to be done."""

    name: str
    outcome: CheckOutcome
    value: str | float | None
    limit: str | float | None
    sentence: str
    mend: str | None = None


def passed(name: str, value: str | float | None, limit: str | float | None, sentence: str) -> Check:
    return Check(name, CheckOutcome.PASS, value, limit, sentence)


def failed(
    name: str, value: str | float | None, limit: str | float | None, sentence: str, mend: str | None
) -> Check:
    return Check(name, CheckOutcome.FAIL, value, limit, sentence, mend)


def skipped(name: str, why: str) -> Check:
    return Check(name, CheckOutcome.SKIPPED, None, None, why)


def guarded(name: str, look: Callable[[], Check], mend: str | None) -> Check:
    """What goes wrong in looking is the check's outcome."""
    try:
        return look()
    except StoreUnavailable as error:
        # Behind is no failure: `serve` migrates before it serves, and the message names the command.
        behind = "phasegate db migrate" in str(error)
        outcome = CheckOutcome.WARNING if behind else CheckOutcome.FAIL
        said = " ".join(str(error).split())  # a driver's message may have many lines
        return Check(name, outcome, None, None, said, "phasegate db migrate" if behind else mend)
    except (PhasegateError, OSError) as error:
        return failed(name, None, None, str(error), mend)


def nearest(place: Path) -> Path:
    """The directory itself, or the closest of those above it that is there."""
    while not place.exists():
        place = place.parent
    return place
