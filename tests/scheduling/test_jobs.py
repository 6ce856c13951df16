"""What happens by the clock, and on which instance?"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.domain.phase import Phase
from app.errors import StoreUnavailable
from app.observability import exposition
from app.scheduling.jobs import Jobs, _counted
from app.scheduling.leadership import Leadership
from app.store import tables as t
from app.store.database import Database
from app.store.rollouts import read_plane
from tests.services.plane import ROLLOUTS, Stage, opened
from tests.services.test_approvals import approve
from tests.services.test_levers import with_evidence
from tests.services.test_records import move_away


def jobs(stage: Stage, name: str = "one", *, every_s: float = 3_600.0) -> Jobs:
    return Jobs(
        stage.services,
        Leadership(stage.ledger, name, now=stage.clock.now),
        snapshot_s=every_s,
        guardrail_s=every_s,
        retention_days=30,
        now=stage.clock.now,
    )


@asynccontextmanager
async def started(of: Jobs) -> AsyncIterator[None]:
    await of.start()
    try:
        yield
    finally:
        await of.stop()


async def run_now(of: Jobs, name: str) -> None:
    job = of._scheduler.get_job(name)
    assert job is not None
    await job.func()


def passes(stage: Stage) -> int:
    with stage.database.read() as connection:
        return read_plane(connection).guard_passes


async def test_the_leader_judges_once_before_the_first_answer_relies_on_it(stage: Stage) -> None:
    before = passes(stage)
    async with started(jobs(stage)):
        assert passes(stage) == before + 1


async def test_only_the_leader_judges(any_stage: Stage) -> None:
    before = passes(any_stage)
    async with started(jobs(any_stage, "one")), started(jobs(any_stage, "other")):
        assert passes(any_stage) == before + 1


async def test_guardrails_are_judged_again_and_again(stage: Stage) -> None:
    before = passes(stage)
    stage.clock.at = datetime.now(UTC)  # the scheduler goes by the real clock
    async with started(jobs(stage, every_s=0.02)):
        await stage.until(lambda: passes(stage) >= before + 4)


async def test_a_job_that_fails_says_so_and_does_not_end_the_schedule() -> None:
    async def away() -> None:
        raise StoreUnavailable("gone")

    async def broken() -> None:
        raise ZeroDivisionError

    for job in (away, broken):
        await _counted(f"drill_{job.__name__}", job)()
    text = exposition().decode()
    assert 'phasegate_jobs_total{job="drill_away",outcome="failed"} 1.0' in text
    assert 'phasegate_jobs_total{job="drill_broken",outcome="failed"} 1.0' in text


async def test_a_job_that_the_servers_end_cuts_short_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    scheduler = AsyncIOScheduler()
    scheduler.add_job(_counted("drill_endless", endless))
    scheduler.start()
    await begun.wait()
    scheduler.shutdown(wait=False)
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_plane_that_cannot_be_read_is_shown_to_grow_old(stage: Stage) -> None:
    back = move_away(stage)
    stage.clock.passes(seconds=42)
    with pytest.raises(StoreUnavailable):
        await jobs(stage)._poll()
    assert "phasegate_snapshot_age_seconds 42.0" in exposition().decode()
    back()


async def test_a_poll_brings_in_what_another_instance_changed(stage: Stage) -> None:
    with stage.database.write() as connection:
        connection.execute(t.plane.update().values(kill_switch=True, revision=t.plane.c.revision + 1))
        connection.commit()
    await jobs(stage)._poll()
    assert stage.services.plane.view.kill_switch


async def test_what_is_older_than_retention_goes_and_the_chain_still_verifies(any_stage: Stage) -> None:
    old = await any_stage.decide()
    any_stage.clock.passes(days=31)
    young = await any_stage.decide()
    await jobs(any_stage)._retain()
    with any_stage.database.read() as connection:
        assert [row.id for row in connection.execute(t.decisions.select())] == [young["id"]]
    assert old["id"] != young["id"]
    assert any_stage.services.administration.verify()["ok"]


async def test_compacted_counters_say_what_they_said_before(any_stage: Stage) -> None:
    for hours in range(4):
        await any_stage.decide("write", actor=f"actor-{hours}")
        any_stage.clock.passes(hours=1)
    await any_stage.observed(n=4, rollout="write")
    before, rows = any_stage.evidence("write").totals, any_stage.rows(t.evidence_counters)
    any_stage.clock.passes(days=3)
    await jobs(any_stage)._compact()
    assert any_stage.evidence("write").totals == before
    assert any_stage.rows(t.evidence_counters) < rows


async def test_overdue_reviews_expire_and_lapsed_oversight_holds_by_the_clock(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await stage.decide()
    stage.clock.passes(days=8)
    async with started(by_the_clock := jobs(stage)):
        await run_now(by_the_clock, "expire_reviews")
        await run_now(by_the_clock, "oversight")
    assert {row["status"] for row in stage.queue("closed")} == {"closed"}
    assert stage.state("read").held


async def test_the_leader_voids_what_was_approved_and_no_longer_holds(
    sqlite_database: Database, tmp_path: Path
) -> None:
    rollouts = ROLLOUTS.replace("{agreement_above: 0.5}", "{agreement_above: 0.5, approvals: 1}")
    async with opened(sqlite_database, tmp_path, rollouts=rollouts) as stage:
        await with_evidence(stage)
        await approve(stage, to=Phase.ADVISORY)
        n = stage.evidence("read").compared
        for number in range(n):
            await stage.decide(actor=f"late-{number}", model="deny")
        await stage.until(lambda: stage.evidence("read").compared == 2 * n)
        async with started(leader := jobs(stage)):
            await run_now(leader, "approvals")
        assert stage.services.rollouts.transitions("read", limit=1)[0]["kind"] == "approval_void"


async def test_only_the_leader_tells_webhooks_and_reminds_once_a_day(stage: Stage) -> None:
    by = stage.principal("operator")
    await stage.services.webhooks.add(url="http://127.0.0.1:9/closed", kinds=("review_backlog",), by=by)
    await stage.enter("read", Phase.ENFORCED)
    await stage.decide()
    await stage.until(lambda: stage.rows(t.reviews))
    stage.clock.passes(days=2)
    leader, other = jobs(stage, "one"), jobs(stage, "other")
    await leader._leadership.hold()
    for of in (other, leader, leader):
        await run_now(of, "remind")
    assert stage.rows(t.deliveries) == 1
    await run_now(other, "deliver")
    assert stage.services.webhooks.log(status=None, limit=9)[0]["attempts"] == 0
    await run_now(leader, "deliver")
    assert stage.services.webhooks.log(status=None, limit=9)[0]["attempts"] == 1
    await stage.services.webhooks.close()
