"""Does a promotion that needs a second person get one, and none that was overtaken?"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.errors import CeilingReached, Conflict, GateNotMet, RevisionConflict
from app.store import keys
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened
from tests.services.test_levers import promote, roll_back

FOUR_EYES = ROLLOUTS.replace("reviewed_at_least: 5}", "reviewed_at_least: 5, approvals: 1}")
ENFORCED = Phase.ENFORCED


@pytest.fixture
async def advised(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """`read` in advisory, with evidence that carries it further, but for a second person's word."""
    async with opened(database, tmp_path, rollouts=FOUR_EYES) as stage:
        await stage.enter("read", Phase.ADVISORY)
        for number in range(12):
            await stage.decide(actor=f"actor-{number}")
        await stage.until(lambda: stage.rows(t.reviews) == 12)
        await stage.judge_all("allow")
        yield stage


async def approve(stage: Stage, *, who: str = "approver", to: Phase = ENFORCED, name: str = "read") -> Any:
    return await stage.services.approvals.approve(
        name,
        to=to,
        reason="seen and agreed",
        expected_revision=stage.state(name).revision,
        by=stage.principal(who),
    )


def open_ones(refusal: pytest.ExceptionInfo[GateNotMet]) -> list[str]:
    return [one["name"] for one in refusal.value.gate["conditions"] if one["outcome"] != "pass"]


def voided(stage: Stage) -> list[str | None]:
    with stage.database.read() as connection:
        return list(
            connection.execute(select(t.approvals.c.void_reason).order_by(t.approvals.c.id)).scalars()
        )


def kinds(stage: Stage) -> list[str]:
    return [one["kind"] for one in reversed(stage.services.rollouts.transitions("read", limit=100))]


def holder(key: keys.ApiKey) -> Principal:
    return Principal(key.id, key.name, key.roles, key.actors)


async def test_a_promotion_waits_for_a_second_person_and_then_goes(advised: Stage) -> None:
    with pytest.raises(GateNotMet) as refusal:
        await promote(advised, "read", ENFORCED, who="operator")
    assert open_ones(refusal) == ["approvals"]
    assert "phasegate approve read --to enforced" in refusal.value.gate["sentence"]
    given = await approve(advised)
    assert (given["kind"], given["evidence"]["to"]) == ("approval", "enforced")
    gate = advised.services.rollouts.gate("read", ENFORCED)
    assert gate["outcome"] == "pass"
    assert "by approver, key" in gate["conditions"][-1]["sentence"]
    await promote(advised, "read", ENFORCED, who="operator")
    assert advised.state("read").phase is ENFORCED


async def test_nobody_promotes_on_their_own_approval(advised: Stage) -> None:
    await approve(advised)
    with pytest.raises(GateNotMet) as refusal:
        await promote(advised, "read", ENFORCED, who="approver")
    assert open_ones(refusal) == ["approvals"]
    await promote(advised, "read", ENFORCED, who="operator")  # the word itself stands


async def test_another_key_of_the_same_person_is_no_second_person(advised: Stage) -> None:
    def two_keys(tx: Any) -> list[keys.ApiKey]:
        return [
            keys.create(tx, name=name, roles=[role], created_by="test", now_us=0, actors=["olga"])[0]
            for name, role in (("olga's one", Role.APPROVER), ("olga's other", Role.OPERATOR))
        ]

    one, other = await advised.ledger.run(two_keys)
    advised.keys = {
        **advised.keys,
        "one": (holder(one), ""),
        "other": (holder(other), ""),
    }
    await approve(advised, who="one")
    with pytest.raises(GateNotMet) as refusal:
        await promote(advised, "read", ENFORCED, who="other")
    assert open_ones(refusal) == ["approvals"]


async def test_only_what_the_evidence_carries_is_approved(advised: Stage) -> None:
    for number in range(20):
        await advised.decide(actor=f"late-{number}", model="deny")
    await advised.until(lambda: advised.rows(t.reviews) == 32)
    with pytest.raises(GateNotMet) as refusal:
        await approve(advised)
    assert open_ones(refusal) == ["reviews_judged", "approvals"]
    assert advised.rows(t.approvals) == 0


async def test_an_approval_is_void_when_the_evidence_changes_the_outcome_and_never_comes_back(
    advised: Stage,
) -> None:
    await approve(advised)
    for number in range(20):
        await advised.decide(actor=f"late-{number}", model="deny")
    await advised.until(lambda: advised.rows(t.reviews) == 32)
    (made,) = await advised.services.approvals.look()
    assert (made["kind"], made["automatic"]) == ("approval_void", True)
    assert "reviews_judged" in str(made["evidence"])
    await advised.judge_all("deny")
    gate = advised.services.rollouts.gate("read", ENFORCED)
    assert [one["name"] for one in gate["conditions"] if one["outcome"] != "pass"] == ["approvals"]
    with pytest.raises(GateNotMet):
        await promote(advised, "read", ENFORCED, who="operator")
    await approve(advised)
    await promote(advised, "read", ENFORCED, who="operator")


async def test_an_approval_outlives_a_hold_for_it_says_nothing_of_the_evidence(advised: Stage) -> None:
    await approve(advised)
    operator = advised.principal("operator")
    await advised.services.levers.hold("read", reason="wait", by=operator)
    with pytest.raises(GateNotMet) as refusal:
        await promote(advised, "read", ENFORCED, who="operator")
    assert open_ones(refusal) == ["held"]
    assert await advised.services.approvals.look() == []
    await advised.services.levers.resume("read", reason="go on", by=operator)
    await promote(advised, "read", ENFORCED, who="operator")
    assert kinds(advised) == ["promote", "approval", "hold", "resume", "promote"]


async def test_an_approval_is_of_one_epoch(advised: Stage) -> None:
    await approve(advised)
    await roll_back(advised)
    assert await advised.services.approvals.look() == []
    assert voided(advised) == ["another epoch, version or policy began"]


async def test_what_still_holds_stays_approved(advised: Stage) -> None:
    await approve(advised)
    assert await advised.services.approvals.look() == []
    assert voided(advised) == [None]


async def test_the_word_of_a_revoked_key_is_worth_nothing(advised: Stage) -> None:
    await approve(advised)
    await advised.services.administration.revoke_key(
        advised.principal("approver").key_id, by=advised.principal("admin")
    )
    with pytest.raises(GateNotMet):
        await promote(advised, "read", ENFORCED, who="operator")


async def test_one_approves_once_the_next_phase_and_what_was_looked_at(advised: Stage) -> None:
    await approve(advised)
    with pytest.raises(Conflict, match="has approved read to enforced already"):
        await approve(advised)
    with pytest.raises(RevisionConflict):
        await advised.services.approvals.approve(
            "read", to=ENFORCED, reason="?", expected_revision=99, by=advised.principal("admin")
        )
    with pytest.raises(Conflict, match="asks for no approval"):
        await approve(advised, name="write", to=Phase.ADVISORY)
    with pytest.raises(CeilingReached):
        await approve(advised, name="admin", to=ENFORCED)
