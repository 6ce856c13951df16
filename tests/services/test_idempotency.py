"""Is a request that comes twice answered once?"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import InvalidInput
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import Stage, opened, situation
from tests.services.test_records import move_away


async def ask(stage: Stage, token: str = "one", *, who: str = "caller", **said: Any) -> dict[str, Any]:
    response = await stage.call(
        "POST", "/v1/decisions", situation(**said), who=who, headers={"Idempotency-Key": token}
    )
    document: dict[str, Any] = response.json()
    return document


async def test_the_same_key_and_body_give_the_same_decision(any_stage: Stage) -> None:
    any_stage.model.is_ready = False  # or an advisory may have come between the two
    first, again = await ask(any_stage), await ask(any_stage)
    assert again["id"] == first["id"]
    assert {key: again[key] for key in first} == first
    assert any_stage.rows(t.decisions) == 1


async def test_the_same_key_with_another_body_is_refused(stage: Stage) -> None:
    await ask(stage)
    problem = await ask(stage, actor="bob")
    assert (problem["status"], problem["type"]) == (422, "invalid-input")
    assert problem["errors"] == [{"field": "Idempotency-Key", "message": "was used with another body"}]
    assert stage.rows(t.decisions) == 1


async def test_a_key_is_its_holders_own(stage: Stage) -> None:
    assert (await ask(stage))["id"] != (await ask(stage, who="admin"))["id"]


async def test_duplicates_at_once_are_one_decision(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    documents = await asyncio.gather(*(ask(any_stage) for _ in range(20)))
    assert len({document["id"] for document in documents}) == 1
    assert any_stage.rows(t.decisions) == 1
    assert len(any_stage.model.asked) == 1


async def test_at_once_with_another_body_is_refused_too(stage: Stage) -> None:
    one, other = await asyncio.gather(ask(stage), ask(stage, actor="bob"))
    assert sorted([one.get("status", 200), other.get("status", 200)]) == [200, 422]


async def test_a_caller_who_hangs_up_takes_the_answer_from_nobody(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    stage.model.thinks()
    first, second = asyncio.create_task(ask(stage)), asyncio.create_task(ask(stage))
    await stage.model.is_thinking()
    first.cancel()
    stage.model.answers_now()
    assert (await asyncio.wait_for(second, 5))["decision"] == "allow"
    assert stage.rows(t.decisions) == 1


async def test_after_ten_minutes_a_key_is_new(stage: Stage) -> None:
    first = await ask(stage)
    stage.clock.passes(minutes=10)
    assert (await ask(stage))["id"] != first["id"]


async def test_a_models_allow_of_an_older_revision_is_asked_again(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    first = await ask(stage)
    assert (first["decision"], first["answered_by"]) == ("allow", "model")
    assert (await ask(stage))["id"] == first["id"]
    await stage.services.levers.roll_back("read", reason="drill", by=stage.principal("operator"))
    second = await ask(stage)
    assert (second["id"] != first["id"], second["answered_by"]) == (True, "legacy")
    assert (await ask(stage))["id"] == second["id"]


async def test_a_models_allow_is_asked_again_while_the_kill_switch_is_engaged(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    first = await ask(stage)
    await stage.services.levers.kill(engaged=True, reason="drill", by=stage.principal("operator"))
    assert (await ask(stage))["id"] != first["id"]


@pytest.mark.parametrize("model", ["deny", "timeout"])
async def test_what_the_model_did_not_allow_stays_the_answer(stage: Stage, model: str) -> None:
    await stage.enter("read", Phase.ENFORCED)
    first = await ask(stage, model=model)
    await stage.services.levers.roll_back("read", reason="drill", by=stage.principal("operator"))
    assert (await ask(stage, model=model))["id"] == first["id"]


async def test_a_key_survives_a_restart(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as stage:
        first, clock, holders = await ask(stage), stage.clock, stage.keys
    async with opened(database, tmp_path, clock=clock, holders=holders) as stage:
        assert (await ask(stage))["id"] == first["id"]


async def test_without_the_database_a_key_still_gets_one_legacy_answer(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    back = move_away(stage)
    first, again = await ask(stage), await ask(stage)
    assert (first["answered_by"], first["fallback_reason"]) == ("legacy", "stale_state")
    assert again["id"] == first["id"]
    assert (await ask(stage, actor="bob"))["status"] == 422
    back()
    await stage.until_recovered()
    assert (await ask(stage))["id"] == first["id"]
    assert stage.rows(t.decisions) == 1


@pytest.mark.parametrize("token", ["", "x" * 256, "a\x00b"])
async def test_a_key_is_a_short_printable_text(stage: Stage, token: str) -> None:
    async def never(_: object) -> dict[str, Any]:
        raise AssertionError("nobody is asked")

    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        await stage.services.replays.once("key", token, "hash", never)


async def test_a_failure_is_not_remembered(stage: Stage) -> None:
    assert (await ask(stage, actor=""))["status"] == 422
    assert (await ask(stage))["decision"] == "allow"
