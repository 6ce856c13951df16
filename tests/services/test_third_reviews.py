"""Where two people differ on one decision, who decides, and what may their verdict change?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.phase import Phase
from app.errors import Conflict, Forbidden
from app.services.verdicts import parse_verdict
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import Stage, opened
from tests.services.test_second_reviews import DOUBLED, claim, counts, judged, review, second, undo

SECOND, THIRD = "another_reviewer", "admin"


@pytest.fixture
async def thrice(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """Every review is drawn, and every drawn one is for two people."""
    async with opened(database, tmp_path, rollouts=DOUBLED) as stage:
        yield stage


async def conflict(stage: Stage, first: str = "deny", other: str = "allow") -> str:
    """A decision on which two people have said different things."""
    decision_id = await judged(stage, first)
    await second(stage, decision_id, other)
    return decision_id


async def third(stage: Stage, decision_id: str, said: str) -> dict[str, object]:
    return await second(stage, decision_id, said, THIRD)


def state(stage: Stage, decision_id: str) -> tuple[object, ...]:
    row = review(stage, decision_id)
    return tuple(row[name] for name in ("status", "verdict", "second_status", "third_status"))


# --- who is asked ----------------------------------------------------------------------------------


async def test_where_two_differ_a_third_person_is_asked(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    assert state(thrice, decision_id) == ("judged", "deny", "judged", "open")
    assert [row["decision_id"] for row in thrice.queue(who=THIRD)] == [decision_id]
    assert thrice.queue(who="reviewer") == thrice.queue(who=SECOND) == []
    for who in ("reviewer", SECOND):
        with pytest.raises(Conflict, match="has a verdict"):
            await claim(thrice, decision_id, who)


async def test_where_two_agree_nobody_else_is_asked(thrice: Stage) -> None:
    decision_id = await judged(thrice, "deny")
    await second(thrice, decision_id, "deny")
    assert state(thrice, decision_id) == ("judged", "deny", "judged", None)
    assert thrice.queue(who=THIRD) == []


async def test_the_third_sees_nobodys_opinion(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    shown = await claim(thrice, decision_id, THIRD)
    assert (shown["status"], shown["mode"], shown["asked_as"], shown["conflict"]) == (
        "open",
        "blind",
        "third",
        True,
    )
    assert (shown["advisory"], shown["decision"], shown["verdicts"]) == (None, None, [])


async def test_the_third_claims_the_review_after_the_second(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    with pytest.raises(Conflict, match="claim it to be its third judge"):
        await thrice.judge(decision_id, "deny", who=THIRD)


async def test_the_document_says_whether_people_differ(thrice: Stage) -> None:
    await conflict(thrice)
    alike = await judged(thrice, "deny", actor="bob")
    await second(thrice, alike, "deny")
    told = {row["decision_id"]: row["conflict"] for row in thrice.queue("judged")}
    assert sorted(told.values()) == [False, True]
    assert told[alike] is False


# --- what it changes -------------------------------------------------------------------------------


async def test_a_third_person_decides_a_conflict(thrice: Stage) -> None:
    decision_id = await conflict(thrice, "deny", "allow")
    assert thrice.evidence("read").wrong_allows == 1
    await third(thrice, decision_id, "allow")
    assert state(thrice, decision_id) == ("judged", "allow", "judged", "judged")
    assert thrice.evidence("read").wrong_allows == 0
    assert ("overridden", "agreement:0") not in counts(thrice)
    assert counts(thrice)["reviewed", "agreement:0"] == 1


async def test_the_first_two_stay_a_pair_and_stay_on_record(thrice: Stage) -> None:
    decision_id = await conflict(thrice, "deny", "allow")
    await third(thrice, decision_id, "require_attestation")
    assert counts(thrice)["double", "deny>allow"] == 1
    story = await thrice.story(decision_id)
    assert [(each["source"], each["decision"], each["supersedes"]) for each in story["verdicts"]] == [
        ("review", "deny", None),
        ("second", "allow", None),
        ("third", "require_attestation", None),
    ]


async def test_a_wrong_allow_of_which_two_are_sure_rolls_back_once(thrice: Stage) -> None:
    await thrice.enter("deploy", Phase.ENFORCED)
    decision_id = (await thrice.decide("deploy"))["id"]
    await thrice.judge(decision_id, "allow")
    assert (await second(thrice, decision_id, "deny"))["rollback"] is not None
    transitions = thrice.rows(t.transitions)
    assert (await third(thrice, decision_id, "deny"))["rollback"] is None
    assert thrice.rows(t.transitions) == transitions
    assert thrice.state("deploy").phase is Phase.ADVISORY


async def test_a_third_that_clears_the_allow_restores_no_phase(thrice: Stage) -> None:
    await thrice.enter("deploy", Phase.ENFORCED)
    decision_id = (await thrice.decide("deploy"))["id"]
    await thrice.judge(decision_id, "allow")
    await second(thrice, decision_id, "deny")
    await third(thrice, decision_id, "allow")
    assert thrice.state("deploy").phase is Phase.ADVISORY


async def test_what_a_caller_was_told_is_not_the_thirds_to_change(thrice: Stage) -> None:
    await thrice.enter("read", Phase.ENFORCED)
    document = await thrice.decide(legacy="require_attestation", model="require_attestation")
    await thrice.judge(document["id"], "allow")
    await second(thrice, document["id"], "deny")
    before = counts(thrice)
    await third(thrice, document["id"], "deny")
    assert (await thrice.story(document["id"], who="caller"))["decision"] == "allow"
    assert state(thrice, document["id"]) == ("judged", "allow", "judged", "judged")
    assert counts(thrice) == before


# --- undone, reported, late ------------------------------------------------------------------------


async def test_an_undone_third_verdict_leaves_the_conflict_to_somebody_else(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    before, stood = counts(thrice), state(thrice, decision_id)
    await third(thrice, decision_id, "allow")
    await undo(thrice, decision_id, THIRD)
    assert (counts(thrice), state(thrice, decision_id)) == (before, stood)
    with pytest.raises(Conflict, match="has a verdict"):
        await claim(thrice, decision_id, THIRD)  # they know the model's answer by now


async def test_an_undone_second_verdict_ends_the_conflict(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    await undo(thrice, decision_id, SECOND)
    assert state(thrice, decision_id) == ("judged", "deny", "open", None)
    await second(thrice, decision_id, "allow", THIRD)
    assert state(thrice, decision_id)[3] == "open"


async def test_an_undone_first_verdict_ends_the_conflict_and_a_new_one_may_begin_it(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    await undo(thrice, decision_id, "reviewer")
    assert state(thrice, decision_id) == ("open", None, "judged", None)
    await thrice.judge(decision_id, "require_attestation")
    assert state(thrice, decision_id) == ("judged", "require_attestation", "judged", "open")


async def test_what_the_third_said_stands_when_the_others_take_theirs_back(thrice: Stage) -> None:
    decision_id = await conflict(thrice, "deny", "allow")
    await third(thrice, decision_id, "allow")
    stood = counts(thrice)
    await undo(thrice, decision_id, "reviewer")
    assert state(thrice, decision_id) == ("judged", "allow", "judged", "judged")
    assert counts(thrice) == {key: n for key, n in stood.items() if key[0] != "double"}
    await undo(thrice, decision_id, THIRD)
    assert state(thrice, decision_id) == ("open", None, "judged", None)
    assert ("reviewed", "agreement:0") not in counts(thrice)


async def test_a_report_has_the_last_word(thrice: Stage) -> None:
    decision_id = await conflict(thrice, "deny", "allow")
    await third(thrice, decision_id, "allow")
    verdict, operator = parse_verdict({"decision": "deny"}), thrice.principal("operator")
    await thrice.services.reviews.report(decision_id, verdict, operator)
    assert state(thrice, decision_id)[:2] == ("judged", "deny")
    assert thrice.evidence("read").wrong_allows == 1
    assert counts(thrice)["reviewed", "agreement:0"] == 1
    await undo(thrice, decision_id, "operator")
    assert state(thrice, decision_id) == ("judged", "deny", "judged", "open")


async def test_after_seven_days_the_first_verdict_stays(thrice: Stage) -> None:
    decision_id = await conflict(thrice)
    before = counts(thrice)
    thrice.clock.passes(days=6)
    await thrice.services.guard.expire_reviews()
    assert state(thrice, decision_id)[3] == "open"
    thrice.clock.passes(days=1)
    with pytest.raises(Conflict, match="past its time"):
        await claim(thrice, decision_id, THIRD)
    await thrice.services.guard.expire_reviews()
    assert state(thrice, decision_id) == ("judged", "deny", "judged", "closed")
    assert thrice.queue(who=THIRD) == []
    assert counts(thrice) == before


# --- what is added to a verdict afterwards ---------------------------------------------------------


async def test_a_category_given_later_changes_no_evidence(thrice: Stage) -> None:
    decision_id = await conflict(thrice, "deny", "allow")
    before, stood = counts(thrice), state(thrice, decision_id)
    said = parse_verdict({"decision": "deny", "category": "unclear", "notes": "hard to say"})
    for _ in range(2):
        await thrice.services.reviews.explain(
            review(thrice, decision_id)["id"], said, thrice.principal("reviewer")
        )
    assert (counts(thrice), state(thrice, decision_id)) == (before, stood)
    verdicts = (await thrice.story(decision_id))["verdicts"]
    assert [each["category"] for each in verdicts] == [None, None, "unclear"]
    await undo(thrice, decision_id, "reviewer")
    assert state(thrice, decision_id)[0] == "open"


async def test_another_decision_takes_an_undo(thrice: Stage) -> None:
    decision_id = await judged(thrice, "deny")
    review_id, said = review(thrice, decision_id)["id"], parse_verdict({"decision": "allow"})
    with pytest.raises(Conflict, match="undo it"):
        await thrice.services.reviews.explain(review_id, said, thrice.principal("reviewer"))
    with pytest.raises(Forbidden, match="only the judge"):
        await thrice.services.reviews.explain(review_id, said, thrice.principal(SECOND))
