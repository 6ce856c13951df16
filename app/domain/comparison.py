"""Do two answers to the same situation agree, and if not, which way does the model err?"""

from enum import StrEnum

from app.domain.decision import Decision


class Category(StrEnum):
    """How a judged answer of the model differs from the right one; `unclear` is a person's word only."""

    AGREE = "agree"
    MODEL_TOO_PERMISSIVE = "model_too_permissive"
    MODEL_TOO_STRICT = "model_too_strict"
    UNCLEAR = "unclear"


def compare(model: Decision, other: Decision) -> Category:
    """The model's answer against the legacy engine's or a person's."""
    if model is other:
        return Category.AGREE
    milder = model.severity < other.severity
    return Category.MODEL_TOO_PERMISSIVE if milder else Category.MODEL_TOO_STRICT


def is_wrong_allow(model: Decision, verdict: Decision) -> bool:
    """The model said allow and a person says otherwise."""
    return model is Decision.ALLOW and verdict is not Decision.ALLOW
