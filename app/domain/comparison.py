"""Which way does a model's answer differ from the right one?"""

from enum import StrEnum

from app.domain.decision import Decision


class Category(StrEnum):
    """How a judged answer of the model differs from the right one; `unclear` is a person's word only."""

    AGREE = "agree"
    MODEL_TOO_PERMISSIVE = "model_too_permissive"
    MODEL_TOO_STRICT = "model_too_strict"
    UNCLEAR = "unclear"


def is_wrong_allow(model: Decision, verdict: Decision) -> bool:
    """The model said allow and a person says otherwise."""
    return model is Decision.ALLOW and verdict is not Decision.ALLOW
