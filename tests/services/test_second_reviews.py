"""Does a second person judge blind, and what may their verdict change?"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.domain.role import Principal
from app.errors import Conflict, Forbidden
from app.services.verdicts import parse_verdict
from app.store import keys
from app.store.database import Database
from app.store.transaction import transaction
from tests.services.plane import ROLLOUTS, Stage, opened

DOUBLED = ROLLOUTS.replace("double_review_rate: 0", "double_review_rate: 1").replace(
    "risk: high\n    ceiling: enforced", "risk: high\n    ceiling: enforced\n    review_rate: 1"
)


@pytest.fixture
async def twice(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """Every review is drawn, and every drawn one is for two people."""
    async with opened(database, tmp_path, rollouts=DOUBLED) as stage:
        yield stage


async def claim(stage: Stage, decision_id: str, who: str = "another_reviewer") -> dict[str, Any]:
    return await stage.services.reviews.claim(review(stage, decision_id)["id"], stage.principal(who))


async def second(stage: Stage, decision_id: str, said: str, who: str = "another_reviewer") -> dict[str, Any]:
    await claim(stage, decision_id, who)
    return await stage.judge(decision_id, said, who=who)


async def undo(stage: Stage, decision_id: str, who: str) -> dict[str, Any]:
    return await stage.services.reviews.undo(review(stage, decision_id)["id"], stage.principal(who))


def review(stage: Stage, decision_id: str) -> dict[str, Any]:
    found = stage.review(decision_id)
    assert found is not None
    return dict(found)


def counts(stage: Stage, rollout: str = "read") -> dict[tuple[str, str], int]:
    return {key: n for key, n in stage.evidence(rollout).totals.items() if n}


async def judged(stage: Stage, said: str = "deny", **situation: Any) -> str:
    """A decision of the model whose drawn review has its first verdict."""
    if stage.state("read").phase is Phase.SHADOW:
        await stage.enter("read", Phase.ENFORCED)
    decision_id: str = (await stage.decide(**situation))["id"]
    await stage.judge(decision_id, said)
    return decision_id


# --- who is asked ----------------------------------------------------------------------------------


async def test_after_the_first_verdict_the_review_is_open_to_everybody_else(twice: Stage) -> None:
    decision_id = await judged(twice)
    assert [row["decision_id"] for row in twice.queue(who="another_reviewer")] == [decision_id]
    assert twice.queue(who="reviewer") == []
    assert twice.queue("judged", who="another_reviewer") == []
    assert [row["status"] for row in twice.queue("judged", who="reviewer")] == ["judged"]
    assert twice.queue(who="auditor") == []


async def test_what_no_draw_chose_is_judged_once(twice: Stage) -> None:
    await twice.enter("write", Phase.ADVISORY)
    document = await twice.decide("write", legacy="require_attestation")
    await twice.judge(document["id"], "allow")
    assert twice.queue(who="another_reviewer") == []
    with pytest.raises(Conflict, match="has a verdict"):
        await claim(twice, document["id"])


async def test_the_rate_says_how_many_reviews_two_people_judge(
    sqlite_database: Database, tmp_path: Path
) -> None:
    half = DOUBLED.replace("double_review_rate: 1", "double_review_rate: 0.5")
    async with opened(sqlite_database, tmp_path, rollouts=half) as stage:
        for number in range(60):
            await judged(stage, actor=f"actor-{number}")
        assert 12 <= len(stage.queue(who="another_reviewer")) <= 48


async def test_the_first_judge_is_not_the_second(twice: Stage) -> None:
    decision_id = await judged(twice)
    with pytest.raises(Conflict, match="has a verdict"):
        await claim(twice, decision_id, "reviewer")


async def test_another_key_of_the_same_person_is_not_the_second(twice: Stage) -> None:
    decision_id = await judged(twice)
    with transaction(twice.database, "keys", now_us=twice.services.now_us()) as tx:
        key, _ = keys.create(
            tx,
            name="rita's other key",
            roles=[*twice.principal("reviewer").roles],
            created_by="test",
            now_us=twice.services.now_us(),
            actors=["rita", "rita@home"],
        )
    again = Principal(key.id, key.name, key.roles, key.actors)
    assert again.actors & twice.principal("reviewer").actors
    own = review(twice, decision_id)["id"]
    with pytest.raises(Conflict, match="has a verdict"):
        await twice.services.reviews.claim(own, again)
    assert (await twice.services.reviews.undo(own, again))["status"] == "open", (
        "they take back what they said"
    )


async def test_nobody_is_the_second_judge_of_their_own_situation(twice: Stage) -> None:
    await twice.enter("read", Phase.ENFORCED)
    decision_id = (await twice.decide(actor="rita"))["id"]
    await twice.judge(decision_id, "deny", who="another_reviewer")
    assert twice.queue(who="reviewer") == []
    with pytest.raises(Forbidden, match="theirs"):
        await claim(twice, decision_id, "reviewer")


async def test_whoever_saw_the_review_before_the_first_verdict_claims_it_anew(twice: Stage) -> None:
    decision_id = await judged(twice)
    with pytest.raises(Conflict, match="claim it to be its second judge"):
        await twice.judge(decision_id, "allow", who="another_reviewer")


async def test_two_do_not_both_become_the_second(twice: Stage) -> None:
    decision_id = await judged(twice)
    await claim(twice, decision_id)
    with pytest.raises(Conflict, match="somebody else"):
        await claim(twice, decision_id, "admin")
    await twice.judge(decision_id, "deny", who="another_reviewer")
    with pytest.raises(Conflict, match="has a verdict"):
        await claim(twice, decision_id, "admin")


# --- blind -----------------------------------------------------------------------------------------


async def test_the_second_sees_neither_opinion_whatever_the_mode(twice: Stage) -> None:
    for number in range(20):  # both modes
        decision_id = await judged(twice, actor=f"actor-{number}")
        shown = await claim(twice, decision_id)
        assert (shown["status"], shown["mode"]) == ("open", "blind")
        assert (shown["advisory"], shown["decision"], shown["verdicts"]) == (None, None, [])
        story = await twice.story(decision_id, who="another_reviewer")
        hidden = ("advisory", "agreement", "decision", "answered_by", "candidate")
        assert [story[name] for name in hidden] == [None] * 5
        assert story["verdicts"] == []
    assert {row["mode"] for row in twice.queue("judged")} == {"blind", "assisted"}


async def test_the_first_judge_sees_what_became_of_their_review(twice: Stage) -> None:
    decision_id = await judged(twice)
    (shown,) = twice.queue("judged")
    assert shown["advisory"]["decision"] == "allow"
    story = await twice.story(decision_id, who="reviewer")
    assert (story["decision"], [each["decision"] for each in story["verdicts"]]) == ("allow", ["deny"])


async def test_a_second_who_has_judged_sees_everything(twice: Stage) -> None:
    decision_id = await judged(twice)
    told = await second(twice, decision_id, "allow")
    assert (told["llm_decision"], told["human_decision"], told["match"]) == ("allow", "allow", True)
    story = await twice.story(decision_id, who="another_reviewer")
    assert [(each["source"], each["decision"]) for each in story["verdicts"]] == [
        ("review", "deny"),
        ("second", "allow"),
    ]


async def test_a_review_that_is_open_again_does_not_show_the_second_verdict(twice: Stage) -> None:
    decision_id = await judged(twice)
    await second(twice, decision_id, "allow")
    assert (await undo(twice, decision_id, "reviewer"))["verdicts"] == []


async def test_the_decision_in_force_of_a_binding_review_is_hidden_from_its_second_judge(
    twice: Stage,
) -> None:
    await twice.enter("read", Phase.ENFORCED)
    document = await twice.decide(legacy="require_attestation", model="require_attestation")
    assert document["review"]["kind"] == "binding"
    await twice.judge(document["id"], "allow")
    story = await twice.story(document["id"], who="another_reviewer")
    assert (story["decision"], story["answered_by"], "valid_until" in story) == (None, None, False)
    assert (await twice.story(document["id"], who="caller"))["decision"] == "allow"
    await second(twice, document["id"], "deny")
    assert (await twice.story(document["id"], who="caller"))["decision"] == "allow"


# --- what it changes -------------------------------------------------------------------------------


async def test_a_second_verdict_leaves_the_verdict_in_force_and_the_override_evidence(twice: Stage) -> None:
    decision_id = await judged(twice, "allow")
    before, row = counts(twice), review(twice, decision_id)
    await second(twice, decision_id, "allow")
    assert counts(twice) == {**before, ("double", "allow>allow"): 1}
    after = review(twice, decision_id)
    assert {name for name in row if row[name] != after[name]} == {
        "second_status",
        "second_verdict",
        "claim_expires_us",
        "claimed_us",
    }
    assert (after["second_status"], after["second_verdict"]) == ("judged", "allow")


async def test_evidence_tells_how_far_two_people_agree(twice: Stage) -> None:
    for number, said in enumerate(("deny", "deny", "allow", "deny")):
        await second(twice, await judged(twice, actor=f"actor-{number}"), said)
    document = (await twice.call("GET", "/v1/rollouts/read/evidence")).json()
    assert document["doubles"]["n"] == 4
    assert document["doubles"]["agreement"] == 0.75
    assert document["doubles"]["ac1"] == pytest.approx((0.75 - 0.109375) / (1 - 0.109375))


async def test_a_wrong_allow_counts_once_whoever_confirms_it(twice: Stage) -> None:
    decision_id = await judged(twice, "deny")
    await second(twice, decision_id, "deny")
    assert twice.evidence("read").wrong_allows == 1
    other = await judged(twice, "allow", actor="bob")
    await second(twice, other, "deny")
    assert twice.evidence("read").wrong_allows == 2


async def test_a_second_verdict_that_confirms_a_wrong_allow_on_high_risk_rolls_back(twice: Stage) -> None:
    await twice.enter("deploy", Phase.ENFORCED)
    decision_id = (await twice.decide("deploy"))["id"]
    assert (await twice.judge(decision_id, "allow"))["rollback"] is None
    told = await second(twice, decision_id, "deny")
    assert told["rollback"]["to"]["phase"] == "advisory"
    assert twice.state("deploy").phase is Phase.ADVISORY


async def test_two_who_confirm_one_wrong_allow_roll_back_once(twice: Stage) -> None:
    await twice.enter("deploy", Phase.ENFORCED)
    decision_id = (await twice.decide("deploy"))["id"]
    assert (await twice.judge(decision_id, "deny"))["rollback"] is not None
    assert (await second(twice, decision_id, "deny"))["rollback"] is None
    assert twice.state("deploy").phase is Phase.ADVISORY


# --- undone, reported, late ------------------------------------------------------------------------


async def test_an_undone_second_verdict_leaves_nothing_behind_and_is_anothers_to_give(twice: Stage) -> None:
    decision_id = await judged(twice)
    before = counts(twice)
    await second(twice, decision_id, "allow")
    await undo(twice, decision_id, "another_reviewer")
    assert counts(twice) == before
    with pytest.raises(Conflict, match="has a verdict"):
        await claim(twice, decision_id)  # they have seen the model's opinion by now
    await second(twice, decision_id, "deny", "admin")
    assert counts(twice) == {**before, ("double", "deny>deny"): 1}


async def test_the_second_verdict_is_paired_with_what_the_first_says_in_the_end(twice: Stage) -> None:
    decision_id = await judged(twice, "deny")
    await second(twice, decision_id, "allow")
    await undo(twice, decision_id, "reviewer")
    assert twice.evidence("read").doubles == {}
    await twice.judge(decision_id, "allow")
    assert counts(twice)["double", "allow>allow"] == 1
    assert counts(twice)["reviewed", "agreement:0"] == 1


async def test_the_second_judge_does_not_become_the_first_as_well(twice: Stage) -> None:
    decision_id = await judged(twice)
    await second(twice, decision_id, "allow")
    await undo(twice, decision_id, "reviewer")
    assert twice.queue(who="another_reviewer") == []
    with pytest.raises(Conflict, match="second to judge"):
        await twice.judge(decision_id, "deny", who="another_reviewer")


async def test_a_review_without_its_first_verdict_waits_for_that_alone(twice: Stage) -> None:
    decision_id = await judged(twice)
    await undo(twice, decision_id, "reviewer")
    assert [row["decision_id"] for row in twice.queue(who="another_reviewer")] == [decision_id]
    await twice.judge(decision_id, "allow", who="another_reviewer")
    assert twice.evidence("read").doubles == {}
    await second(twice, decision_id, "allow", "admin")
    assert counts(twice)["double", "allow>allow"] == 1


async def test_a_report_is_nobodys_second_opinion(twice: Stage) -> None:
    decision_id = await judged(twice, "allow")
    await second(twice, decision_id, "allow")
    await twice.services.reviews.report(
        decision_id, parse_verdict({"decision": "deny"}), twice.principal("operator")
    )
    assert twice.evidence("read").doubles == {}
    assert twice.evidence("read").wrong_allows == 1
    other = await judged(twice, "allow", actor="bob")
    await twice.services.reviews.report(
        other, parse_verdict({"decision": "deny"}), twice.principal("operator")
    )
    assert review(twice, other)["second_status"] == "closed"


async def test_after_seven_days_nobody_is_asked_any_more(twice: Stage) -> None:
    decision_id = await judged(twice)
    before, verdict = counts(twice), review(twice, decision_id)["verdict"]
    twice.clock.passes(days=7)
    with pytest.raises(Conflict, match="past its time"):
        await claim(twice, decision_id)
    assert await twice.services.guard.expire_reviews() == []
    row = review(twice, decision_id)
    assert (row["second_status"], row["status"], row["verdict"]) == ("closed", "judged", verdict)
    assert counts(twice) == before
    assert twice.queue(who="another_reviewer") == []
    assert [row["status"] for row in twice.queue("judged", who="another_reviewer")] == ["judged"]
