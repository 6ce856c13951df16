"""How far have the model's answers moved from their baseline?

Total variation over three labels is the largest change of a share. "No share has moved by more than delta"
is six one-sided limits: each share at most delta above its baseline, and at most delta below.
"""

from collections.abc import Mapping

from app.domain.decision import Decision
from app.domain.stream import Counted, Tally

BASELINE_AT_LEAST = 300  # shadow decisions that make a baseline


def shift_tallies(
    answers: Mapping[str, int], baseline: Mapping[str, int], *, limit: float
) -> dict[str, Counted]:
    """One tally for each one-sided limit that lies between 0 and 1.

    A test needs room between what it allows and what it must catch: to catch `limit`, delta is half of it.
    """
    n, whole, delta = sum(answers.values()), sum(baseline.values()), limit / 2
    tallies: dict[str, Tally] = {}
    for decision in Decision if whole else ():
        share, count = baseline.get(decision, 0) / whole, answers.get(decision, 0)
        tallies[f"{decision}+"] = Tally(n, count, share + delta)
        tallies[f"{decision}-"] = Tally(n, n - count, 1 - (share - delta))
    return {name: tally for name, tally in tallies.items() if 0 < tally.limit < 1}


def total_variation(answers: Mapping[str, int], baseline: Mapping[str, int]) -> float | None:
    """0..1, or None where either is empty."""
    n, whole = sum(answers.values()), sum(baseline.values())
    if not n or not whole:
        return None
    return max(abs(answers.get(d, 0) / n - baseline.get(d, 0) / whole) for d in Decision)
