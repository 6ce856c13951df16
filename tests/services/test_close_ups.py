"""Does a rollout's close-up show what was counted, and does a prospect come true?"""

import itertools
from pathlib import Path

import pytest

from app.domain.counters import LAST_BUCKET, latency_bucket
from app.domain.phase import Phase
from app.domain.rollout import Comparison
from app.services.close_ups import histogram
from app.services.succession import Act, Wish
from app.store.database import Database
from tests.services.plane import FakeModel, Stage, opened


@pytest.mark.parametrize("latencies", [[12.0], [3.0, 40.0, 41.0, 4_900.0], [0.0, 200_000.0]])
def test_a_histogram_holds_every_latency_once_and_leaves_no_gap(latencies: list[float]) -> None:
    counted: dict[str, int] = {}
    for latency in latencies:
        label = str(latency_bucket(latency))
        counted[label] = counted.get(label, 0) + 1
    bars = histogram(counted)
    assert sum(bar["n"] for bar in bars) == len(latencies)
    timely = [bar for bar in bars if bar["to_ms"] is not None]
    assert all(lower["to_ms"] == upper["over_ms"] for lower, upper in itertools.pairwise(timely))


def test_what_came_too_late_is_a_bar_of_its_own() -> None:
    *_, last = histogram({"0": 3, str(LAST_BUCKET): 2})
    assert (last["to_ms"], last["n"]) == (None, 2)


async def test_a_course_goes_on_over_epochs_and_counts_each_answer_once(any_stage: Stage) -> None:
    for number in range(8):
        await any_stage.decide(actor=f"actor-{number}", model="timeout" if number < 2 else "allow")
    await any_stage.observed(n=8)
    before = any_stage.state("read").epoch
    await any_stage.enter("read", Phase.ADVISORY)
    for number in range(5):
        await any_stage.decide(actor=f"actor-{number}")
    await any_stage.observed(n=5)
    any_stage.clock.passes(hours=3)
    course = any_stage.services.close_ups.of("read", any_stage.principal("operator"))["course"]["error"]
    assert [(point["epoch"], point["n"], point["bad"]) for point in course] == [
        (before, 8, 2),
        (before + 1, 5, 0),
    ]
    assert all(point["lower"] <= point["rate"] <= point["upper"] for point in course)


async def test_a_candidate_is_no_part_of_its_rollouts_course(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, others=[FakeModel(version_id="fake-2")]) as stage:
        wish = Wish(Act.CANDIDATE, "a new prompt", version="fake-2", mode=Comparison.BOTH)
        await stage.services.succession.change("read", wish, by=stage.principal("operator"))
        for number in range(6):
            await stage.decide(actor=f"actor-{number}")
        await stage.observed(n=6)
        assert [
            point["n"]
            for point in stage.services.close_ups.of("read", stage.principal("operator"))["course"]["error"]
        ] == [6]


async def test_a_rollback_leads_where_its_prospect_said(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    for phase in (Phase.ADVISORY, Phase.SHADOW):
        said = stage.services.close_ups.of("read", stage.principal("operator"))["prospects"]["rollback"]
        await stage.services.levers.roll_back("read", reason="a drill", by=stage.principal("operator"))
        assert said.startswith(f"read goes to {phase} at once")
        assert stage.state("read").phase is phase
    assert stage.services.close_ups.of("read", stage.principal("operator"))["prospects"]["rollback"] is None
