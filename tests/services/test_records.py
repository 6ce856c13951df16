"""Does an answer leave only with its record, and can it be explained afterwards?"""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.errors import NotFound, NotRecorded
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.database import Database
from app.store.ledger import LedgerState
from tests.services.plane import Stage, opened
from tests.services.test_phases import answer


def move_away(stage: Stage) -> Callable[[], None]:
    """Take the database file away; returns what brings it back."""
    path = Path(stage.database.url.removeprefix("sqlite+pysqlite:///").removeprefix("sqlite:///"))
    gone = path.with_suffix(".gone")
    path.rename(gone)

    def back() -> None:
        gone.rename(path)

    return back


def break_journal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(stage.ledger._journal, "append", full)


async def test_a_decision_is_in_the_database_before_its_caller_has_it(any_stage: Stage) -> None:
    document = await any_stage.decide()
    with any_stage.database.read() as connection:
        assert connection.execute(t.decisions.select()).mappings().one()["id"] == document["id"]


@pytest.mark.parametrize("phase", list(Phase))
async def test_when_the_database_is_away_the_journal_takes_the_record_and_the_legacy_engine_answers(
    stage: Stage, phase: Phase
) -> None:
    await stage.enter("read", phase)
    back = move_away(stage)
    document = await stage.decide(legacy="deny", model="allow")
    assert document["answered_by"] == "legacy"
    assert document["fallback_reason"] == ("stale_state" if phase is Phase.ENFORCED else None)
    assert stage.ledger.state is LedgerState.JOURNALING
    back()
    await stage.until_recovered()
    assert (await stage.story(document["id"]))["decision"] == "deny"


async def test_when_nobody_takes_the_record_there_is_no_decision(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enter("read", Phase.ENFORCED)
    back = move_away(stage)
    break_journal(stage, monkeypatch)
    with pytest.raises(NotRecorded):
        await stage.decide()
    back()
    assert stage.rows(t.decisions) == 0


async def test_every_part_of_a_decision_can_be_explained(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    document = await any_stage.decide(legacy="deny", model="deny")
    await any_stage.judge(document["id"], "allow")
    story = await any_stage.story(document["id"])
    for fresh in ("decision", "answered_by", "phase", "revision", "version", "fallback_reason", "combine"):
        assert story[fresh] == document[fresh]
    assert story["legacy"]["rule"] == "default"
    assert story["advisory"]["probabilities"]["deny"] == 0.9
    assert story["advisory"]["reasoning"]
    assert story["situation"]["actor_id"] == "alice"
    assert [one["decision"] for one in story["verdicts"]] == ["allow"]


async def test_reasons_that_nobody_asked_for_yet_are_made_when_somebody_does_and_kept(stage: Stage) -> None:
    document = await stage.decide("write")
    await stage.observed(n=1, rollout="write")
    assert stage.rows(t.reasonings) == 0
    assert (await stage.story(document["id"]))["advisory"]["reasoning"]
    assert (await stage.story(document["id"]))["advisory"]["reasoning"]
    assert (stage.model.explained, stage.rows(t.reasonings)) == (1, 1)


async def test_reasons_that_two_make_at_once_are_kept_once_and_fail_nobody(any_stage: Stage) -> None:
    document = await any_stage.decide("write")
    await any_stage.observed(n=1, rollout="write")
    stories = await asyncio.gather(
        *(any_stage.story(document["id"]) for _ in range(5)), any_stage.decide("write")
    )
    assert {story["advisory"]["reasoning"] for story in stories[:5]} == {"allow, mainly because of details"}
    assert any_stage.rows(t.reasonings) == 1
    assert any_stage.rows(t.decisions) == 2


async def test_an_erased_situation_leaves_the_decision_and_the_chain_whole(any_stage: Stage) -> None:
    document = await any_stage.decide()
    await any_stage.ledger.run(lambda tx: tx.connection.execute(delete(t.situations)).rowcount)
    story = await any_stage.story(document["id"])
    assert (story["situation"], story["decision"]) == (None, "allow")
    assert any_stage.services.administration.verify()["ok"]


async def test_after_everything_the_chain_verifies(any_stage: Stage) -> None:
    await any_stage.enter("deploy", Phase.ENFORCED)
    document = await any_stage.decide("deploy")
    await any_stage.services.reviews.report(
        document["id"], Verdict(Decision.DENY), any_stage.principal("operator")
    )
    await any_stage.looks()
    found = any_stage.services.administration.verify()
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["rows"] > 4


@pytest.mark.parametrize("who", ["reviewer", "operator", "approver", "auditor", "admin"])
async def test_whoever_works_on_the_plane_sees_every_decision(stage: Stage, who: str) -> None:
    document = await stage.decide()
    assert (await stage.story(document["id"], who=who))["id"] == document["id"]


async def test_a_caller_sees_their_own_decisions_only(stage: Stage) -> None:
    own, other = await stage.decide(), await stage.decide(who="admin")
    assert (await stage.story(own["id"], who="caller"))["id"] == own["id"]
    with pytest.raises(NotFound):
        await stage.story(other["id"], who="caller")


async def test_the_same_situation_is_observed_with_the_same_answer(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    one, other = await stage.decide(model="deny"), await stage.decide(model="deny")
    assert answer(one) == answer(other)
    assert one["advisory"]["probabilities"] == other["advisory"]["probabilities"]


async def test_a_server_that_starts_again_routes_by_the_phases_it_had(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database, tmp_path) as stage:
        await stage.enter("read", Phase.ENFORCED)
        clock, states = stage.clock, stage.services.plane.view.states
    async with opened(database, tmp_path, clock=clock) as stage:
        assert stage.services.plane.view.states == states
        assert (await stage.decide())["answered_by"] == "model"
