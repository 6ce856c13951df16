"""How does the worker carry out a fault?"""

import os
import threading

from app.engines.model.fault import Fault, Kind
from app.engines.model.runtime import Abort, Aborted

_TICK_S = 0.01


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

    def suffer(self, abort: Abort) -> None:
        """Hang until the fault is lifted, crash, or be slow; raises `Aborted` as a slow model would."""
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

    def _dawdle(self, fault: Fault, abort: Abort) -> None:
        left = fault.delay_s
        with self._changed:
            while left > 0 and self._fault is fault:
                if abort():
                    raise Aborted
                self._changed.wait(min(left, _TICK_S))
                left -= _TICK_S
