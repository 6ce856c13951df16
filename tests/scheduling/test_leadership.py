"""Does exactly one instance act for all?"""

import pytest

from app.scheduling.leadership import LEASE_S, Leadership
from tests.services.plane import Stage
from tests.services.test_records import move_away


def candidate(stage: Stage, name: str) -> Leadership:
    return Leadership(stage.ledger, name, now=stage.clock.now)


async def test_of_two_instances_the_first_leads(any_stage: Stage) -> None:
    one, other = candidate(any_stage, "one"), candidate(any_stage, "other")
    for leader in (one, other):
        await leader.hold()
    assert (one.leads, other.leads) == (True, False)


async def test_who_holds_on_leads_on(any_stage: Stage) -> None:
    one, other = candidate(any_stage, "one"), candidate(any_stage, "other")
    for _ in range(10):
        await one.hold()
        await other.hold()
        any_stage.clock.passes(seconds=LEASE_S - 1)
        assert (one.leads, other.leads) == (True, False)


async def test_who_does_not_renew_does_not_lead_and_another_takes_over(any_stage: Stage) -> None:
    one, other = candidate(any_stage, "one"), candidate(any_stage, "other")
    await one.hold()
    any_stage.clock.passes(seconds=LEASE_S)
    assert not one.leads
    await other.hold()
    await one.hold()
    assert (one.leads, other.leads) == (False, True)


async def test_who_lets_go_is_followed_at_once(stage: Stage) -> None:
    one, other = candidate(stage, "one"), candidate(stage, "other")
    await one.hold()
    await one.let_go()
    await other.hold()
    assert (one.leads, other.leads) == (False, True)


async def test_letting_go_of_nothing_is_nothing(stage: Stage) -> None:
    await candidate(stage, "one").let_go()


async def test_a_database_that_is_away_costs_the_leadership_and_not_the_server(stage: Stage) -> None:
    one = candidate(stage, "one")
    await one.hold()
    back = move_away(stage)
    stage.clock.passes(seconds=LEASE_S)
    await one.hold()
    assert not one.leads
    await one.let_go()
    back()


@pytest.mark.parametrize(("passes_s", "again"), [(0, False), (599, False), (600, True)])
async def test_a_run_is_one_instances_in_each_slot(stage: Stage, passes_s: float, *, again: bool) -> None:
    one, other = candidate(stage, "one"), candidate(stage, "other")
    assert await one.claims("compact", every_s=600)
    stage.clock.passes(seconds=passes_s)
    assert await other.claims("compact", every_s=600) is again
