"""What may a person judge, and what does a verdict change?"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.search import Filters
from app.errors import Conflict, Forbidden, NotFound
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened, written
from tests.services.test_phases import answer

ALLOW, DENY = Verdict(Decision.ALLOW), Verdict(Decision.DENY)


async def drawn(stage: Stage, **said: Any) -> tuple[dict[str, Any], str]:
    """A decision in shadow with its drawn review."""
    document = await stage.decide(**said)
    await stage.until(lambda: stage.review(document["id"]))
    return document, review_id(stage, document)


def review_id(stage: Stage, document: dict[str, Any]) -> str:
    review = stage.review(document["id"])
    assert review is not None
    return str(review["id"])


async def report(stage: Stage, document: dict[str, Any], verdict: Verdict, who: str) -> dict[str, Any]:
    return await stage.services.reviews.report(document["id"], verdict, stage.principal(who))


# --- law 6 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["reviewer", "operator", "admin"])
async def test_a_confirmed_wrong_allow_on_high_risk_rolls_back_and_the_next_decision_is_legacy(
    any_stage: Stage, who: str
) -> None:
    await any_stage.enter("deploy", Phase.ENFORCED)
    wrong = await any_stage.decide("deploy", legacy="allow", model="allow")
    told = await report(any_stage, wrong, DENY, who)
    assert (told["confirmed"], told["match"]) == (True, False)
    assert told["rollback"]["reason"].startswith(
        "confirmed wrong allow: fake-1 said allow, a person said deny"
    )
    document = await any_stage.decide("deploy", legacy="deny", model="allow")
    assert (document["answered_by"], document["phase"], document["decision"]) == (
        "legacy",
        "advisory",
        "deny",
    )


async def test_verdict_and_rollback_are_one_transaction(any_stage: Stage) -> None:
    await any_stage.enter("deploy", Phase.ENFORCED)
    wrong = await any_stage.decide("deploy")
    await report(any_stage, wrong, DENY, "operator")
    with any_stage.database.read() as connection:
        commits = connection.execute(select(t.chain.c.entries)).scalars().all()
    (judged,) = (entries for entries in commits if '"verdicts"' in entries)
    assert '"transitions"' in judged


async def test_a_wrong_allow_on_low_risk_counts_but_rolls_nothing_back(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    wrong = await stage.decide()
    assert (await report(stage, wrong, DENY, "operator"))["rollback"] is None
    assert stage.evidence("read").wrong_allows == 1


async def test_an_allow_of_a_version_that_is_no_longer_active_rolls_nothing_back(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        await stage.enter("deploy", Phase.ADVISORY)
        wrong = await stage.decide("deploy")
        await stage.observed(n=1, rollout="deploy")
        other = stage.model
    other.version_id = "fake-2"
    async with opened(sqlite_database, tmp_path, model=other) as stage:
        await stage.enter("deploy", Phase.ADVISORY)
        assert (await report(stage, wrong, DENY, "operator"))["rollback"] is None


async def test_an_undone_verdict_does_not_restore_the_phase(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    wrong = await stage.decide("deploy")
    await report(stage, wrong, DENY, "reviewer")
    await stage.services.reviews.undo(review_id(stage, wrong), stage.principal("reviewer"))
    assert stage.state("deploy").phase is Phase.ADVISORY
    assert stage.state("deploy").investigation is not None


async def test_a_wrong_allow_in_advisory_rolls_back_too(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ADVISORY)
    wrong = await stage.decide("deploy", legacy="deny", model="allow")
    await stage.observed(n=1, rollout="deploy")
    assert (await report(stage, wrong, DENY, "operator"))["rollback"]["to"]["phase"] == "shadow"


async def test_a_wrong_allow_that_was_reported_before_it_was_observed_rolls_back(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ADVISORY)
    stage.model.thinks()
    wrong = await stage.decide("deploy", legacy="allow", model="allow")
    assert (await report(stage, wrong, DENY, "operator"))["rollback"] is None
    stage.model.answers_now()
    await stage.until(lambda: stage.state("deploy").phase is Phase.SHADOW)
    assert stage.rows(t.advisories) == 1


async def test_a_decision_that_was_reported_before_it_was_drawn_keeps_its_draw(stage: Stage) -> None:
    stage.model.thinks()
    document = await stage.decide("read", model="allow")
    await report(stage, document, DENY, "operator")
    stage.model.answers_now()
    await stage.observed(n=1)
    review = stage.review(document["id"])
    assert review is not None
    assert (review["inclusion_probability"], review["model_decision"]) == (1.0, "allow")
    assert stage.evidence("read").problem is None
    assert stage.evidence("read").totals["overridden", "agreement:0"] == 1


async def test_a_binding_verdict_that_comes_before_the_advisory_meets_it(stage: Stage) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    stage.model.thinks()
    document = await stage.decide("admin_action", legacy="allow", model="allow")
    await stage.judge(document["id"], "deny")
    stage.model.answers_now()
    await stage.until(lambda: stage.state("admin").phase is Phase.SHADOW)
    reason = stage.services.rollouts.transitions("admin", limit=1)[0]["reason"]
    assert reason.startswith("confirmed wrong allow")


@pytest.mark.parametrize("undone", [False, True])
async def test_what_several_people_say_of_one_allow_rolls_back_once(stage: Stage, *, undone: bool) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    wrong = await stage.decide("deploy")
    assert (await report(stage, wrong, DENY, "reviewer"))["rollback"] is not None
    if undone:
        await stage.services.reviews.undo(review_id(stage, wrong), stage.principal("reviewer"))
    assert (await report(stage, wrong, DENY, "operator"))["rollback"] is None
    assert stage.state("deploy").phase is Phase.ADVISORY


async def test_another_wrong_allow_of_an_older_epoch_rolls_back_again(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    one, other = await stage.decide("deploy"), await stage.decide("deploy", actor="bob")
    await report(stage, one, DENY, "operator")
    assert (await report(stage, other, DENY, "operator"))["rollback"]["to"]["phase"] == "shadow"


async def test_an_allow_that_was_known_wrong_in_shadow_does_not_roll_back_what_was_promoted_since(
    stage: Stage,
) -> None:
    wrong = await stage.decide("deploy")
    await stage.observed(n=1, rollout="deploy")
    assert (await report(stage, wrong, DENY, "operator"))["rollback"] is None
    await stage.enter("deploy", Phase.ADVISORY)
    assert (await report(stage, wrong, DENY, "another_reviewer"))["rollback"] is None
    assert stage.state("deploy").phase is Phase.ADVISORY


# --- who may ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["claim", "judge", "report"])
async def test_nobody_judges_a_situation_whose_actor_is_theirs(stage: Stage, act: str) -> None:
    document, review = await drawn(stage, actor="rita")
    reviews, rita = stage.services.reviews, stage.principal("reviewer")
    acts = {
        "claim": lambda: reviews.claim(review, rita),
        "judge": lambda: reviews.judge(review, DENY, rita),
        "report": lambda: reviews.report(document["id"], DENY, rita),
    }
    with pytest.raises(Forbidden, match="theirs"):
        await acts[act]()
    assert stage.queue(who="reviewer") == []
    assert len(stage.queue(who="another_reviewer")) == 1


async def test_nobody_judges_what_their_own_key_asked(stage: Stage) -> None:
    document, review = await drawn(stage, who="admin")
    with pytest.raises(Forbidden, match="theirs"):
        await stage.services.reviews.judge(review, DENY, stage.principal("admin"))
    with pytest.raises(Forbidden, match="theirs"):
        await report(stage, document, DENY, "admin")
    assert stage.queue(who="admin") == []


async def test_a_claimed_review_waits_ten_minutes_for_its_holder(any_stage: Stage) -> None:
    document, review = await drawn(any_stage)
    reviews = any_stage.services.reviews
    claimed = await reviews.claim(review, any_stage.principal("reviewer"))
    assert claimed["claimed_by_me"]
    with pytest.raises(Conflict, match="somebody else"):
        await reviews.judge(review, DENY, any_stage.principal("another_reviewer"))
    any_stage.clock.passes(minutes=10)
    assert (await any_stage.judge(document["id"], "deny", who="another_reviewer"))["human_decision"] == "deny"


async def test_of_two_verdicts_at_once_one_counts(any_stage: Stage) -> None:
    _, review = await drawn(any_stage)
    judge = any_stage.services.reviews.judge
    outcomes = await asyncio.gather(
        judge(review, ALLOW, any_stage.principal("reviewer")),
        judge(review, DENY, any_stage.principal("another_reviewer")),
        return_exceptions=True,
    )
    assert len([one for one in outcomes if isinstance(one, Conflict)]) == 1
    assert any_stage.evidence("read").totals["reviewed", "agreement:0"] == 1


async def test_an_unknown_review_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.services.reviews.judge("none", DENY, stage.principal("reviewer"))


# --- what a verdict changes ------------------------------------------------------------------------


async def test_a_verdict_is_told_as_a_feedback_record(stage: Stage) -> None:
    document, review = await drawn(stage, model="deny")
    said = Verdict(Decision.ALLOW, "model_too_strict", "this is fine")
    told = await stage.services.reviews.judge(review, said, stage.principal("reviewer"))
    assert {
        key: told[key] for key in ("situation_id", "llm_decision", "human_decision", "match", "notes")
    } == {
        "situation_id": document["id"],
        "llm_decision": "deny",
        "human_decision": "allow",
        "match": False,
        "notes": "this is fine",
    }
    assert told["rollback"] is None


async def test_an_undone_verdict_leaves_the_evidence_as_it_was_and_the_history_longer(
    any_stage: Stage,
) -> None:
    document, review = await drawn(any_stage)
    before = {key: n for key, n in any_stage.evidence("read").totals.items() if n}
    await any_stage.judge(document["id"], "deny")
    await any_stage.services.reviews.undo(review, any_stage.principal("reviewer"))
    assert {key: n for key, n in any_stage.evidence("read").totals.items() if n} == before
    story = await any_stage.story(document["id"])
    assert [(one["source"], one["decision"]) for one in story["verdicts"]] == [
        ("review", "deny"),
        ("undo", None),
    ]
    await any_stage.judge(document["id"], "allow")
    assert any_stage.evidence("read").totals["reviewed", "agreement:0"] == 1


async def test_only_its_judge_undoes_a_verdict_and_only_once(stage: Stage) -> None:
    document, review = await drawn(stage)
    await stage.judge(document["id"], "deny")
    undo = stage.services.reviews.undo
    with pytest.raises(Forbidden, match="only the judge"):
        await undo(review, stage.principal("another_reviewer"))
    await undo(review, stage.principal("reviewer"))
    with pytest.raises(Conflict, match="no verdict"):
        await undo(review, stage.principal("reviewer"))


async def test_a_report_supersedes_the_verdict_before_it(stage: Stage) -> None:
    document, _ = await drawn(stage)
    await stage.judge(document["id"], "allow")
    await report(stage, document, DENY, "operator")
    evidence = stage.evidence("read")
    assert evidence.totals["reviewed", "agreement:0"] == evidence.totals["overridden", "agreement:0"] == 1
    first, second = (await stage.story(document["id"]))["verdicts"]
    assert second["supersedes"] == first["id"]


async def test_a_report_and_a_verdict_on_an_attestation_stand_beside_each_other(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide(legacy="deny", model="allow")
    await report(stage, document, DENY, "operator")
    assert stage.evidence("read").wrong_allows == 1
    assert stage.evidence("read").totals.get(("reviewed", "disagreement:0"), 0) == 0
    await stage.judge(document["id"], "allow")
    assert (await stage.story(document["id"]))["decision"] == "allow"
    assert stage.evidence("read").totals["reviewed", "disagreement:0"] == 1
    assert stage.evidence("read").problem is None


async def test_a_second_report_on_an_attestation_takes_the_place_of_the_first(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    document = await stage.decide("write", legacy="require_attestation", model="allow")
    await stage.observed(n=1, rollout="write")
    for who in ("operator", "another_reviewer"):
        await stage.services.reviews.report(document["id"], Verdict(Decision.DENY), stage.principal(who))
    assert stage.evidence("write").wrong_allows == 1


async def test_an_allow_that_report_and_verdict_call_wrong_is_one_wrong_allow(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide(legacy="deny", model="allow")
    await report(stage, document, DENY, "operator")
    await stage.judge(document["id"], "deny")
    assert stage.evidence("read").wrong_allows == 1
    await stage.services.reviews.undo(document["review"]["id"], stage.principal("operator"))
    assert stage.evidence("read").wrong_allows == 1


async def test_a_report_on_an_attestation_can_be_taken_back(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide(legacy="deny", model="allow")
    await report(stage, document, DENY, "reviewer")
    await stage.services.reviews.undo(document["review"]["id"], stage.principal("reviewer"))
    assert stage.evidence("read").wrong_allows == 0
    assert (await stage.story(document["id"]))["final"] is False


async def test_a_callers_report_only_puts_a_review_first(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    await drawn(stage, legacy="allow", model="allow")
    wrong = await stage.decide("deploy")
    told = await report(stage, wrong, DENY, "caller")
    assert (told["confirmed"], told["rollback"]) == (False, None)
    assert stage.state("deploy").phase is Phase.ENFORCED
    assert stage.queue()[0]["decision_id"] == wrong["id"]
    assert stage.evidence("deploy").wrong_allows == 0


async def test_a_caller_reports_only_their_own(stage: Stage) -> None:
    document = await stage.decide(who="admin")
    with pytest.raises(NotFound):
        await report(stage, document, DENY, "caller")


async def test_where_the_model_allows_what_the_legacy_engine_denies_the_review_goes_first(
    stage: Stage,
) -> None:
    for legacy, model in (("allow", "allow"), ("allow", "deny"), ("deny", "allow")):
        await drawn(stage, legacy=legacy, model=model, actor=f"{legacy}-{model}")
    assert stage.queue()[0]["situation"]["actor_id"] == "deny-allow"


async def test_a_drawn_review_records_the_probability_that_it_had(
    sqlite_database: Database, tmp_path: Path
) -> None:
    rare = ROLLOUTS.replace("review_rate: 1", "review_rate: 0.25")
    async with opened(sqlite_database, tmp_path, rollouts=rare) as stage:
        await stage.enter("read", Phase.ENFORCED)
        for number in range(40):
            await stage.decide(actor=f"actor-{number}")
        rows = stage.queue()
        assert 0 < len(rows) < 40
        told = [row["inclusion_probability"] for row in rows if row["mode"] == "assisted"]
        assert told
        assert all(0 < probability < 1 for probability in told)
        counted = sum(n for (metric, _), n in stage.evidence("read").totals.items() if metric == "drawn")
        assert counted == len(rows)


async def test_a_blind_review_hides_the_model_until_it_is_judged(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    for number in range(24):
        await stage.decide(legacy="allow", model="deny", actor=f"actor-{number}")
    modes = {row["mode"]: row for row in stage.queue()}
    unseen = (
        "advisory",
        "decision",
        "inclusion_probability",
    )  # that depends on whether model and rules agree
    assert [modes["blind"][name] for name in unseen] == [None] * 3
    assert modes["assisted"]["inclusion_probability"] == 1.0
    assert modes["assisted"]["advisory"]["decision"] == modes["assisted"]["decision"] == "deny"
    blind = modes["blind"]["decision_id"]
    differing, who = Filters(agreement=False), stage.principal("reviewer")
    listed = stage.services.stories.page(differing, who, cursor=None, limit=50)["decisions"]
    assert {row["review"]["id"] for row in listed} == {
        row["id"] for row in stage.queue() if row["mode"] == "assisted"
    }
    seen = await stage.story(blind, who="reviewer")
    hidden = ("advisory", "agreement", "decision", "answered_by", "fallback_reason", "candidate")
    assert [seen[name] for name in hidden] == [None] * 6
    answered, everything = Filters(decision="deny"), Filters()
    found = stage.services.stories.page(answered, who, cursor=None, limit=50)["decisions"]
    assert blind not in {row["id"] for row in found}
    told = stage.services.stories.page(everything, who, cursor=None, limit=50)["decisions"]
    assert {row["decision"] for row in told if row["id"] == blind} == {None}
    assert (await stage.story(blind, who="auditor"))["decision"] == "deny"
    await stage.judge(blind, "allow")
    assert (await stage.story(blind, who="reviewer"))["advisory"]["decision"] == "deny"


async def test_a_verdict_counts_in_the_epoch_of_its_decision(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide()
    await stage.enter("read", Phase.ADVISORY)
    await stage.judge(document["id"], "deny")
    assert stage.evidence("read").totals == {}


async def test_a_decision_of_a_rollout_that_was_taken_out_can_still_be_judged_and_reported(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        await stage.enter("admin", Phase.ADVISORY)
        asked = await stage.decide("admin_action")
        plain = await stage.decide("admin_action", legacy="deny")
        written(tmp_path, rollouts="\n".join(x for x in ROLLOUTS.splitlines() if "  admin:" not in x))
        await stage.services.policies.apply(stage.principal("operator"))
        await stage.services.policies.apply(stage.principal("approver"))
        assert (await stage.judge(asked["id"], "deny"))["rollback"] is None
        assert (await report(stage, plain, ALLOW, "operator"))["confirmed"]


async def test_where_the_legacy_engine_answers_alone_a_verdict_adds_no_evidence(stage: Stage) -> None:
    stage.model.is_ready = False
    document = await stage.decide()
    told = await report(stage, document, DENY, "operator")
    assert (told["llm_decision"], told["match"]) == (None, None)
    assert answer(document) == ("allow", "legacy", None)
    assert stage.evidence("read").wrong_allows == 0
