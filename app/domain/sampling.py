"""Which decisions does a person judge, and what does a random share of them say of all?

Chance comes from the hash of a decision's id: nobody can choose what is drawn, and a replay draws the
same. Half of the budget goes to disagreements, half to agreements. Inclusion probabilities are rounded to
powers of the square root of 2, so that counters can keep them exactly.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from app.domain.decision import Decision

_LAST_STEP = 60  # an inclusion probability of 2^-30
_BLIND_SHARE = 0.5


class Stratum(StrEnum):
    """Whether the model's raw answer is the legacy engine's."""

    AGREEMENT = "agreement"
    DISAGREEMENT = "disagreement"


class ReviewMode(StrEnum):
    """Blind: the verdict is given before the model's opinion is shown."""

    BLIND = "blind"
    ASSISTED = "assisted"


@dataclass(frozen=True, slots=True)
class Draw:
    """How a decision came to be drawn for review: with probability 2^(-step/2), out of its stratum."""

    stratum: Stratum
    step: int

    @property
    def inclusion_probability(self) -> float:
        return _probability(self.step)

    @property
    def label(self) -> str:
        """Its name in the evidence counters, such as `disagreement:2`."""
        return f"{self.stratum}:{self.step}"


@dataclass(frozen=True, slots=True)
class Judged:
    """One stratum: how many decisions it holds, how many were judged, how many of those overridden."""

    population: int
    reviewed: int
    overridden: int


def drawn(decision_id: str, rate: float) -> bool:
    """Whether a hash of the id falls into the share `rate`."""
    return _uniform("draw", decision_id) < rate


def review_mode(decision_id: str) -> ReviewMode:
    """Half of the reviews are blind, whichever decisions they are."""
    return ReviewMode.BLIND if _uniform("mode", decision_id) < _BLIND_SHARE else ReviewMode.ASSISTED


def doubled(decision_id: str, rate: float) -> bool:
    """Whether a second person judges this review blind: a share `rate`, whatever the first one says."""
    return _uniform("double", decision_id) < rate


def asked_again(decision_id: str, rate: float) -> bool:
    """Whether the model is asked the same a second time: a share `rate`, whatever it says."""
    return _uniform("again", decision_id) < rate


def stratum_of(model: Decision, legacy: Decision) -> Stratum:
    return Stratum.AGREEMENT if model is legacy else Stratum.DISAGREEMENT


def review_rates(rate: float, *, agreed: int, disagreed: int) -> dict[Stratum, Draw]:
    """The draw that each stratum is subject to: split a budget of `rate` reviews a decision between the strata, by their sizes so far.

    What a small stratum cannot use falls to the other, so a rate of 1 draws everything.
    """
    share = (disagreed + 1) / (agreed + disagreed + 2)
    disagreement = min(rate / 2, share)
    agreement = min(rate - disagreement, 1 - share)
    disagreement = min(rate - agreement, share)
    return {
        Stratum.AGREEMENT: Draw(Stratum.AGREEMENT, _step(agreement / (1 - share))),
        Stratum.DISAGREEMENT: Draw(Stratum.DISAGREEMENT, _step(disagreement / share)),
    }


def review_draw(
    decision_id: str, *, rate: float, model: Decision, legacy: Decision, agreed: int, disagreed: int
) -> Draw | None:
    """The draw of this decision, or None where it was not drawn. `agreed`, `disagreed`: so far."""
    if rate <= 0:
        return None
    draw = review_rates(rate, agreed=agreed, disagreed=disagreed)[stratum_of(model, legacy)]
    return draw if drawn(decision_id, draw.inclusion_probability) else None


def recorded_draw(inclusion_probability: float, *, agrees: bool) -> Draw:
    """The draw that a review's row tells of."""
    return Draw(Stratum.AGREEMENT if agrees else Stratum.DISAGREEMENT, _step(inclusion_probability))


def smallest_inclusion(rate: float) -> float:
    """The smallest inclusion probability that `review_rates` gives for a budget, whatever the strata."""
    return _probability(_step(rate / (2 - rate)))


def stratified_rate(strata: Iterable[Judged]) -> float | None:
    """The override rate of all decisions: sum of (N_h / N) p_h over the strata with judged ones."""
    judged = [stratum for stratum in strata if stratum.population and stratum.reviewed]
    population = sum(stratum.population for stratum in judged)
    if not population:
        return None
    return sum(s.population * s.overridden / s.reviewed for s in judged) / population


def _step(probability: float) -> int:
    if probability <= 0:
        return _LAST_STEP
    return min(max(round(-2 * math.log2(probability)), 0), _LAST_STEP)


def _probability(step: int) -> float:
    return math.exp2(-step / 2)


def _uniform(purpose: str, decision_id: str) -> float:
    digest = blake2b(decision_id.encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64
