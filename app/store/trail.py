"""How did the evidence of a guardrail come to where it is, in few points?"""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from app.domain.clock import rfc3339

POINTS = 64

_LARGEST = 1e300


class Trail:
    """The e-value and rate of one epoch, oldest first, as JSON `[[seconds since 1970, e-value, rate], …]`.

    The newest point is always there. When there are too many every second one goes, and from then on they
    stay twice as far apart. Points are kept as text: a trail is written far more often than read.
    """

    def __init__(self, points: Iterable[tuple[int, float, float | None]] = ()) -> None:
        self._at: list[int] = []
        self._texts: list[str] = []
        for at_s, e_value, rate in points:
            self._at.append(at_s)
            self._texts.append(_text(at_s, e_value, rate))
        self._apart_s = self._smallest_gap_s()

    @classmethod
    def of(cls, text: str | None) -> "Trail":
        return cls(json.loads(text) if text else ())

    @property
    def text(self) -> str | None:
        return f"[{','.join(self._texts)}]" if self._texts else None

    def add(self, at_s: int, e_value: float, rate: float | None) -> None:
        """Take in the newest point."""
        at, texts = self._at, self._texts
        if len(at) > 1 and at[-1] - at[-2] < self._apart_s:  # the last one has only stood in for this
            del at[-1], texts[-1]
        at.append(at_s)
        texts.append(_text(at_s, e_value, rate))
        if len(at) > POINTS:
            del at[-2::-2], texts[-2::-2]
            self._apart_s = max(2 * self._apart_s, self._smallest_gap_s())

    def _smallest_gap_s(self) -> int:
        """Between those that stay: the newest one may only stand in for the next."""
        return min((later - earlier for earlier, later in pairwise(self._at[:-1])), default=0)


def points_of(text: str | None) -> list[dict[str, Any]]:
    """A trail as it is shown; none of what was kept before there were trails."""
    return [
        {"at": rfc3339(at_s * 1_000_000), "e_value": e_value, "rate": rate}
        for at_s, e_value, rate in json.loads(text or "[]")
    ]


def _text(at_s: int, e_value: float, rate: float | None) -> str:
    said = "null" if rate is None else f"{rate:.4g}"
    return f"[{at_s},{min(e_value, _LARGEST):.4g},{said}]"
