"""Has one address guessed too often?"""

import time
from collections.abc import Callable

_MOST, _WINDOW_S = 30, 300.0
_ADDRESSES = 10_000


class Throttle:
    """Counts failures by address, in this process alone, from the first of each window on."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failures: dict[str, tuple[int, float]] = {}

    def refuses(self, address: str) -> bool:
        return self._count(address)[0] >= _MOST

    def failed(self, address: str) -> None:
        count, since = self._count(address)
        if len(self._failures) >= _ADDRESSES:
            self._failures.pop(next(iter(self._failures)))  # the one that began first
        self._failures[address] = count + 1, since

    def _count(self, address: str) -> tuple[int, float]:
        now = self._monotonic()
        count, since = self._failures.get(address, (0, now))
        if now - since < _WINDOW_S:
            return count, since
        self._failures.pop(address, None)
        return 0, now
