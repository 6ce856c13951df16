import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.decision import Decision, stricter

ALLOW, ATTEST, DENY = Decision


@pytest.mark.parametrize("outcome", Outcome)
def test_only_an_ok_advisory_may_be_relied_upon(outcome: Outcome) -> None:
    advisory = Advisory("v1", outcome, 5.0, decision=ALLOW)
    assert (advisory.answer is ALLOW) is (outcome is Outcome.OK)


@pytest.mark.parametrize(
    ("chances", "label"),
    [
        (Probabilities(0.5, 0.3, 0.2), ALLOW),
        (Probabilities(0.4, 0.4, 0.2), ATTEST),
        (Probabilities(0.4, 0.2, 0.4), DENY),
        (Probabilities(0.2, 0.4, 0.4), DENY),
    ],
)
def test_ties_resolve_to_the_more_severe_label(chances: Probabilities, label: Decision) -> None:
    assert chances.most_probable is label
    assert chances.of(label) == max(chances.allow, chances.require_attestation, chances.deny)


def test_the_margin_is_between_the_two_most_probable_labels() -> None:
    assert Probabilities(0.2, 0.5, 0.3).margin == pytest.approx(0.2)


@given(st.sampled_from(Decision), st.sampled_from(Decision))
def test_the_stricter_of_two_decisions_is_the_more_severe(one: Decision, other: Decision) -> None:
    assert stricter(one, other) is stricter(other, one)
    assert stricter(one, other).severity == max(one.severity, other.severity)
