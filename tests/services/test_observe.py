"""What is looked at in the background, and what is left out without harm?"""

from pathlib import Path

import pytest

from app.domain.phase import Phase
from app.services.observe import Observer
from app.store import tables as t
from app.store.database import Database
from app.store.ledger import LedgerState
from tests.services.plane import ROLLOUTS, Stage, opened
from tests.services.test_records import move_away

SEATS = 128


def outcomes(stage: Stage, name: str = "read") -> dict[str, int]:
    return {label: n for (metric, label), n in stage.evidence(name).totals.items() if metric == "observation"}


async def test_what_is_not_sampled_is_not_observed_and_no_error(
    sqlite_database: Database, tmp_path: Path
) -> None:
    rare = ROLLOUTS.replace("risk: medium", "risk: medium\n    observe_rate: 0.5")
    async with opened(sqlite_database, tmp_path, rollouts=rare) as stage:
        for number in range(40):
            await stage.decide("write", actor=f"actor-{number}")
        await stage.until(lambda: sum(outcomes(stage, "write").values()) == 40)
        seen = outcomes(stage, "write")
        assert 0 < seen["ok"] < 40
        assert set(seen) == {"ok", "not_observed"}
        assert stage.evidence("write").errors == 0
        assert len(stage.model.asked) == seen["ok"]


async def test_what_is_shed_is_not_observed_and_no_error(stage: Stage) -> None:
    stage.model.thinks()
    for number in range(SEATS + 10):
        await stage.decide(actor=f"actor-{number}")
    assert stage.services.observer.queued == SEATS
    assert outcomes(stage)["not_observed"] >= 5
    stage.model.answers_now()
    await stage.until(lambda: sum(outcomes(stage).values()) == SEATS + 10)
    assert stage.evidence("read").errors == 0


async def test_without_a_model_nothing_is_observed_and_nothing_is_an_error(stage: Stage) -> None:
    stage.model.is_ready = False
    await stage.decide()
    assert outcomes(stage) == {"not_observed": 1}
    assert stage.model.asked == []


@pytest.mark.parametrize(
    ("failure", "error"), [("timeout", True), ("malformed", True), ("unavailable", True), ("unsure", False)]
)
async def test_errors_are_what_went_wrong_in_work_that_was_started(
    stage: Stage, failure: str, *, error: bool
) -> None:
    await stage.decide(model=failure)
    await stage.observed(n=1)
    assert stage.evidence("read").errors == error


@pytest.mark.parametrize("failure", ["overloaded", "oversize"])
async def test_what_was_never_started_is_not_observed(stage: Stage, failure: str) -> None:
    await stage.decide(model=failure)
    await stage.until(lambda: outcomes(stage))
    assert outcomes(stage) == {"not_observed": 1}


async def test_advisory_is_looked_at_before_shadow(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    stage.model.thinks()
    for number in range(4):
        await stage.decide("read", actor=f"shadow-{number}")
    await stage.model.is_thinking()
    await stage.decide("write", actor="advised")
    stage.model.answers_now()
    await stage.until(lambda: len(stage.model.asked) == 5 and stage.rows(t.advisories) == 5)
    order = [situation.actor_id for situation, *_ in stage.model.asked]
    assert order.index("advised") == 2  # behind the two that were under way


def test_the_share_that_is_looked_at_follows_what_the_worker_gets_done() -> None:
    class Queue(Observer):
        length = SEATS

        def __init__(self) -> None:
            self._rate = 1.0

        @property
        def queued(self) -> int:
            return self.length

    observer = Queue()
    for _ in range(100):
        observer.adapt()
    assert observer.rate == pytest.approx(0.001)
    observer.length = 0
    for _ in range(100):
        observer.adapt()
    assert observer.rate == 1.0


async def test_an_observation_is_not_lost_while_the_database_is_away(stage: Stage) -> None:
    stage.model.thinks()
    await stage.decide("write")
    await stage.model.is_thinking()
    back = move_away(stage)
    stage.model.answers_now()
    await stage.ledger.written_in(LedgerState.JOURNALING)
    back()
    await stage.until_recovered()
    assert stage.rows(t.advisories) == 1


async def test_one_observation_that_fails_does_not_end_the_watching(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    advise = stage.model.advise

    async def breaks(*_: object, **__: object) -> None:
        monkeypatch.setattr(stage.model, "advise", advise)
        raise RuntimeError("a bug")

    monkeypatch.setattr(stage.model, "advise", breaks)
    await stage.decide(actor="first")
    await stage.decide(actor="second")
    await stage.observed(n=1)
    assert outcomes(stage) == {"ok": 1}
