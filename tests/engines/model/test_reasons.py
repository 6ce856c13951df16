import pytest

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.engines.model.prompt import Line
from app.engines.model.reasons import Effect, unexplained, worded

LINES = (Line("action_type", "action", "read"), Line("recent_history", "recent_history", "MFA was bypassed"))
ASKED = Advisory("v", Outcome.OK, 1.0, decision=Decision.REQUIRE_ATTESTATION, confidence=0.8)
UNSURE = Advisory("v", Outcome.UNSURE, 1.0, decision=Decision.DENY, confidence=0.4)


def effect(field: str, size: float, without: Decision = Decision.ALLOW, at: float = 0.71) -> Effect:
    return Effect(field, size, without, at)


def test_the_field_with_the_largest_effect_is_quoted_with_what_its_absence_changes() -> None:
    reasoning = worded(
        ASKED, [effect("action_type", 0.1), effect("recent_history", 0.6)], generated=None, lines=LINES
    )
    assert reasoning.text == (
        "require_attestation, mainly because of recent_history, “MFA was bypassed”: without it allow at 0.71"
    )
    assert reasoning.attributions is not None
    assert [one.field for one in reasoning.attributions] == ["action_type", "recent_history"]


def test_a_decision_that_stands_without_the_field_says_so() -> None:
    without = effect("action_type", 0.3, Decision.REQUIRE_ATTESTATION, 0.5)
    text = worded(ASKED, [without], generated=None, lines=LINES).text
    assert text.endswith("without it still require_attestation at 0.50, instead of 0.80")


def test_no_field_is_named_where_none_matters() -> None:
    text = worded(ASKED, [effect("action_type", 0.01)], generated=None, lines=LINES).text
    assert text == "require_attestation at 0.80; no single field carries it"


def test_a_long_text_is_quoted_in_part() -> None:
    lines = (Line("details", "details", "x" * 5000),)
    assert len(worded(ASKED, [effect("details", 0.5)], generated=None, lines=lines).text) < 250


def test_an_unsure_advisory_is_worded_as_one() -> None:
    assert worded(UNSURE, [effect("action_type", 0.3)], generated=None, lines=LINES).text.startswith(
        "unsure, leaning to deny"
    )


def test_the_models_own_words_are_shown_as_such() -> None:
    reasoning = worded(ASKED, [], generated="It is unusual.", lines=LINES)
    assert reasoning.text.endswith("in the model's own words: It is unusual.")
    assert reasoning.generated == "It is unusual."


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_reason_is_never_empty(outcome: Outcome) -> None:
    decided = outcome in (Outcome.OK, Outcome.UNSURE)
    advisory = Advisory(
        "v", outcome, 1.0, decision=Decision.DENY if decided else None, confidence=0.9 if decided else None
    )
    assert "because the sky fell" in unexplained(advisory, "because the sky fell").text
    if decided:
        assert "no time" in worded(advisory, [], generated="", lines=LINES).text
