import pytest

from app.domain.decision import Decision, is_wrong_allow

ALLOW, ATTEST, DENY = Decision


@pytest.mark.parametrize("model", Decision)
@pytest.mark.parametrize("verdict", Decision)
def test_only_the_models_allow_can_be_a_wrong_allow(model: Decision, verdict: Decision) -> None:
    assert is_wrong_allow(model, verdict) is (model is ALLOW and verdict in (ATTEST, DENY))
