"""Does a condition say its figures, and what is missing, as people read them?"""

import pytest

from app.domain.condition import HOPELESS, Condition, GateOutcome, brief, rate, told


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "unknown"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (2 / 3, "66.7 %"),
        (0.0004, "0.04 %"),
        (0.9996, "99.96 %"),
    ],
)
def test_a_share_never_reads_as_none_or_all_that_is_not(share: float | None, said: str) -> None:
    assert rate(share) == said


@pytest.mark.parametrize(("bound", "word"), [(0.7, "low"), (0.9, "high")])
def test_what_no_waiting_fulfils_says_what_must_change(bound: float, word: str) -> None:
    judged = Condition("agreement", GateOutcome.INSUFFICIENT, "agreement", 0.8, bound, 0.85, 50)
    said = told(judged, 5.0, "compared decision").sentence
    assert said.startswith(f"agreement: too {word}: {HOPELESS} compared decisions")


def test_in_brief_what_has_not_come_yet_has_its_name() -> None:
    judged = Condition("agreement", GateOutcome.INSUFFICIENT, "nothing compared yet", n=0, needed=22)
    assert (
        brief(told(judged, 0.0, "compared decision"))
        == "agreement: 22 more compared decisions, but none yet in this epoch"
    )
