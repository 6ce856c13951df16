"""Which faults can a drill ask for?"""

from dataclasses import dataclass
from enum import StrEnum

from app.errors import SettingsError

_SETTING = "PHASEGATE_MODEL_FAULT"


class Kind(StrEnum):
    HANG = "hang"
    CRASH = "crash"
    GARBAGE = "garbage"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Fault:
    """`delay_s` belongs to `slow`."""

    kind: Kind
    delay_s: float = 0.0


def parse_fault(text: str | None) -> Fault | None:
    """Read `hang`, `crash`, `garbage` or `slow:<ms>`. Raises `SettingsError`."""
    if not text:
        return None
    name, _, number = text.partition(":")
    if name == Kind.SLOW and number.isdecimal():
        return Fault(Kind.SLOW, int(number) / 1000)
    if number or name not in set(Kind) - {Kind.SLOW}:
        raise SettingsError(_SETTING, f"must be hang, crash, garbage or slow:<ms>, not {text!r}")
    return Fault(Kind(name))
