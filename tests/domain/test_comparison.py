import pytest

from app.domain.comparison import Category, compare, is_wrong_allow
from app.domain.decision import Decision

ALLOW, ATTEST, DENY = Decision


@pytest.mark.parametrize(
    ("model", "other", "category"),
    [
        (ALLOW, ALLOW, Category.AGREE),
        (ALLOW, ATTEST, Category.MODEL_TOO_PERMISSIVE),
        (ALLOW, DENY, Category.MODEL_TOO_PERMISSIVE),
        (ATTEST, DENY, Category.MODEL_TOO_PERMISSIVE),
        (ATTEST, ALLOW, Category.MODEL_TOO_STRICT),
        (DENY, ATTEST, Category.MODEL_TOO_STRICT),
        (DENY, DENY, Category.AGREE),
    ],
)
def test_a_milder_model_is_too_permissive_and_a_more_severe_one_too_strict(
    model: Decision, other: Decision, category: Category
) -> None:
    assert compare(model, other) is category


@pytest.mark.parametrize("model", Decision)
@pytest.mark.parametrize("verdict", Decision)
def test_only_the_models_allow_can_be_a_wrong_allow(model: Decision, verdict: Decision) -> None:
    assert is_wrong_allow(model, verdict) is (model is ALLOW and verdict in (ATTEST, DENY))
