"""Does a ramp widen by itself on healthy evidence, and by itself come down?"""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.domain.rollout import RampState
from app.errors import Conflict, InvalidInput, RevisionConflict
from app.store.database import Database
from app.store.history import list_transitions
from tests.scheduling.test_jobs import jobs, run_now, started
from tests.services.plane import ROLLOUTS, Clock, Stage, opened

# Six minutes and five observations a step; slowness is told, and does not roll back.
WIDENING = ROLLOUTS.replace(
    "    exposure: [50, 100]\n    review_rate: 1\n",
    "    exposure: [5, 25, 50, 100]\n    ramp_step_hours: 0.1\n    ramp_observations: 5\n"
    "    guardrails: {actions: {latency: notify}}\n",
)
STEPS = [0.05, 0.25, 0.5, 1.0]
_numbers = count()


@pytest.fixture
async def widening(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server whose rollout `read` is enforced for 5 % of its actors."""
    async with opened(sqlite_database, tmp_path, rollouts=WIDENING) as stage:
        await stage.enter("read", Phase.ENFORCED, exposure=0.05)
        yield stage


async def start(stage: Stage, *, to: float = 1.0, revision: int | None = None) -> dict[str, Any]:
    return await stage.services.ramps.start(
        "read",
        to=to,
        reason="it was quiet",
        expected_revision=revision or stage.state("read").revision,
        by=stage.principal("operator"),
    )


async def traffic(stage: Stage, *, exposed: int = 6, only_exposed: bool = False) -> None:
    """A question of actors whom nobody has seen before, until so many of them were exposed."""
    while exposed:
        actor = f"actor-{next(_numbers)}"
        is_exposed = stage.services.plane.view.share(actor) < stage.state("read").exposure
        if is_exposed or not only_exposed:
            await stage.decide(actor=actor)
        exposed -= is_exposed


async def minutes(stage: Stage, n: int) -> list[dict[str, Any]]:
    """The leader's jobs of so many minutes; returns the ramp's transitions."""
    made = []
    for _ in range(n):
        await stage.looks(every_s=60)
        made += await stage.services.ramps.advance()
    return made


def exposure(stage: Stage) -> float:
    return stage.state("read").exposure


async def test_on_healthy_evidence_a_ramp_takes_every_step_by_itself(widening: Stage) -> None:
    before = widening.state("read")
    await start(widening)
    made = []
    for _ in STEPS:
        await traffic(widening)
        made += await minutes(widening, 7)
    assert [each["to"]["exposure"] for each in made] == [0.25, 0.5, 1.0, 1.0]
    assert [each["kind"] for each in made] == ["exposure", "exposure", "exposure", "ramp"]
    assert {(each["automatic"], each["actor"]) for each in made} == {(True, "automation")}
    after = widening.state("read")
    assert (after.phase, after.epoch, after.version) == (before.phase, before.epoch, before.version)
    assert after.ramp is not None
    assert after.ramp.state is RampState.DONE


async def test_two_leaders_at_once_take_one_step(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path, rollouts=WIDENING) as stage:
        await stage.enter("read", Phase.ENFORCED, exposure=0.05)
        await start(stage)
        await traffic(stage)
        await stage.looks(times=7, every_s=60)
        made = await asyncio.gather(*(stage.services.ramps.advance() for _ in range(3)))
        assert (sum(len(each) for each in made), exposure(stage)) == (1, 0.25)


async def test_only_the_leader_widens(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    await widening.looks(times=7, every_s=60)
    leader = jobs(widening, "leader")
    async with started(leader):
        await run_now(jobs(widening, "other"), "ramps")
        assert exposure(widening) == 0.05
        await run_now(leader, "ramps")
        assert exposure(widening) == 0.25


async def test_each_step_keeps_the_conditions_that_it_rested_on(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    [step] = await minutes(widening, 7)
    conditions = {each["name"]: each for each in step["evidence"]["ramp"]["conditions"]}
    assert {each["outcome"] for each in conditions.values()} == {"pass"}
    assert conditions["observations"]["value"] >= 5
    assert step["reason"].startswith("ramp from 5 % to 25 %: served")


async def test_the_ramp_shows_what_its_next_step_waits_for(widening: Stage) -> None:
    await start(widening)
    await minutes(widening, 2)
    shown = widening.services.rollouts.one("read")["ramp"]
    assert (shown["state"], shown["step"], shown["next"]) == ("running", 0.05, 0.25)
    waiting = [each["name"] for each in shown["conditions"] if each["outcome"] != "pass"]
    assert waiting == ["served", "observations"]
    assert shown["sentence"].startswith("waits at 5 %: served")


async def test_a_held_ramp_waits_and_the_held_time_does_not_count(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    await widening.services.levers.hold("read", reason="a look", by=widening.principal("operator"))
    assert await minutes(widening, 20) == []
    await widening.services.levers.resume("read", reason="fine", by=widening.principal("operator"))
    assert await minutes(widening, 5) == []
    assert len(await minutes(widening, 2)) == 1


async def test_automation_stops_where_the_approval_ends(widening: Stage) -> None:
    await start(widening, to=0.25)
    for _ in STEPS:
        await traffic(widening)
        await minutes(widening, 7)
    assert exposure(widening) == 0.25


async def test_a_broken_sample_ratio_stops_the_ramp_at_the_first_step(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    await minutes(widening, 7)
    assert exposure(widening) == 0.25
    await traffic(widening, exposed=20, only_exposed=True)
    [stopped] = await minutes(widening, 1)
    assert (stopped["kind"], stopped["to"]["exposure"]) == ("exposure", 0.05)
    assert "20 of 20 actors exposed, expected 25 %" in stopped["reason"]
    ramp = widening.state("read").ramp
    assert ramp is not None
    assert ramp.state is RampState.STOPPED
    await traffic(widening)
    assert await minutes(widening, 20) == []


async def test_harm_ends_the_ramp_one_step_back(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    await minutes(widening, 7)
    widening.model.latency_ms = 11_000
    await traffic(widening, exposed=20)
    [back] = await minutes(widening, 3)
    assert (back["from"]["exposure"], back["to"]["exposure"], back["automatic"]) == (0.25, 0.05, True)
    assert back["reason"].startswith("ramp stopped at 5 %: guardrail latency")
    shown = widening.services.rollouts.one("read")["ramp"]
    assert (shown["state"], shown["step"], shown["next"]) == ("stopped", 0.05, None)


async def test_guardrails_that_nobody_judges_any_more_hold_the_ramp(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    await widening.looks(times=7, every_s=60)
    widening.clock.passes(seconds=61)
    assert await widening.services.ramps.advance() == []
    await widening.looks()
    assert len(await widening.services.ramps.advance()) == 1


@pytest.mark.parametrize("act", ["roll_back", "expose", "kill"])
async def test_what_people_or_guardrails_do_to_the_rollout_ends_its_ramp(widening: Stage, act: str) -> None:
    await start(widening)
    levers, by = widening.services.levers, widening.principal("admin")
    match act:
        case "roll_back":
            await levers.roll_back("read", reason="bad", by=by)
        case "expose":
            await levers.expose("read", exposure=0.25, reason="by hand", expected_revision=None, by=by)
        case _:
            await levers.kill(engaged=True, reason="all bad", by=by)
            await levers.kill(engaged=False, reason="good again", by=by)
    was = exposure(widening)
    await traffic(widening)
    await minutes(widening, 20)
    assert widening.state("read").running_ramp is None
    assert exposure(widening) == was


async def test_a_ramp_survives_a_restart(sqlite_database: Database, tmp_path: Path) -> None:
    clock = Clock()
    async with opened(sqlite_database, tmp_path, rollouts=WIDENING, clock=clock) as stage:
        await stage.enter("read", Phase.ENFORCED, exposure=0.05)
        await start(stage)
        await traffic(stage)
        await minutes(stage, 4)
        before, keys = stage.state("read"), stage.keys
    async with opened(sqlite_database, tmp_path, rollouts=WIDENING, clock=clock, holders=keys) as stage:
        assert stage.state("read").ramp == before.ramp
        [step] = await minutes(stage, 3)
        assert step["to"]["exposure"] == 0.25


async def test_a_person_stops_a_ramp_where_it_is(widening: Stage) -> None:
    await start(widening)
    await widening.services.ramps.stop("read", reason="enough", by=widening.principal("operator"))
    await traffic(widening)
    assert await minutes(widening, 10) == []
    assert widening.services.rollouts.one("read")["ramp"]["sentence"] == "stopped: enough"
    with pytest.raises(Conflict, match="no ramp"):
        await widening.services.ramps.stop("read", reason="enough", by=widening.principal("operator"))


async def test_every_instance_routes_by_a_step_as_soon_as_it_is_made(widening: Stage) -> None:
    await start(widening)
    await traffic(widening)
    [step] = await minutes(widening, 7)
    assert widening.services.plane.view.states["read"].revision == step["revision"]


async def test_a_start_leaves_one_transition_and_moves_nobody(widening: Stage) -> None:
    started = await start(widening)
    assert (started["kind"], started["automatic"], started["reason"]) == ("ramp", False, "it was quiet")
    assert started["from"]["exposure"] == started["to"]["exposure"] == 0.05
    assert started["evidence"]["ramp"]["steps"] == STEPS
    with widening.database.read() as connection:
        assert list_transitions(connection, "read")[0]["id"] == started["id"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"phase": Phase.SHADOW}, "in-shadow"),
        ({"exposure": 0.3}, "not-at-step"),
        ({"exposure": 1.0}, "not-next-step"),
        ({"lever": "hold"}, "held"),
        ({"lever": "kill"}, "kill-switch"),
        ({"lever": "ramp"}, "ramp-running"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_ramp_does_not_start(widening: Stage, state: dict[str, Any], code: str) -> None:
    lever = state.pop("lever", None)
    await widening.enter("read", **{"phase": Phase.ENFORCED, "exposure": 0.05, **state})
    by = widening.principal("admin")
    if lever == "hold":
        await widening.services.levers.hold("read", reason="a look", by=by)
    elif lever == "kill":
        await widening.services.levers.kill(engaged=True, reason="bad", by=by)
    elif lever == "ramp":
        await start(widening)
    with pytest.raises(Conflict) as refused:
        await start(widening)
    assert refused.value.code == code


async def test_a_ramp_goes_up_to_one_of_the_policys_steps(widening: Stage) -> None:
    with pytest.raises(InvalidInput, match="one of the policy's steps: 5 %, 25 %, 50 %, 100 %"):
        await start(widening, to=0.3)


async def test_a_ramp_starts_from_what_the_person_looked_at(widening: Stage) -> None:
    with pytest.raises(RevisionConflict):
        await start(widening, revision=99)


async def test_different_actors_are_counted_once_on_either_side_of_the_exposure(widening: Stage) -> None:
    await widening.enter("read", Phase.ENFORCED, exposure=0.5)
    for actor in [f"actor-{number}" for number in range(40)] * 2:
        await widening.decide(actor=actor)
    inside = sum(widening.services.plane.view.share(f"actor-{number}") < 0.5 for number in range(40))
    ratio = widening.services.rollouts.one("read")["sample_ratio"]
    assert (ratio["n"], ratio["exposed"], ratio["is_broken"]) == (40, inside, False)


async def test_where_everybody_is_exposed_nobody_is_counted(widening: Stage) -> None:
    await widening.enter("read", Phase.ENFORCED)
    await widening.decide()
    assert widening.services.rollouts.one("read")["sample_ratio"] is None
