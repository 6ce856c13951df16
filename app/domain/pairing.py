"""How far has the model moved from the legacy engine, on the same situations?

D_k is 1 where the model alone says k, -1 where the legacy engine alone does, else 0. Other traffic moves both
engines alike, so the mean of D_k stays; another model moves it. "No mean has moved by more than delta from
the baseline's" is six one-sided limits on +-D_k, each a bet on the mean of a bounded variable: the factor of
a sample is 1 + l (+-D_k - limit), whose mean is at most 1 within the limit (Waudby-Smith & Ramdas 2024,
"Estimating means of bounded random variables by betting": the capital process).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from app.domain.decision import Decision
from app.domain.sequential import Stream, grown
from app.domain.stream import Counted, Counts

BETS = (0.15, 0.3, 0.45, 0.6, 0.8)

_LOST_AT_MOST = 0.9  # of the evidence, by the worst sample: no factor is negative, nor next to nothing


@dataclass(frozen=True, slots=True)
class Difference:
    """Of `n` pairs so far, `up` counted 1 and `down` -1, against a limit of the mean in (-1, 1)."""

    n: int
    up: int
    down: int
    limit: float

    @property
    def counts(self) -> Counts:
        return self.n, self.up, self.down

    def grown(self, stream: Stream, gained: Counts, *, gap: float) -> Stream:
        n, up, down = gained
        return tuple(
            [
                grown(s + gap, up * if_up + down * if_down + (n - up - down) * if_same)
                for s, (if_up, if_down, if_same) in zip(stream, _log_factors(self.limit), strict=True)
            ]
        )


def paired_tallies(
    pairs: Mapping[str, int], baseline: Mapping[str, int], *, limit: float
) -> dict[str, Counted]:
    """One stream for each side of each decision that can pass its limit; pairs are by "legacy>model".

    To catch a move of `limit`, half of it is allowed.
    """
    n, whole, delta = sum(pairs.values()), sum(baseline.values()), limit / 2
    found = {}
    for decision in Decision if whole else ():
        up, down = _moved(pairs, decision)
        usual = _difference(baseline, decision, whole)
        found[f"{decision}+"] = Difference(n, up, down, delta + usual)
        found[f"{decision}-"] = Difference(n, down, up, delta - usual)
    return {name: each for name, each in found.items() if each.limit < 1}


def paired_variation(pairs: Mapping[str, int], baseline: Mapping[str, int]) -> float | None:
    """The largest move of a mean difference, 0..2, or None where either is empty."""
    n, whole = sum(pairs.values()), sum(baseline.values())
    if not n or not whole:
        return None
    return max(abs(_difference(pairs, d, n) - _difference(baseline, d, whole)) for d in Decision)


def _difference(pairs: Mapping[str, int], decision: Decision, whole: int) -> float:
    up, down = _moved(pairs, decision)
    return (up - down) / whole


def _moved(pairs: Mapping[str, int], decision: Decision) -> Counts:
    """How many pairs are the model's alone, and how many the legacy engine's, of one decision."""
    ups, downs = _LABELS[decision]
    return sum(pairs.get(label, 0) for label in ups), sum(pairs.get(label, 0) for label in downs)


@lru_cache(maxsize=4096)
def _log_factors(limit: float) -> tuple[tuple[float, float, float], ...]:
    """(if up, if down, if the same), for each bet."""
    scale = min(1.0, _LOST_AT_MOST / (BETS[-1] * (1 + limit)))
    bets = (bet * scale for bet in BETS)
    return tuple(
        (math.log1p(bet * (1 - limit)), math.log1p(bet * (-1 - limit)), math.log1p(-bet * limit))
        for bet in bets
    )


_LABELS = {
    decision: (
        [f"{other}>{decision}" for other in Decision if other is not decision],
        [f"{decision}>{other}" for other in Decision if other is not decision],
    )
    for decision in Decision
}
