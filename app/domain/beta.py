"""How much of a beta distribution lies below a point?

Everything is in logarithms, so that counts of any size neither overflow nor underflow.
"""

import math

_TINY = 1e-300
_PRECISION = 1e-15
_MOST_TERMS = 1_000_000


def log_beta(a: float, b: float) -> float:
    """Natural logarithm of the beta function B(a, b), a and b above 0."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_share_below(x: float, a: float, b: float) -> float:
    """Natural logarithm of the regularised incomplete beta I_x(a, b), 0 < x < 1, a and b above 0."""
    if x <= (a + 1) / (a + b + 2):
        return min(_log_tail(x, a, b), 0.0)
    # There the fraction converges fast only for the other tail: I_x(a, b) = 1 - I_{1-x}(b, a).
    return math.log1p(-min(math.exp(_log_tail(1 - x, b, a)), 1 - _PRECISION))


def _log_tail(x: float, a: float, b: float) -> float:
    front = a * math.log(x) + b * math.log1p(-x) - log_beta(a, b) - math.log(a)
    return front - math.log(_fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta (DLMF 8.17.22), by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        c = 1 + step / c or _TINY
        d = 1 / (1 + step * d or _TINY)
        value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value
