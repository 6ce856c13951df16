"""What does a model's answer to one situation consist of?"""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.decision import Decision


class Outcome(StrEnum):
    """How asking the model ended. Only `ok` may decide anything (law 3)."""

    OK = "ok"
    UNSURE = "unsure"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    OVERSIZE = "oversize"


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Over the three labels alone; they sum to 1."""

    allow: float
    require_attestation: float
    deny: float

    def of(self, decision: Decision) -> float:
        match decision:
            case Decision.ALLOW:
                return self.allow
            case Decision.REQUIRE_ATTESTATION:
                return self.require_attestation
            case Decision.DENY:
                return self.deny

    @property
    def margin(self) -> float:
        """Distance between the two most probable labels, 0..1."""
        first, second, _ = sorted((self.allow, self.require_attestation, self.deny), reverse=True)
        return first - second

    @property
    def most_probable(self) -> Decision:
        """Ties resolve to the more severe label."""
        return max(Decision, key=lambda label: (self.of(label), label.severity))


@dataclass(frozen=True, slots=True)
class Attribution:
    """How far the chosen label's probability falls when `field` is left out (may be negative)."""

    field: str
    effect: float
    decision_without: Decision


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Why, as a sentence made of the attributions; `generated` is the model's own words, if asked."""

    text: str
    attributions: tuple[Attribution, ...] | None = None
    generated: str | None = None


@dataclass(frozen=True, slots=True)
class Advisory:
    """A model's answer, whether or not it decided anything.

    `decision` is the most probable label, present when there are probabilities (`ok`, `unsure`).
    `started` says that the worker began the computation: only then does a failure count as the
    model's error. `coverage` is the labels' share of the full softmax, 0..1.
    """

    version: str
    outcome: Outcome
    latency_ms: float
    started: bool = True
    decision: Decision | None = None
    probabilities: Probabilities | None = None
    confidence: float | None = None
    coverage: float | None = None
    prompt_tokens: int | None = None
    cached: bool = False

    @property
    def answer(self) -> Decision | None:
        """The decision where it may be relied upon, else None."""
        return self.decision if self.outcome is Outcome.OK else None
