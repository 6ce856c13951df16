"""What if the plane moves while the model thinks, or is not known well enough to let it answer?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.services.guard import Guard
from app.services.queries import Queries
from app.services.transitions import hold
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.rollouts import load_states, lock_state, touch_plane
from app.store.transaction import Transaction
from tests.services.plane import Stage
from tests.services.test_phases import answer


async def meanwhile(
    stage: Stage, happens: Callable[[], Awaitable[Any]], action: str = "read"
) -> dict[str, Any]:
    """What a caller gets where something happens between the question and the model's answer."""
    stage.model.thinks()
    asking = asyncio.create_task(stage.decide(action, legacy="deny", model="allow"))
    await stage.model.is_thinking()
    await happens()
    stage.model.answers_now()
    return await asyncio.wait_for(asking, 5)


async def nothing() -> None:
    """The plane stands still."""


async def test_where_nothing_moves_the_model_answers(enforced: Stage) -> None:
    assert answer(await meanwhile(enforced, nothing)) == ("require_attestation", "model", None)


@pytest.mark.parametrize("lever", ["roll_back", "hold"])
async def test_a_lever_that_is_turned_while_the_model_answers_gives_the_legacy_answer(
    enforced: Stage, lever: str
) -> None:
    turn = getattr(enforced.services.levers, lever)
    document = await meanwhile(
        enforced, lambda: turn("read", reason="drill", by=enforced.principal("operator"))
    )
    assert answer(document) == ("deny", "legacy", "stale_state")


async def test_a_kill_switch_that_is_engaged_while_the_model_answers_is_heeded(enforced: Stage) -> None:
    kill = enforced.services.levers.kill
    document = await meanwhile(
        enforced, lambda: kill(engaged=True, reason="drill", by=enforced.principal("operator"))
    )
    assert answer(document) == ("deny", "legacy", "kill_switch")


async def test_a_verdict_that_lands_while_the_model_answers_gives_the_legacy_answer(enforced: Stage) -> None:
    wrong = await enforced.decide("deploy", legacy="allow", model="allow")
    report = enforced.services.reviews.report
    document = await meanwhile(
        enforced,
        lambda: report(wrong["id"], Verdict(Decision.DENY), enforced.principal("operator")),
        "deploy",
    )
    assert answer(document) == ("deny", "legacy", "stale_state")


async def elsewhere(stage: Stage, change: Callable[[Transaction], Any]) -> None:
    """Another instance turns a lever: this one's snapshot does not know of it yet."""
    await stage.ledger.run(change)


@pytest.mark.parametrize("switch", ["revision", "kill_switch"])
async def test_what_moved_elsewhere_is_found_in_the_committing_transaction(
    any_stage: Stage, switch: str
) -> None:
    await any_stage.enter("read", Phase.ENFORCED)

    def change(tx: Transaction) -> None:
        if switch == "kill_switch":
            touch_plane(tx, kill_switch=True)
        else:
            now = any_stage.clock.now()
            hold(tx, lock_state(tx, "read"), actor="another", reason="drill", now=now)

    await elsewhere(any_stage, change)
    document = await any_stage.decide(legacy="deny", model="allow")
    assert answer(document) == ("deny", "legacy", "stale_state")
    with any_stage.database.read() as connection:
        row = connection.execute(t.decisions.select()).mappings().one()
    assert (row["id"], row["answered_by"]) == (document["id"], "legacy")


async def test_a_legacy_answer_needs_no_standing_revision(enforced: Stage) -> None:
    await elsewhere(enforced, lambda tx: touch_plane(tx, kill_switch=True))
    assert answer(await enforced.decide("write", legacy="deny", model="allow")) == ("deny", "legacy", None)


@pytest.mark.parametrize(("age_s", "by"), [(5.0, "model"), (5.1, "legacy")])
async def test_a_snapshot_older_than_five_seconds_is_stale(enforced: Stage, age_s: float, by: str) -> None:
    enforced.clock.passes(seconds=age_s)
    document = await enforced.decide(legacy="allow", model="allow")
    assert document["answered_by"] == by
    assert document["fallback_reason"] == (None if by == "model" else "stale_state")


async def test_a_snapshot_that_grows_old_while_the_model_answers_is_stale(enforced: Stage) -> None:
    async def waits() -> None:
        enforced.clock.passes(seconds=6)

    assert answer(await meanwhile(enforced, waits)) == ("deny", "legacy", "stale_state")


@pytest.mark.parametrize(("age_s", "by"), [(60, "model"), (61, "legacy")])
async def test_without_a_guardrail_pass_for_a_minute_the_model_does_not_answer(
    enforced: Stage, age_s: float, by: str
) -> None:
    for _ in range(int(age_s)):
        enforced.clock.passes(seconds=1)
        enforced.services.plane.refresh()
    assert (await enforced.decide())["answered_by"] == by


async def test_a_pass_that_another_instance_made_counts(enforced: Stage) -> None:
    enforced.clock.passes(seconds=61)
    services = enforced.services
    await Guard(
        services.plane,
        services.ledger,
        services.models,
        services.notices,
        Queries(None),
        now=enforced.clock.now,
    ).look()
    assert (await enforced.decide())["answered_by"] == "model"


async def test_the_wall_clock_makes_nothing_stale(enforced: Stage) -> None:
    enforced.clock.jumps(days=1)
    assert (await enforced.decide())["answered_by"] == "model"


async def test_a_change_is_routed_by_as_soon_as_it_is_told(enforced: Stage) -> None:
    await enforced.services.levers.roll_back("read", reason="drill", by=enforced.principal("operator"))
    document = await enforced.decide(legacy="deny", model="allow")
    assert (document["phase"], document["decision"], document["answered_by"]) == (
        "advisory",
        "deny",
        "legacy",
    )
    assert document["revision"] == enforced.state("read").revision


async def test_a_change_elsewhere_is_routed_by_after_the_next_poll(enforced: Stage) -> None:
    now = enforced.clock.now()
    await elsewhere(enforced, lambda tx: hold(tx, lock_state(tx, "read"), actor="x", reason="drill", now=now))
    enforced.services.plane.refresh()
    with enforced.database.read() as connection:
        assert enforced.services.plane.view.states == load_states(connection)
