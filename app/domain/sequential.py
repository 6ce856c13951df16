"""How much do yes-or-no observations speak against a limit, asked as often as one likes?

Two tests that stay valid however often they are looked at. The guardrail's is a mixture of
Shiryaev-Roberts e-processes (e-SR: Shin, Ramdas & Rinaldo 2024, "E-detectors", with a head start): it
looks for a rate that has risen above its limit, at an unknown time. The gate's is a mixture martingale
(Robbins 1970) over a Beta(1/2, 1/2) prior truncated to the rates below the limit: it looks for proof that
the rate lies below. A limit is a rate between 0 and 1, both excluded.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from app.domain.beta import log_beta, log_share_below

ODDS_RATIOS = (1.6, 2.2, 3.5, 7.0, 20.0)
HEAD_START = 0.5

Stream = tuple[float, ...]
Number = TypeVar("Number", int, float)

_LARGEST = 1e300  # evidence beyond this says nothing more, and infinity cannot be multiplied by 0
_LOG_LARGEST = math.log(_LARGEST)
_DAY_S = 86_400.0
_PRIOR = 0.5
_GRID = 128
_MOST_NEEDED = 10_000_000
_PRECISION = 1e-9


@dataclass(frozen=True, slots=True)
class Watch:
    """What a stream of samples said. `alarm_at` is the 1-based sample of the alarm."""

    alarm_at: int | None
    e_value: float
    n: int


@dataclass(frozen=True, slots=True)
class Group:
    """`bad` of `n` observations that were drawn with the same probability.

    `weight` is the smallest probability of all groups over this one's, above 0 and at most 1.
    """

    n: float
    bad: float
    weight: float = 1.0


def start(share: float = 1.0) -> Stream:
    """A stream at the entry of a phase: half of the horizon's allowance is spent at once.

    `share` is that of the horizon, 0..1, after which a stream starts anew: together they spend no more.
    """
    return (HEAD_START * share,) * len(ODDS_RATIOS)


def gap(elapsed_s: float, horizon_days: float) -> float:
    """The share of the allowance that falls due with the time since the last observation."""
    return (1 - HEAD_START) * max(elapsed_s, 0.0) / (horizon_days * _DAY_S)


def step(stream: Stream, *, n: int, bad: int, limit: float, gap: float) -> Stream:
    """Fold in one batch of `n` observations of which `bad` were bad: S = A^bad B^(n - bad) (S + g)."""
    _check(n, bad, limit)
    return tuple(
        [
            grown(s + gap, bad * if_bad + (n - bad) * if_good)
            for s, (if_bad, if_good) in zip(stream, _log_factors_of(limit), strict=True)
        ]
    )


def weighted_step(stream: Stream, *, bad: bool, weight: float, limit: float, gap: float) -> Stream:
    """Fold in one drawn label: the factor is 1 + l w (x - p0), which for weight 1 is A or B.

    `weight` is the smallest inclusion probability that the sampling can have over this label's.
    """
    factors = _weighted_factors(int(bad), weight, limit)
    return tuple(min((s + gap) * factor, _LARGEST) for s, factor in zip(stream, factors, strict=True))


def grown(value: float, log_factor: float) -> float:
    """Evidence times a factor that is given by its logarithm, without overflow."""
    if log_factor <= 0:
        return value * math.exp(log_factor)
    if not value:
        return 0.0
    return math.exp(min(math.log(value) + log_factor, _LOG_LARGEST))


def e_value(stream: Stream) -> float:
    """The evidence that the rate has risen above the limit; an alarm at 1/alpha or more."""
    return sum(stream) / len(stream)


def watch(samples: Iterable[int], *, limit: float, alpha: float, gap: float) -> Watch:
    """Read samples, 1 for a bad one, until the alarm; `gap` is the same at every sample."""
    stream, n = start(), 0
    for n, sample in enumerate(samples, start=1):
        stream = step(stream, n=1, bad=sample, limit=limit, gap=gap)
        if e_value(stream) >= 1 / alpha:
            return Watch(n, e_value(stream), n)
    return Watch(None, e_value(stream), n)


@lru_cache(maxsize=16_384)  # every look at a page asks the same of what has not changed
def log_m(n: float, bad: float, limit: float) -> float:
    """The logarithm of M against "the bad rate is `limit` or more"; it is proved below the limit at M >= 1/alpha."""
    _check(n, bad, limit)
    a, b = _PRIOR + bad, _PRIOR + n - bad
    gained = log_beta(a, b) + log_share_below(limit, a, b)
    prior = log_beta(_PRIOR, _PRIOR) + log_share_below(limit, _PRIOR, _PRIOR)
    return gained - prior - bad * math.log(limit) - (n - bad) * math.log1p(-limit)


def weighted_log_m(groups: Sequence[Group], limit: float) -> float:
    """`log_m` for groups that were drawn with unequal probabilities.

    For each rate q of the prior the factor of an observation is 1 + w (p0 - q)(p0 - x) / (p0 (1 - p0)):
    its mean is at most 1 where the population's rate is p0 or more. Equal weights give `log_m` itself.
    """
    if len({group.weight for group in groups if group.n}) <= 1:
        return log_m(sum(group.n for group in groups), sum(group.bad for group in groups), limit)
    # Beta(1/2, 1/2) is uniform in the angle whose squared sine is the rate.
    end = math.asin(math.sqrt(limit))
    rates = (math.sin(end * (node + 0.5) / _GRID) ** 2 for node in range(_GRID))
    bets = [(limit - rate) / (limit * (1 - limit)) for rate in rates]
    log1p, log_factors = math.log1p, [0.0] * _GRID
    for group in groups:  # tight, for a person waits for this
        if_good, if_bad = group.weight * limit, group.weight * (limit - 1)
        for count, change in ((group.n - group.bad, if_good), (group.bad, if_bad)):
            if count:
                pairs = zip(log_factors, bets, strict=True)
                log_factors = [so_far + count * log1p(bet * change) for so_far, bet in pairs]
    return log_mean_exp(log_factors)


def below(groups: Sequence[Group], limit: float, alpha: float) -> bool:
    """The bad rate is proved to lie below the limit."""
    return weighted_log_m(groups, limit) >= -math.log(alpha)


def above(groups: Sequence[Group], limit: float, alpha: float) -> bool:
    """The bad rate is proved to lie above the limit: the same test of the good rate."""
    return below(_reversed(groups), 1 - limit, alpha)


def upper_bound(n: float, bad: float, alpha: float) -> float:
    """The anytime-valid upper bound of the bad rate: the smallest limit that it is proved to be below."""
    return upper([Group(n, bad)], alpha)


def lower_bound(n: float, bad: float, alpha: float) -> float:
    """The anytime-valid lower bound of the bad rate."""
    return lower([Group(n, bad)], alpha)


def upper(groups: Sequence[Group], alpha: float) -> float:
    """`upper_bound` for groups."""
    n = sum(group.n for group in groups)
    if n <= sum(group.bad for group in groups):
        return 1.0
    return smallest(
        lambda limit: weighted_log_m(groups, limit) + math.log(alpha),
        above=weighted_rate(groups),
        width=2 / math.sqrt(n),
    )


def lower(groups: Sequence[Group], alpha: float) -> float:
    """`lower_bound` for groups."""
    return 1 - upper(_reversed(groups), alpha)


def weighted_rate(groups: Sequence[Group]) -> float:
    """The bad rate of the population that the groups were drawn from; 0 of nothing is 0."""
    n = sum(group.weight * group.n for group in groups)
    return sum(group.weight * group.bad for group in groups) / n if n else 0.0


def needed(groups: Sequence[Group], limit: float, alpha: float) -> int | None:
    """How many more observations would prove the rate below the limit, if it stays as seen.

    None where it never would. Of no observations at all, the best case.
    """
    n = sum(group.n for group in groups)
    seen = [Group(g.n / n, g.bad / n, g.weight) for g in groups] if n else [Group(1.0, 0.0)]

    def excess(more: int) -> float:
        of_so_many = [Group(g.n * (n + more), g.bad * (n + more), g.weight) for g in seen]
        return weighted_log_m(of_so_many, limit) + math.log(alpha)

    return fewest(excess)


def smallest(excess: Callable[[float], float], *, above: float, width: float) -> float:
    """The smallest number from `above`, where it is negative, to 1 at which a rising function is 0 or more.

    1 where there is none. `width` is how far to step at first.
    """
    low, at_low = above, -3.0  # only a guess: about the logarithm of an alpha
    while 1 - low > _PRECISION:
        high = min(low + width, (low + 1) / 2)
        at_high = excess(high)
        if at_high >= 0:
            return _crossing(excess, (low, at_low), (high, at_high), _between)
        low, at_low = high, at_high
    return 1.0


def fewest(excess: Callable[[int], float]) -> int | None:
    """The smallest number from 0 on at which a rising function is 0 or more; None where none in reach is."""
    low, at_low, high = 0, excess(0), 1
    if at_low >= 0:
        return 0
    while (at_high := excess(high)) < 0:
        if high >= _MOST_NEEDED:
            return None
        low, at_low, high = high, at_high, min(high * 4, _MOST_NEEDED)
    return _crossing(excess, (low, at_low), (high, at_high), _whole_between)


def no_events_needed(limit: float, alpha: float) -> int:
    """The fewest observations n, none bad, that prove the rate below the limit: (1 - p0)^-n >= 1/alpha."""
    return math.ceil(math.log(alpha) / math.log1p(-limit))


def no_events_upper(n: int, alpha: float) -> float:
    """The smallest limit that `n` observations without one bad prove the rate to be below."""
    return -math.expm1(math.log(alpha) / n) if n else 1.0


@lru_cache(maxsize=256)
def _log_factors_of(limit: float) -> tuple[tuple[float, float], ...]:
    """(ln A_k, ln B_k), which a stream needs at every step."""
    return tuple((math.log(q / limit), math.log1p(-q) - math.log1p(-limit)) for q in _alternatives(limit))


@lru_cache(maxsize=1024)
def _weighted_factors(bad: int, weight: float, limit: float) -> tuple[float, ...]:
    _check(1, bad, limit)
    bet = min(weight, 1.0) * (bad - limit) / (limit * (1 - limit))
    return tuple(1 + (q - limit) * bet for q in _alternatives(limit))


def _alternatives(limit: float) -> Iterable[float]:
    odds = limit / (1 - limit)
    return (odds * ratio / (1 + odds * ratio) for ratio in ODDS_RATIOS)


def _crossing(
    excess: Callable[[Number], float],
    below_it: tuple[Number, float],
    above_it: tuple[Number, float],
    between: Callable[[Number, Number, float], Number | None],
) -> Number:
    """Where a rising function crosses zero, from above: the Illinois method (Dowell & Jarratt 1971).

    Begins with a place and the function's value on either side; `between` takes two places and a guess to
    the next place to look at, or None where they are close enough.
    """
    (low, at_low), (high, at_high), was = below_it, above_it, 0
    while (place := between(low, high, high - (high - low) * at_high / (at_high - at_low))) is not None:
        value = excess(place)
        if value >= 0:
            high, at_high = place, value
            at_low, was = (at_low / 2 if was > 0 else at_low), 1
        else:
            low, at_low = place, value
            at_high, was = (at_high / 2 if was < 0 else at_high), -1
    return high


def _between(low: float, high: float, guess: float) -> float | None:
    # Never quite at an end, so that both ends close in.
    margin = (high - low) / 1_000
    return None if high - low <= _PRECISION else min(max(guess, low + margin), high - margin)


def _whole_between(low: int, high: int, guess: float) -> int | None:
    return None if high - low <= 1 else min(max(round(guess), low + 1), high - 1)


def log_mean_exp(values: Sequence[float]) -> float:
    """The logarithm of the mean of exp(values), without overflow."""
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))


def _reversed(groups: Sequence[Group]) -> list[Group]:
    return [Group(group.n, group.n - group.bad, group.weight) for group in groups]


def _check(n: float, bad: float, limit: float) -> None:
    if not 0 < limit < 1:
        raise ValueError(f"a limit lies between 0 and 1, not at {limit}")
    if not 0 <= bad <= n:
        raise ValueError(f"{bad} of {n} is not a count")
