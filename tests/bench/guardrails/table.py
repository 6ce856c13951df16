"""How often does each rule roll a healthy stream back, and how soon a bad one?"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.guardrails.rules import HORIZON_DAYS, LIMIT, NEVER, RULES, Ints, Looks, agrees

CHANGE_DAY = 2
HEALTHY = {"half": LIMIT / 2, "limit": LIMIT}
CHANGED = {"1.5x": 1.5 * LIMIT, "2x": 2 * LIMIT, "4x": 4 * LIMIT, "50 %": 0.5}

_LOOKS_A_DAY = {"decision": None, "minute": 1_440, "hour": 24, "day": 1}
_OFTEN = ("decision", "hour", "day")
_PLAN = {100: _OFTEN, 1_000: _OFTEN, 10_000: ("minute", "hour", "day")}
_WINDOW = 200
_SURVIVORS = 0.05  # where fewer are left before the change, a delay says nothing


# Hours from the change to the rollback, median and 95th percentile; infinite is not within the horizon.
Delay = tuple[float, float] | None
SoFar = NDArray[np.int32]  # bad decisions: one row a decision, one column a stream


@dataclass(frozen=True, slots=True)
class Row:
    """One rule at one volume a day and one rhythm of looks, by effect.

    `rolled_back` are shares of streams within 14 days: of a healthy one, false. `delay` is None where hardly a
    stream was left to become bad.
    """

    rule: str
    volume: int
    looks: str
    rolled_back: dict[str, float]
    delay: dict[str, Delay]


def rows(chance: np.random.Generator, *, streams: int) -> Iterator[Row]:
    """Every rule at every volume and rhythm, with a quarter of the streams where there are 10,000 a day.

    Raises AssertionError where ours is not what the plane does.
    """
    for volume, rhythms in _PLAN.items():
        rolled_back: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        delay: dict[tuple[str, str], dict[str, Delay]] = defaultdict(dict)
        for effect, rate in {**HEALTHY, **CHANGED}.items():
            some = streams if volume < 10_000 else streams // 4
            bad = _counts(chance, volume, rate, changes=effect in CHANGED, streams=some)
            for rhythm in rhythms:
                looks = _looks(bad, volume, rhythm)
                assert agrees(looks, range(1 if len(looks.n) > 1_000 else 10)), (volume, rhythm, effect)
                for name, rule in RULES.items():
                    alarms = rule(looks)
                    rolled_back[name, rhythm][effect] = float((alarms != NEVER).mean())
                    delay[name, rhythm][effect] = _delay(alarms, looks)
        for rhythm in rhythms:
            for name in RULES:
                at = name, rhythm
                yield Row(name, volume, rhythm, rolled_back[at], delay[at])


def _counts(chance: np.random.Generator, volume: int, rate: float, *, changes: bool, streams: int) -> SoFar:
    """Bad decisions so far after each decision, one column a stream; a changed one is healthy at first."""
    n, before = volume * HORIZON_DAYS, volume * CHANGE_DAY if changes else 0
    rates = np.where(np.arange(n) < before, LIMIT / 2, rate).astype(np.float32)
    bad = chance.random((n, streams), dtype=np.float32) < rates[:, None]
    return np.concatenate([np.zeros((1, streams), np.int32), np.cumsum(bad, axis=0, dtype=np.int32)])


def _looks(bad: SoFar, volume: int, rhythm: str) -> Looks:
    a_day = _LOOKS_A_DAY[rhythm] or volume
    number = np.arange(1, a_day * HORIZON_DAYS + 1)
    n = number * volume // a_day
    number, n = number[n > 0], n[n > 0]
    recent = bad[n] - bad[np.maximum(n - _WINDOW, 0)]
    return Looks(number / a_day, n, bad[n].astype(np.int64), recent.astype(np.int64))


def _delay(alarms: Ints, looks: Looks) -> Delay:
    days = np.where(alarms == NEVER, np.inf, looks.days[alarms])
    left = days > CHANGE_DAY
    if left.mean() < _SURVIVORS:
        return None
    hours = (days[left] - CHANGE_DAY) * 24
    low, high = np.quantile(hours, [0.5, 0.95], method="higher")
    return float(low), float(high)
