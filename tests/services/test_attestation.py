"""How does a `require_attestation` become a person's decision, or none?"""

import asyncio
from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.errors import Conflict
from app.services.verdicts import Verdict
from app.store import tables as t
from tests.services.plane import Stage


async def asked(stage: Stage, *, phase: Phase = Phase.ADVISORY, **said: Any) -> dict[str, Any]:
    """A decision that needs a person, of a rollout without draws."""
    await stage.enter("write", phase)
    return await stage.decide("write", **{"legacy": "require_attestation", **said})


async def judged(stage: Stage, document: dict[str, Any], decision: Decision) -> dict[str, Any]:
    return await stage.services.reviews.judge(
        document["review"]["id"], Verdict(decision), stage.principal("reviewer")
    )


@pytest.mark.parametrize("phase", [Phase.ADVISORY, Phase.ENFORCED])
async def test_from_advisory_on_an_attestation_opens_a_binding_review(stage: Stage, phase: Phase) -> None:
    document = await asked(stage, phase=phase)
    assert document["decision"] == "require_attestation"
    assert (document["review"]["kind"], document["review"]["status"]) == ("binding", "open")
    assert document["final"] is False


async def test_in_shadow_an_attestation_is_the_legacy_engines_business_alone(stage: Stage) -> None:
    document = await stage.decide("write", legacy="require_attestation")
    assert (document["review"], document["final"]) == (None, True)


async def test_an_actor_who_is_not_exposed_to_advisory_is_in_shadow(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY, exposure=0.0)
    document = await stage.decide("write", legacy="require_attestation")
    assert (document["phase"], document["review"]) == ("shadow", None)


@pytest.mark.parametrize("verdict", list(Decision))
async def test_the_verdict_becomes_the_decision_in_force_and_final(
    any_stage: Stage, verdict: Decision
) -> None:
    document = await asked(any_stage)
    await judged(any_stage, document, verdict)
    story = await any_stage.story(document["id"], who="caller")
    assert (story["decision"], story["answered_by"], story["final"]) == (verdict, "reviewer", True)


async def test_the_ledger_keeps_the_first_answer(stage: Stage) -> None:
    document = await asked(stage)
    await judged(stage, document, Decision.ALLOW)
    with stage.database.read() as connection:
        assert connection.execute(t.decisions.select()).mappings().one()["decision"] == "require_attestation"


async def test_an_allow_says_until_when_it_is_valid(stage: Stage) -> None:
    document = await asked(stage)
    stage.clock.passes(minutes=5)
    await judged(stage, document, Decision.ALLOW)
    story = await stage.story(document["id"])
    assert story["valid_until"] == "2027-01-15T09:20:00.000000Z"


async def test_a_deny_is_valid_for_ever(stage: Stage) -> None:
    document = await asked(stage)
    await judged(stage, document, Decision.DENY)
    assert "valid_until" not in await stage.story(document["id"])


async def test_whoever_waits_hears_of_the_verdict(stage: Stage) -> None:
    document = await asked(stage)
    waiting = asyncio.create_task(stage.story(document["id"], wait_s=30))
    await asyncio.sleep(0)  # let it begin
    await judged(stage, document, Decision.ALLOW)
    story = await asyncio.wait_for(waiting, 5)
    assert (story["decision"], story["final"]) == ("allow", True)


async def test_a_wait_that_is_over_says_that_nothing_is_final(stage: Stage) -> None:
    document = await asked(stage)
    story = await stage.story(document["id"], wait_s=0.01)
    assert (story["decision"], story["final"]) == ("require_attestation", False)
    assert story["review"]["expires_at"] == "2027-01-15T09:15:00.000000Z"


async def test_after_its_time_an_attestation_is_deny(any_stage: Stage) -> None:
    document = await asked(any_stage)
    any_stage.clock.passes(minutes=15)
    assert await any_stage.services.guard.expire_reviews() == [document["id"]]
    story = await any_stage.story(document["id"])
    assert (story["decision"], story["answered_by"], story["final"]) == ("deny", "fail_safe", True)


async def test_it_is_deny_at_once_even_before_the_sweep(stage: Stage) -> None:
    document = await asked(stage)
    stage.clock.passes(minutes=15)
    assert (await stage.story(document["id"]))["decision"] == "deny"


async def test_whoever_waits_hears_of_the_expiry(stage: Stage) -> None:
    document = await asked(stage)
    waiting = asyncio.create_task(stage.story(document["id"], wait_s=30))
    await asyncio.sleep(0)  # let it begin
    stage.clock.passes(minutes=15)
    await stage.services.guard.expire_reviews()
    assert (await asyncio.wait_for(waiting, 5))["decision"] == "deny"


@pytest.mark.parametrize("swept", [True, False])
async def test_a_verdict_that_comes_too_late_changes_nothing(stage: Stage, *, swept: bool) -> None:
    document = await asked(stage)
    stage.clock.passes(minutes=15)
    if swept:
        await stage.services.guard.expire_reviews()
    with pytest.raises(Conflict, match="past its time"):
        await judged(stage, document, Decision.ALLOW)
    assert (await stage.story(document["id"]))["decision"] == "deny"


async def test_a_binding_verdict_cannot_be_undone(stage: Stage) -> None:
    document = await asked(stage)
    await judged(stage, document, Decision.ALLOW)
    with pytest.raises(Conflict, match="stands"):
        await stage.services.reviews.undo(document["review"]["id"], stage.principal("reviewer"))


@pytest.mark.parametrize("reporter", ["operator", "another_reviewer", "admin"])
@pytest.mark.parametrize("before", ["open", "judged", "expired"])
async def test_a_report_never_becomes_the_decision_in_force(stage: Stage, reporter: str, before: str) -> None:
    document = await asked(stage)
    if before == "judged":
        await judged(stage, document, Decision.DENY)
    if before == "expired":
        stage.clock.passes(minutes=15)
        await stage.services.guard.expire_reviews()
    in_force = await stage.story(document["id"])
    await stage.services.reviews.report(document["id"], Verdict(Decision.ALLOW), stage.principal(reporter))
    told = await stage.story(document["id"])
    assert {key: told[key] for key in ("decision", "final", "answered_by")} == {
        key: in_force[key] for key in ("decision", "final", "answered_by")
    }


async def test_every_other_review_is_after_the_fact(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide(legacy="allow", model="allow")
    assert document["final"]
    await judged(stage, document, Decision.DENY)
    story = await stage.story(document["id"])
    assert (story["decision"], story["answered_by"]) == ("allow", "model")
    assert stage.evidence("read").totals["overridden", "agreement:0"] == 1


@pytest.mark.parametrize("legacy", list(Decision))
async def test_where_a_human_approves_no_allow_leaves_from_advisory_on(
    stage: Stage, legacy: Decision
) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    document = await stage.decide("admin_action", legacy=legacy, model="allow")
    assert document["decision"] == ("require_attestation" if legacy == "allow" else legacy)
    await stage.observed(n=1, rollout="admin")
    assert stage.evidence("admin").totals["pair", f"{legacy}>allow"] == 1  # compared by the raw answers


async def test_in_shadow_nobody_has_to_approve(stage: Stage) -> None:
    assert (await stage.decide("admin_action"))["decision"] == "allow"
