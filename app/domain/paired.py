"""Is one of two versions worse than the other, on the same situations, by more than may be?

D is +1 where only the active version was right, -1 where only the candidate was, 0 else. The hypothesis
"E[D] is `limit` or more" is tested by a mixture of bets (Waudby-Smith & Ramdas 2024, "Estimating means of
bounded random variables by betting"): each situation multiplies the wealth by 1 + l (limit - D), averaged
over l. Wealth of 1/alpha proves the candidate worse by less than `limit`, however often one looks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.condition import GateOutcome
from app.domain.sequential import fewest, log_mean_exp, smallest

_BETS = (0.15, 0.3, 0.45, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class Pairs:
    """How often only one was right. `weight` is as in `sequential.Group`."""

    active: float
    candidate: float
    tied: float
    weight: float = 1.0

    @property
    def n(self) -> float:
        return self.active + self.candidate + self.tied

    def scaled(self, by: float) -> "Pairs":
        return Pairs(self.active * by, self.candidate * by, self.tied * by, self.weight)

    @property
    def swapped(self) -> "Pairs":
        return Pairs(self.candidate, self.active, self.tied, self.weight)


def log_wealth(pairs: Sequence[Pairs], limit: float) -> float:
    """The logarithm of the wealth against "E[D] is `limit` or more", -1 <= limit <= 1."""
    # Against a limit below 0 the largest bet could lose more than all: then it is made smaller.
    scale = 1 / max(1.0, 1 - limit)
    return log_mean_exp([_of_bet(pairs, limit, bet * scale) for bet in _BETS])


def upper_difference(pairs: Sequence[Pairs], alpha: float) -> float:
    """The anytime-valid upper bound of E[D]: the smallest limit that it is proved to be below."""
    n = max(sum(group.n for group in pairs), 1)
    return smallest(
        lambda limit: log_wealth(pairs, limit) + math.log(alpha),
        above=difference(pairs),
        width=2 / math.sqrt(n),
    )


def difference(pairs: Sequence[Pairs]) -> float:
    """The mean of D as seen; 0 of nothing is 0."""
    n = sum(group.weight * group.n for group in pairs)
    return sum(group.weight * (group.active - group.candidate) for group in pairs) / n if n else 0.0


def proof(pairs: Sequence[Pairs], limit: float, alpha: float) -> GateOutcome:
    """Pass: proved worse by less than the limit. Fail: proved worse by more. Else insufficient."""
    if _is_below(pairs, limit, alpha):
        return GateOutcome.PASS
    if _is_below([group.swapped for group in pairs], -limit, alpha):
        return GateOutcome.FAIL
    return GateOutcome.INSUFFICIENT


def needed(pairs: Sequence[Pairs], limit: float, alpha: float) -> int | None:
    """How many more pairs would pass if they come as seen (of none: all tied), None where none would."""
    n = sum(group.n for group in pairs)
    each = [group.scaled(1 / n) for group in pairs] if n else [Pairs(0, 0, 1)]

    def excess(more: int) -> float:
        return log_wealth([group.scaled(n + more) for group in each], limit) + math.log(alpha)

    return fewest(excess)


def _is_below(pairs: Sequence[Pairs], limit: float, alpha: float) -> bool:
    return log_wealth(pairs, limit) >= -math.log(alpha)


def _of_bet(pairs: Sequence[Pairs], limit: float, bet: float) -> float:
    return sum(
        n * math.log1p(bet * group.weight * (limit - d))
        for group in pairs
        for d, n in ((1, group.active), (-1, group.candidate), (0, group.tied))
    )
