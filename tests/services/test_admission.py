"""Can a caller decide what the evidence says by asking the same again, or by asking very much?"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.admission import Claim
from app.domain.advisory import Advisory, Outcome
from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.situation import Situation, parse_situation
from app.engines.model.wire import Priority
from app.services import decide
from app.services.records import Placed, Question
from app.services.succession import Act, Wish
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.database import Database
from app.store.decisions import recount_pairs
from app.store.observed import windows
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened, situation
from tests.services.test_records import move_away

CAPPED = ROLLOUTS.replace("actor_share: 1, ", "")
SAME = {"team_context": "the same"}
# Of what actors bring, a share: what each of them meets when one of them does nothing but harm.
TOLERANT = CAPPED.replace(
    "risk: medium", "risk: medium\n    guardrails: {error_limit: 0.10, fallback_limit: 0.10}"
)


@pytest.fixture
async def capped(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    async with opened(sqlite_database, tmp_path, rollouts=CAPPED) as stage:
        yield stage


def outcomes(stage: Stage, name: str = "write") -> dict[str, int]:
    return stage.evidence(name).of(Metric.OBSERVATION)


def counted(stage: Stage) -> list[bool]:
    with stage.database.read() as connection:
        query = select(t.advisories.c.counted).order_by(t.advisories.c.decision_id)
        return list(connection.execute(query).scalars())


def settled(claim: Claim) -> asyncio.Future[Claim]:
    result: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
    result.set_result(claim)
    return result


async def crowd(stage: Stage, n: int, *, actors: int, **said: Any) -> None:
    """Many questions at once, in waves, by so many actors in turn."""
    for start in range(0, n, 100):
        numbers = range(start, min(start + 100, n))
        await asyncio.gather(
            *(stage.decide("write", actor=f"actor-{number % actors}", **said) for number in numbers)
        )


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_repeated_question_is_answered_and_recorded_and_no_evidence(
    stage: Stage, phase: Phase
) -> None:
    await stage.enter("read", phase)
    for number in range(3):
        await stage.decide(actor=f"actor-{number}", **SAME)
        await stage.until(lambda n=number: len(counted(stage)) == n + 1)  # type: ignore[misc]
    assert outcomes(stage, "read") == {"ok": 1, "repeated": 2}
    evidence = stage.evidence("read")
    assert (evidence.observed, evidence.compared, evidence.n(Metric.LATENCY)) == (1, 1, 1)
    assert (evidence.n(Metric.DRAWN), stage.rows(t.reviews)) == (1, 1)
    assert counted(stage) == [True, False, False]
    assert len(stage.model.asked) == 3


async def test_the_next_window_hears_it_again(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    for _ in range(2):
        await stage.decide("write", **SAME)
        stage.clock.passes(days=1)
        await stage.services.guard.look()
        stage.services.plane.refresh()
    assert outcomes(stage) == {"ok": 2}


async def test_an_actor_that_asks_too_much_is_answered_but_no_evidence(capped: Stage) -> None:
    await capped.enter("write", Phase.ENFORCED)
    answers = [await capped.decide("write", model="deny") for _ in range(5)]
    assert {answer["decision"] for answer in answers} == {"deny"}
    assert outcomes(capped) == {"ok": 3, "capped": 2}
    assert (capped.evidence("write").should_have_answered, capped.evidence("write").actors) == (3, 1)


async def test_who_is_not_exposed_takes_nothing_from_the_window(capped: Stage) -> None:
    await capped.enter("write", Phase.ENFORCED, exposure=0.0)
    await crowd(capped, 5, actors=1)
    await capped.until(lambda: len(counted(capped)) == 5)
    assert not any(counted(capped))
    assert (capped.rows(t.observed_situations), outcomes(capped)) == (0, {})


@pytest.mark.parametrize("failure", ["circuit_open", "malformed"])
async def test_fallbacks_of_one_question_are_one_fallback(stage: Stage, failure: str) -> None:
    await stage.enter("write", Phase.ENFORCED)
    stage.model.circuit_open = failure == "circuit_open"
    for _ in range(4):
        assert (await stage.decide("write", model=failure, **SAME))["fallback_reason"] == failure
    evidence = stage.evidence("write")
    assert (evidence.fell_back, evidence.should_have_answered) == (1, 1)
    assert evidence.n(Metric.DECISION) == 4


async def test_a_wrong_allow_is_never_a_repeated_one(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    answers = [await stage.decide("read", model="allow", **SAME) for _ in range(3)]
    for answer in answers[1:]:
        await stage.services.reviews.report(answer["id"], Verdict(Decision.DENY), stage.principal("operator"))
    assert stage.evidence("read").wrong_allows == 2


async def test_the_ledger_counts_the_pairs_that_the_counters_do(capped: Stage) -> None:
    await capped.enter("deploy", Phase.ADVISORY)
    for number in range(6):
        await capped.decide("deploy", actor=f"actor-{number % 2}", **(SAME if number > 3 else {}))
        await capped.until(lambda n=number: len(counted(capped)) == n + 1)  # type: ignore[misc]
    evidence = capped.evidence("deploy")
    with capped.database.read() as connection:
        ledger = recount_pairs(connection, "deploy", evidence.epoch, version=evidence.version)
    assert ledger == evidence.of(Metric.PAIR) == {"allow>allow": 5}


async def test_a_candidate_has_windows_of_its_own(sqlite_database: Database, tmp_path: Path) -> None:
    async with opened(sqlite_database, tmp_path, others=[FakeModel("fake-2")]) as stage:
        await stage.decide("write", **SAME)
        await stage.observed(n=1, rollout="write")
        wish = Wish(Act.CANDIDATE, "compare", "fake-2")
        await stage.services.succession.change("write", wish, by=stage.principal("operator"))
        for number in range(3):
            await stage.decide("write", **SAME)
            await stage.until(lambda n=number: stage.rows(t.candidate_advisories) == n + 1)  # type: ignore[misc]
        [found] = stage.services.experiments.all()
        assert (found["evidence"]["observed"], found["paired"]["agreement"]["both"]) == (1, 1)
        assert outcomes(stage) == {"ok": 1, "repeated": 3}


@pytest.mark.parametrize("phase", list(Phase))
async def test_while_the_database_is_away_nothing_is_admitted_and_nobody_notices(
    stage: Stage, phase: Phase
) -> None:
    await stage.enter("write", phase)
    back = move_away(stage)
    assert (await stage.decide("write", legacy="deny"))["decision"] == "deny"
    await stage.until(lambda: stage.model.asked)
    back()
    await stage.until_recovered()
    assert stage.rows(t.observed_situations) == 0
    assert stage.evidence("write").observed == 0


async def test_a_claim_that_takes_too_long_costs_the_evidence_and_not_the_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enter("write", Phase.ENFORCED)
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(stage.ledger, "run", lambda _: never)
    past_its_deadline = Question(
        parse_situation(situation("write", model="deny")),
        stage.principal("caller"),
        None,
        monotonic() - 10,
        stage.services.now_us(),
    )
    document = await stage.services.decider.decide(past_its_deadline)
    assert (document["decision"], document["answered_by"]) == ("deny", "model")
    assert outcomes(stage) == {"unclaimed": 1}


async def test_what_becomes_of_a_late_claim_does_not_hang_on_how_long_the_model_took(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or time-outs alone would be counted where the database is slow, and roll a healthy rollout back."""
    await stage.enter("write", Phase.ENFORCED)
    late: asyncio.Future[list[Claim]] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(stage.ledger, "run", lambda _: late)
    monkeypatch.setattr(decide, "_CLAIM_S", 0.0)
    stage.model.thinks()
    asked = asyncio.create_task(stage.decide("write"))
    await stage.model.is_thinking()
    late.set_result([Claim.ADMITTED])
    stage.model.answers_now()
    await asked
    assert outcomes(stage) == {"unclaimed": 1}


async def test_what_is_known_of_windows_and_epochs_that_are_over_goes(any_stage: Stage) -> None:
    def numbers() -> set[tuple[int, int]]:
        with any_stage.database.read() as connection:
            return {(window.epoch, window.number) for window in windows(connection)}

    await any_stage.enter("write", Phase.ENFORCED)
    await any_stage.decide("write")
    tidy = any_stage.services.admissions.tidy
    epoch, today = any_stage.state("write").epoch, max(number for _, number in numbers())
    for days, left in ((0, {-1, today}), (1, {-1, today}), (2, {-1})):
        await tidy(any_stage.clock.now() + timedelta(days=days))
        assert numbers() == {(epoch, number) for number in left}
    await any_stage.enter("write", Phase.ADVISORY)
    await tidy(any_stage.clock.now())
    assert (numbers(), any_stage.rows(t.observed_by), any_stage.rows(t.observed_situations)) == (set(), 0, 0)


async def test_nobody_is_named_in_what_is_kept(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    await stage.decide("write", actor="alice")
    with stage.database.read() as connection:
        who = set(connection.execute(select(t.observed_by.c.who)).scalars())
    key = f"key:{stage.principal('caller').key_id}"
    assert {"all", "keys", key} < who
    assert not any("alice" in each for each in who)


def admit_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody asked who has been heard."""

    def admitted(_: Placed, **__: object) -> asyncio.Future[Claim]:
        return settled(Claim.ADMITTED)

    monkeypatch.setattr(stage.services.admissions, "claim", admitted)


REPLAYS = [
    pytest.param(1, SAME, id="one situation by one actor"),
    pytest.param(3, SAME, id="one situation by three actors"),
    pytest.param(1, {}, id="many situations of one actor"),
]


@pytest.mark.parametrize(("actors", "said"), REPLAYS)
@pytest.mark.parametrize("is_capped", [True, False], ids=["capped", "uncapped"])
async def test_a_caller_that_harms_does_not_roll_back_a_healthy_rollout(  # fixtures
    sqlite_database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    actors: int,
    said: dict[str, Any],
    *,
    is_capped: bool,
) -> None:
    """EVIDENCE 7: uncapped, replays roll back for certain."""
    async with opened(sqlite_database, tmp_path, rollouts=TOLERANT) as stage:
        await stage.enter("write", Phase.ENFORCED)
        if not is_capped:
            admit_all(stage, monkeypatch)
        for _ in range(4):
            await crowd(stage, 100, actors=40)
            await crowd(stage, 500, actors=actors, model="malformed", **said)
            await stage.looks()
        held = stage.state("write").phase is Phase.ENFORCED
        assert held is is_capped
        if is_capped:
            assert 0 < stage.evidence("write").errors <= 0.06 * stage.evidence("write").observed


async def test_a_sample_is_asked_again_and_counted_by_what_it_says(
    sqlite_database: Database, tmp_path: Path
) -> None:
    always = ROLLOUTS.replace("ask_twice_rate: 0", "ask_twice_rate: 1").replace(
        "risk: low", "risk: low\n    cache: true"
    )
    model = FakeModel(remembers=True)
    async with opened(sqlite_database, tmp_path, rollouts=always, model=model) as stage:
        await stage.decide("read", **SAME)
        await stage.enter("write", Phase.ENFORCED)
        await stage.decide("write")
        for name in ("read", "write"):
            await stage.until(lambda n=name: stage.evidence(n).asked_twice == (1, 0))  # type: ignore[misc]
        assert [priority for _, priority, _ in model.asked].count(Priority.REASONING) == 2
        asked = len(model.asked)
        document = await stage.decide("read", **SAME)
        await stage.until(lambda: stage.rows(t.advisories) == 3)
        assert (await stage.story(document["id"]))["advisory"]["cached"]
        assert len(model.asked) == asked, "what came from memory is not asked again"


async def test_a_model_that_contradicts_itself_is_found_out(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = ROLLOUTS.replace("ask_twice_rate: 0", "ask_twice_rate: 1")
    model = FakeModel()
    first = model.advise

    async def wavers(situation: Situation, *, priority: Priority, **more: Any) -> Advisory:
        said = await first(situation, priority=priority, **more)
        if priority is not Priority.REASONING:
            return said
        if situation.actor_id == "fails":
            return Advisory(said.version, Outcome.TIMEOUT, 5_000.0)
        return replace(said, decision=Decision.DENY)

    monkeypatch.setattr(model, "advise", wavers)
    async with opened(sqlite_database, tmp_path, rollouts=always, model=model) as stage:
        await stage.enter("write", Phase.ENFORCED)
        await stage.decide("write", actor="fails")
        await stage.decide("write")
        await stage.until(lambda: stage.evidence("write").asked_twice == (1, 1))
        assert len(model.asked) == 4
