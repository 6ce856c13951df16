"""Are as many different actors inside an exposure as its share says?

Who is exposed follows from a keyed hash, so the actors inside are a random share of all. Where they are
not, callers seek or shun the exposed ones, and what is measured there holds for nobody else.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.domain.beta import log_beta
from app.domain.condition import percent
from app.domain.counters import Count, Metric
from app.domain.evidence import Evidence

MISMATCH = 1_000.0  # the evidence against chance at which the share is said to be wrong

_PRIOR = 0.5


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The most actors that were told apart, or those that prove the share wrong; `log_m` is their evidence."""

    expected: float
    n: int
    inside: int
    log_m: float
    is_broken: bool

    @property
    def sentence(self) -> str:
        said = f"{self.inside} of {self.n} actors exposed, expected {percent(self.expected)} of them"
        return f"{said}: no chance of the draw" if self.is_broken else said

    def to_wire(self) -> dict[str, Any]:
        """The `sample_ratio` shape."""
        return {
            "expected": self.expected,
            "n": self.n,
            "exposed": self.inside,
            "is_broken": self.is_broken,
            "sentence": self.sentence,
        }


def log_m(n: int, inside: int, *, expected: float) -> float:
    """The logarithm of the evidence against "each of `n` actors is inside with probability `expected`".

    Two-sided, and valid however often it is looked at: where the share is right, M ever reaches c with
    probability 1/c at most. A Beta(1/2, 1/2) mixture against the binomial (Lindon & Malek 2020,
    "Anytime-valid inference for multinomial count data"); each actor counts once. `expected` lies between
    0 and 1, both excluded; raises ValueError else.
    """
    if not 0 < expected < 1 or not 0 <= inside <= n:
        raise ValueError(f"{inside} of {n} is no count, or {expected} no share")
    mixture = log_beta(_PRIOR + inside, _PRIOR + n - inside) - log_beta(_PRIOR, _PRIOR)
    return mixture - inside * math.log(expected) - (n - inside) * math.log1p(-expected)


def arm_count(exposure: float, *, inside: bool, watch: str) -> Count:
    """What one more actor adds; `watch` names the set in which actors are told apart."""
    return (Metric.ARM.value, f"{exposure:g}:{'in' if inside else 'out'}:{watch}", 1)


def sample_ratio(evidence: Evidence, exposure: float) -> SampleRatio | None:
    """Judge the actors that were counted at an exposure; None where there are none.

    Every instance, and every life of one, tells actors apart for itself and may count one that another
    has counted. So their counts are never summed: each is a test of its own, and k of them share the risk.
    """
    if not 0 < exposure < 1:
        return None
    watches = list(_watches(evidence, exposure))
    threshold = math.log(MISMATCH * max(len(watches), 1))
    judged = []
    for n, inside in watches:
        against = log_m(n, inside, expected=exposure)
        judged.append(SampleRatio(exposure, n, inside, against, against >= threshold))
    return max(judged, key=lambda ratio: (ratio.is_broken, ratio.n), default=None)


def _watches(evidence: Evidence, exposure: float) -> Iterator[tuple[int, int]]:
    """(actors, those inside) of each set."""
    arms: dict[str, Counter[str]] = {}
    for label, n in evidence.of(Metric.ARM).items():
        share, side, watch = label.split(":")
        if share == f"{exposure:g}":
            arms.setdefault(watch, Counter())[side] = n
    for arm in arms.values():
        yield arm.total(), arm["in"]
