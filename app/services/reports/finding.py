"""Does one requirement hold, and what was found?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.services.reports.facts import Facts, RolloutFacts

AT_LEAST = 30  # cases, for a rate to be compared with its target


class Outcome(StrEnum):
    MET = "met"
    UNMET = "unmet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of the plane or, in `parts`, of one `rollout`."""

    outcome: Outcome
    sentence: str
    value: float | None = None
    rollout: str | None = None
    parts: Sequence["Finding"] = ()


def is_met(holds: bool) -> Outcome:  # noqa: FBT001 -- a truth becomes an outcome
    return Outcome.MET if holds else Outcome.UNMET


def enough(n: int, *, holds: bool) -> Outcome:
    """Unknown of too few cases."""
    return is_met(holds) if n >= AT_LEAST else Outcome.UNKNOWN


def rate(part: int, n: int, holds: Callable[[float], bool], what: str) -> Finding | None:
    """A share of `n` cases; None of none."""
    if not n:
        return None
    share = part / n
    return Finding(enough(n, holds=holds(share)), f"{what} {share:.1%} of {n}", share)


def each(judge: Callable[[RolloutFacts], Finding | None]) -> Callable[[Facts], Finding]:
    """Judge every rollout. Unmet where one is, else unknown where one is; those with nothing to show are left
    out and counted in the sentence.
    """

    def all_of(facts: Facts) -> Finding:
        judged = [(one.name, judge(one)) for one in facts.rollouts]
        parts = [replace(found, rollout=name) for name, found in judged if found is not None]
        if not parts:
            return Finding(Outcome.UNKNOWN, "no rollout has anything to show for it")
        outcomes = {part.outcome for part in parts}
        outcome = next((o for o in (Outcome.UNMET, Outcome.UNKNOWN) if o in outcomes), Outcome.MET)
        said = "; ".join(f"{part.rollout}: {part.sentence}" for part in parts if part.outcome is outcome)
        silent = len(judged) - len(parts)
        said += f" ({silent} of {len(judged)} rollouts have nothing to show)" if silent else ""
        return Finding(outcome, said, parts[0].value if len(parts) == 1 else None, parts=parts)

    return all_of
