"""Which faults can a drill ask for, and how does the worker carry them out?"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.errors import SettingsError

_SETTING = "PHASEGATE_MODEL_FAULT"
_TICK_S = 0.01


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


class Drill:
    """The fault in force. The reader thread sets it, the computing thread suffers it."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._changed = threading.Condition()

    def set(self, fault: Fault | None) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    @property
    def garbles(self) -> bool:
        """Whether answers are to be nonsense."""
        return self._fault is not None and self._fault.kind is Kind.GARBAGE

    def suffer(self, abort: Callable[[], bool]) -> None:
        """Hang until the fault is lifted, crash, or be slow until that is over or `abort` says stop."""
        fault = self._fault
        if fault is None:
            return
        match fault.kind:
            case Kind.HANG:
                with self._changed:
                    self._changed.wait_for(lambda: self._fault is not fault)
            case Kind.CRASH:
                os.abort()
            case Kind.SLOW:
                self._dawdle(fault, abort)
            case Kind.GARBAGE:
                pass

    def _dawdle(self, fault: Fault, abort: Callable[[], bool]) -> None:
        left = fault.delay_s
        with self._changed:
            while left > 0 and self._fault is fault and not abort():
                self._changed.wait(min(left, _TICK_S))
                left -= _TICK_S
