"""What is an answer from memory worth: shown and recorded, but no second piece of evidence?"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import GateNotMet
from app.services.succession import Act, Wish
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened, situation


@pytest.fixture
async def stage(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server whose model remembers; `deploy` is of high risk and says nothing about memory."""
    async with opened(sqlite_database, tmp_path, model=FakeModel(remembers=True)) as server:
        yield server


def counted(stage: Stage, name: str) -> dict[tuple[str, str], int]:
    """All that speaks for or against the model; not how many decisions there were."""
    kept = ("observation", "latency", "model", "pair", "drawn")
    return {key: n for key, n in stage.evidence(name).totals.items() if key[0] in kept}


def advisories(stage: Stage) -> list[Mapping[Any, Any]]:
    with stage.database.read() as connection:
        return list(connection.execute(t.advisories.select()).mappings())


async def ask(stage: Stage, action: str = "read", **said: Any) -> dict[str, Any]:
    """The same question, whoever asks."""
    return await stage.decide(action, team_context="the same", **said)


async def seen(stage: Stage, n: int) -> None:
    await stage.until(lambda: len(advisories(stage)) == n)


@pytest.mark.parametrize("phase", list(Phase))
async def test_the_same_question_is_one_observation_however_often_it_comes(
    stage: Stage, phase: Phase
) -> None:
    await stage.enter("read", phase)
    await ask(stage)
    await seen(stage, 1)
    once = counted(stage, "read")
    assert once["observation", "ok"] == once["model", "allow"] == once["pair", "allow>allow"] == 1
    for number in range(3):
        document = await ask(stage, actor=f"actor-{number}")
        await seen(stage, number + 2)
        shown = (await stage.story(document["id"]))["advisory"]
        assert (shown["cached"], shown["decision"]) == (True, "allow")
    assert counted(stage, "read") == once
    assert len(stage.model.asked) == 1
    assert [row["cached"] for row in advisories(stage)] == [False, True, True, True]
    assert stage.rows(t.reviews) == 1, "only what was computed is drawn"


async def test_an_answer_from_memory_binds_as_the_computed_one_did(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    first, again = [await ask(stage, legacy="allow", model="deny") for _ in range(2)]
    for document in (first, again):
        assert (document["decision"], document["answered_by"]) == ("deny", "model")
    assert stage.evidence("read").totals["enforced", "all"] == 1


async def test_a_new_epoch_gathers_its_own_evidence(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await ask(stage)
    await seen(stage, 1)
    await stage.enter("read", Phase.ENFORCED)
    await ask(stage)
    assert counted(stage, "read")["observation", "ok"] == 1
    assert len(stage.model.asked) == 2


async def test_high_risk_is_always_computed(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    for _ in range(2):
        await ask(stage, "deploy")
    assert counted(stage, "deploy") == counted(stage, "deploy") | {
        ("observation", "ok"): 1,
        ("observation", "repeated"): 1,
    }
    assert len(stage.model.asked) == 2


async def test_a_rollout_may_do_without_memory(sqlite_database: Database, tmp_path: Path) -> None:
    without = ROLLOUTS.replace("risk: low", "risk: low\n    cache: false")
    async with opened(sqlite_database, tmp_path, rollouts=without, model=FakeModel(remembers=True)) as stage:
        await stage.enter("read", Phase.ENFORCED)
        for _ in range(2):
            await ask(stage)
        assert counted(stage, "read")["observation", "repeated"] == 1
        assert len(stage.model.asked) == 2


async def test_an_opinion_is_no_evidence_and_takes_none_away(stage: Stage) -> None:
    body = (await stage.call("POST", "/advisory", situation(), who="caller")).json()
    again = (await stage.call("POST", "/advisory", situation(), who="caller")).json()
    assert (body["cached"], again["cached"]) == (False, True)
    await stage.decide(team_context=None)
    await seen(stage, 1)
    assert counted(stage, "read")["observation", "ok"] == 1


async def test_high_risk_that_remembers_still_counts_what_its_ledger_says(
    sqlite_database: Database, tmp_path: Path
) -> None:
    remembering = ROLLOUTS.replace("risk: high\n", "risk: high\n    cache: true\n", 1)
    model = FakeModel(remembers=True)
    async with opened(sqlite_database, tmp_path, rollouts=remembering, model=model) as stage:
        for number in range(3):
            await ask(stage, "deploy")
            await seen(stage, number + 1)
        assert [row["cached"] for row in advisories(stage)] == [False, True, True]
        with pytest.raises(GateNotMet) as refusal:
            await stage.services.levers.promote(
                "deploy", to=Phase.ADVISORY, reason="on", expected_revision=1, by=stage.principal("approver")
            )
        assert "evidence" not in {judged["name"] for judged in refusal.value.gate["conditions"]}


async def test_the_same_question_is_one_observation_of_a_candidate_too(
    sqlite_database: Database, tmp_path: Path
) -> None:
    other = FakeModel("fake-2", remembers=True)
    model = FakeModel(remembers=True)
    async with opened(sqlite_database, tmp_path, model=model, others=[other]) as stage:
        wish = Wish(Act.CANDIDATE, "compare", "fake-2")
        await stage.services.succession.change("read", wish, by=stage.principal("operator"))
        for number in range(3):
            await ask(stage, actor=f"actor-{number}")
            await stage.until(lambda n=number: stage.rows(t.candidate_advisories) == n + 1)  # type: ignore[misc]
        [found] = stage.services.experiments.all()
        assert (found["evidence"]["observed"], found["paired"]["agreement"]["both"]) == (1, 1)
        assert len(other.asked) == 1
