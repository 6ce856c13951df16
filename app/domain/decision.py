"""What may an engine answer, which of two answers is the stricter, and which is wrong?"""

from dataclasses import dataclass
from enum import StrEnum


class Decision(StrEnum):
    """Listed from mild to severe. Elsewhere `require_attestation` is called escalate or defer."""

    ALLOW = "allow"
    REQUIRE_ATTESTATION = "require_attestation"
    DENY = "deny"

    @property
    def severity(self) -> int:
        return _SEVERITY[self]


_SEVERITY = {decision: rank for rank, decision in enumerate(Decision)}


def stricter(one: Decision, other: Decision) -> Decision:
    """The more severe of two decisions."""
    return one if one.severity >= other.severity else other


class Category(StrEnum):
    """How a judged answer of the model differs from the right one; `unclear` is a person's word only."""

    AGREE = "agree"
    MODEL_TOO_PERMISSIVE = "model_too_permissive"
    MODEL_TOO_STRICT = "model_too_strict"
    UNCLEAR = "unclear"


def difference(model: Decision, right: Decision) -> Category:
    """How a model's answer differs from the right one, by which of them is the stricter."""
    if model is right:
        return Category.AGREE
    milder = model.severity < right.severity
    return Category.MODEL_TOO_PERMISSIVE if milder else Category.MODEL_TOO_STRICT


def is_wrong_allow(model: Decision, verdict: Decision) -> bool:
    """The model said allow and a person says otherwise."""
    return model is Decision.ALLOW and verdict is not Decision.ALLOW


class AnsweredBy(StrEnum):
    """Whose answer the caller got. `fail_safe`: the legacy engine failed, which counts as deny."""

    LEGACY = "legacy"
    MODEL = "model"
    REVIEWER = "reviewer"
    FAIL_SAFE = "fail_safe"


@dataclass(frozen=True, slots=True)
class LegacyAnswer:
    """One answer of a legacy engine. A failed engine has `decision` deny and says why in `error`."""

    engine: str
    decision: Decision
    rule: str | None
    latency_ms: float
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None
