"""Which reviews wait too long, and how long did people take?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.store import tables as t
from app.store.database import Database
from app.store.reviews import Backlog
from tests.services.plane import Stage, opened


@pytest.fixture
async def any_queue(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """One drawn review and one binding one."""
    async with opened(database, tmp_path) as stage:
        await stage.enter("read", Phase.ENFORCED)
        await stage.enter("write", Phase.ADVISORY)
        await stage.decide("read")
        await stage.decide("write", legacy="require_attestation")
        yield stage


def backlogs(stage: Stage) -> dict[str, Backlog]:
    return stage.services.reviews.backlogs()


async def test_what_has_just_begun_to_wait_is_no_backlog(any_queue: Stage) -> None:
    assert backlogs(any_queue) == {}


async def test_a_binding_review_is_late_beyond_half_of_its_time(any_queue: Stage) -> None:
    began_us = to_us(any_queue.clock.now())
    any_queue.clock.passes(seconds=450)
    assert backlogs(any_queue) == {}
    any_queue.clock.passes(seconds=1)
    assert backlogs(any_queue) == {"write": Backlog(open=1, late=1, oldest_us=began_us)}


async def test_a_drawn_review_is_late_after_a_day(any_queue: Stage) -> None:
    any_queue.clock.passes(hours=24)
    await any_queue.services.guard.expire_reviews()
    assert backlogs(any_queue) == {}
    any_queue.clock.passes(seconds=1)
    await any_queue.looks()
    await any_queue.decide("read", actor="bob")
    (backlog,) = backlogs(any_queue).values()
    assert (backlog.open, backlog.late) == (2, 1)


async def test_what_was_judged_waits_no_longer(any_queue: Stage) -> None:
    any_queue.clock.passes(minutes=14)
    await any_queue.judge_all("deny")
    any_queue.clock.passes(days=2)
    assert backlogs(any_queue) == {}


async def test_a_verdict_keeps_when_its_judge_had_taken_it_up(any_queue: Stage) -> None:
    for row in any_queue.queue():
        await any_queue.services.reviews.claim(row["id"], any_queue.principal("reviewer"))
    claimed_us = to_us(any_queue.clock.now())
    any_queue.clock.passes(seconds=40)
    await any_queue.judge_all("allow")
    assert taken_up(any_queue) == [claimed_us, claimed_us]


async def test_nobody_is_timed_by_the_claim_of_another(any_queue: Stage) -> None:
    for row in any_queue.queue():
        await any_queue.services.reviews.claim(row["id"], any_queue.principal("reviewer"))
    any_queue.clock.passes(minutes=11)
    await any_queue.judge_all("allow", who="another_reviewer")
    assert taken_up(any_queue) == [None, None]


def taken_up(stage: Stage) -> list[int | None]:
    with stage.database.read() as connection:
        return list(connection.execute(select(t.verdicts.c.claimed_us)).scalars())
