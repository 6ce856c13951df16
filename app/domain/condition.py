"""What is one condition of a gate, and how does it say what is missing?

Pass needs proof, fail needs proof of the contrary (law 5); what lies between is insufficient. What cannot be
read is an error.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

_DAY_S = 86_400.0
HOPELESS = "at this rate no number of"  # what it says of a condition that no waiting fulfils
_BY_PEOPLE = ("approvals", "validation")  # no waiting fulfils them


class GateOutcome(StrEnum):
    """Listed from good to bad."""

    PASS = "pass"  # noqa: S105 - no password
    INSUFFICIENT = "insufficient"
    FAIL = "fail"
    ERROR = "error"


def worst(outcomes: Iterable[GateOutcome]) -> GateOutcome:
    """Error over fail over insufficient over pass; of nothing, insufficient."""
    return max(outcomes, key=tuple(GateOutcome).index, default=GateOutcome.INSUFFICIENT)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, judged. `bound` is the side of the confidence bound that the limit is held against,
    `needed` the further observations at the rate seen, `eta_s` their time at the present traffic.
    """

    name: str
    outcome: GateOutcome
    sentence: str
    value: float | None = None
    bound: float | None = None
    limit: float | None = None
    n: int | None = None
    needed: int | None = None
    eta_s: float | None = None


def unmet(conditions: Iterable[Condition]) -> list[Condition]:
    """What stands in the way most comes first: the gravest, then what takes longest, then what people do."""

    def weight(judged: Condition) -> tuple[int, bool, float]:
        eta_s = math.inf if judged.eta_s is None else judged.eta_s
        return -tuple(GateOutcome).index(judged.outcome), judged.name in _BY_PEOPLE, -eta_s

    return sorted((judged for judged in conditions if judged.outcome is not GateOutcome.PASS), key=weight)


def brief(judged: Condition) -> str:
    """What is missing and when it may be there, without the figures that prove it."""
    name, said = judged.name.replace("_", " "), judged.sentence
    if judged.needed is None and ", but " in said:
        return f"{name}: {said.split(', but ', 1)[1]}"
    if judged.name == "approvals" or judged.needed is None:
        return said
    return f"{name}: {said.rsplit(': ', 1)[-1]}"


def told(judged: Condition, per_day: float | None, what: str) -> Condition:
    """Say how many more of `what`, in the singular, are needed, and how long they take where so many come a
    day; None: that is not known.
    """
    more = judged.needed
    if judged.outcome is not GateOutcome.INSUFFICIENT:
        return judged
    if more is None:
        is_low = judged.bound is not None and judged.value is not None and judged.bound < judged.value
        said = f"too {'low' if is_low else 'high'}: {HOPELESS} {what}s would do; the model or the rules must change"
        return replace(judged, sentence=f"{judged.sentence}: {said}")
    said = f"{judged.sentence}: {more} more {what}" + "s" * (more > 1)
    if per_day is None:
        return replace(judged, sentence=said)
    if not per_day:
        # An epoch that has had some has been without for a whole day; a young one may just have begun.
        none = "none came in the last 24 h" if judged.n else "none yet in this epoch"
        return replace(judged, sentence=f"{said}, but {none}")
    eta_s = more / per_day * _DAY_S
    return replace(judged, eta_s=eta_s, sentence=f"{said}, about {_about(eta_s)}")


def enough(name: str, said: str, n: int, at_least: int, *, per_day: float | None, what: str) -> Condition:
    """At least so many of `what`, in the singular."""
    more = max(at_least - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    return told(Condition(name, outcome, said, float(n), None, float(at_least), n, more), per_day, what)


def unproven(judged: Condition, why: str) -> Condition:
    """Insufficient after all, whatever the figures are."""
    sentence = f"{judged.sentence}{why}"
    return replace(judged, outcome=GateOutcome.INSUFFICIENT, sentence=sentence, needed=None)


def waited(name: str, said: str, value: float, limit: float, *, n: int | None = None) -> Condition:
    left_s = max(limit - value, 0.0) * _DAY_S
    if not left_s:
        return Condition(name, GateOutcome.PASS, said, value, None, limit, n, None, 0.0)
    said += f": about {_about(left_s)} more"
    return Condition(name, GateOutcome.INSUFFICIENT, said, value, None, limit, n, None, left_s)


def span(days: float) -> str:
    """A length of time as a person says it."""
    if days >= 1:
        return "1 day" if days == 1 else f"{days:.3g} days"
    hours, seconds = days * 24, days * _DAY_S
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds:.3g} s"


def percent(share: float) -> str:
    """A share that somebody has set, as it is: 0.025 is `2.5 %`."""
    return f"{share * 100:.4g} %"


def rate(value: float | None) -> str:
    """A share that was seen, to one decimal place; two digits of it, where that would read as none or all."""
    if value is None:
        return "unknown"
    said = round(value * 100, 1)
    if said == 0 and value:
        return f"{value * 100:.2g} %"
    if said == 100 and value != 1:
        return f"{100 - float(f'{(1 - value) * 100:.2g}'):.10g} %"
    return f"{said:g} %"


def _about(seconds: float) -> str:
    """A length of time in whole units, as a person estimates it."""
    for unit, length in (("day", _DAY_S), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0)):
        if seconds >= length:
            n = round(seconds / length)
            return f"{n} {unit}" + "s" * (n > 1)
    return "a second"
