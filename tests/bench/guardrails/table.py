"""How often does each rule roll a healthy stream back, and how soon a bad one?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.bench.guardrails.rules import HORIZON_DAYS, LIMIT, NEVER, RULES, Looks, agrees

CHANGE_DAY = 2
HEALTHY = {"half": LIMIT / 2, "limit": LIMIT}
CHANGED = {"1.5x": 1.5 * LIMIT, "2x": 2 * LIMIT, "4x": 4 * LIMIT, "50 %": 0.5}

_LOOKS_A_DAY = {"decision": None, "minute": 1_440, "hour": 24, "day": 1}
_PLAN = {
    100: ("decision", "hour", "day"),
    1_000: ("decision", "hour", "day"),
    10_000: ("minute", "hour", "day"),
}
_WINDOW = 200
_SURVIVORS = 0.05  # where fewer are left before the change, a delay says nothing


@dataclass(frozen=True, slots=True)
class Row:
    """One rule at one volume a day and one rhythm of looks.

    `false` are shares of streams rolled back in 14 days; `delay` hours from the change to the rollback, median
    and 95th percentile, infinite where it did not come within the horizon; None where hardly a stream was left.
    """

    rule: str
    volume: int
    looks: str
    false: dict[str, float]
    delay: dict[str, tuple[float, float] | None]


def rows(chance: np.random.Generator, *, streams: int) -> Iterator[Row]:
    """Every rule at every volume and rhythm. Raises AssertionError where ours is not what the plane does."""
    for volume, rhythms in _PLAN.items():
        effects = {**HEALTHY, **CHANGED}
        some = streams if volume < 10_000 else streams // 4
        simulated = {
            name: _counts(chance, volume, rate, changes=name in CHANGED, streams=some)
            for name, rate in effects.items()
        }
        for rhythm in rhythms:
            looks = {name: _looks(bad, volume, rhythm) for name, bad in simulated.items()}
            checked = range(1 if len(looks["4x"].n) > 1_000 else 10)
            assert all(agrees(seen, checked) for seen in looks.values()), f"{volume} a day, each {rhythm}"
            for name, rule in RULES.items():
                alarms = {effect: rule(seen) for effect, seen in looks.items()}
                false = {effect: float((alarms[effect] != NEVER).mean()) for effect in HEALTHY}
                delay = {effect: _delay(alarms[effect], looks[effect]) for effect in CHANGED}
                yield Row(name, volume, rhythm, false, delay)


def _counts(
    chance: np.random.Generator, volume: int, rate: float, *, changes: bool, streams: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Bad decisions so far after each decision, one column a stream; a changed one is healthy at first."""
    n, before = volume * HORIZON_DAYS, volume * CHANGE_DAY if changes else 0
    rates = np.where(np.arange(n) < before, LIMIT / 2, rate).astype(np.float32)
    bad = chance.random((n, streams), dtype=np.float32) < rates[:, None]
    return np.concatenate([np.zeros((1, streams), np.int32), np.cumsum(bad, axis=0, dtype=np.int32)])


def _looks(bad: np.ndarray[tuple[int, int], np.dtype[np.int32]], volume: int, rhythm: str) -> Looks:
    a_day = _LOOKS_A_DAY[rhythm] or volume
    number = np.arange(1, a_day * HORIZON_DAYS + 1)
    n = number * volume // a_day
    number, n = number[n > 0], n[n > 0]
    return Looks(
        number / a_day,
        n,
        bad[n].astype(np.int64),
        (bad[n] - bad[np.maximum(n - _WINDOW, 0)]).astype(np.int64),
    )


def _delay(alarms: np.ndarray[tuple[int], np.dtype[np.int64]], looks: Looks) -> tuple[float, float] | None:
    days = np.where(alarms == NEVER, np.inf, looks.days[alarms])
    left = days > CHANGE_DAY
    if left.mean() < _SURVIVORS:
        return None
    hours = (days[left] - CHANGE_DAY) * 24
    low, high = np.quantile(hours, [0.5, 0.95], method="higher")
    return float(low), float(high)
