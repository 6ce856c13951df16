"""What may a candidate do beside the active version, and what is known of it then?"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.advisory import Advisory
from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.phase import Phase
from app.domain.rollout import Comparison
from app.domain.situation import Situation
from app.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)
from app.services.succession import Act, Wish
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.chain import verify
from app.store.database import Database
from app.store.retention import remove_old
from app.store.rollouts import load_states
from app.store.transaction import CounterKey, Transaction
from tests.services.plane import (
    ROLLOUTS,
    FakeModel,
    Stage,
    opened,
)
from tests.services.test_phases import answer

# Reviews of everything, and gates that ask for no days.
REVIEWED = ROLLOUTS.replace("review_rate: 0", "review_rate: 1")


@dataclass
class Other(FakeModel):
    """A model that says one thing whatever it is asked, or what all say."""

    version_id: str = "fake-2"
    says: str | None = None

    async def advise(self, situation: Situation, **how: Any) -> Advisory:
        told = situation if self.says is None else replace(situation, details=self.says)
        return await super().advise(told, **how)


@pytest.fixture
def other() -> Other:
    return Other()


@pytest.fixture
async def two(sqlite_database: Database, tmp_path: Path, other: Other) -> AsyncIterator[Stage]:
    """A server that knows two versions, `fake-1` active."""
    async with opened(sqlite_database, tmp_path, rollouts=REVIEWED, others=[other]) as server:
        yield server


async def turn(
    stage: Stage, act: Act, version: str | None = None, *, name: str = "read", who: str = "admin", **more: Any
) -> dict[str, Any]:
    wish = Wish(act, "because", version, **more)
    return await stage.services.succession.change(name, wish, by=stage.principal(who))


async def candidate(stage: Stage, *, name: str = "read", **more: Any) -> None:
    await turn(stage, Act.CANDIDATE, "fake-2", name=name, **more)


def of_candidate(stage: Stage, name: str = "read") -> Evidence:
    with stage.database.read() as connection:
        return stage.services.gates.evidence(connection, load_states(connection)[name], version="fake-2")


def pairs(stage: Stage, kind: str, name: str = "read") -> dict[str, int]:
    [found] = [each for each in stage.services.experiments.all() if each["rollout"] == name]
    return {right: n for right, n in found["paired"][kind].items() if n}


async def compared(stage: Stage, n: int, *, name: str = "read", **said: Any) -> list[dict[str, Any]]:
    """Decisions that both versions have looked at."""
    before = of_candidate(stage, name).observed
    made = []
    for number in range(n):
        made.append(await stage.decide(name, actor=f"actor-{number}", **said))
        await stage.until(lambda: of_candidate(stage, name).observed == before + len(made))
    return made


async def with_proof(stage: Stage, name: str = "read") -> None:
    """Pairs and blind verdicts enough for a candidate's gate."""
    state, minute = stage.state(name), stage.services.now_us() // 60_000_000

    def work(tx: Transaction) -> None:
        for label in ("agree:both", "verdict:both:agreement:0"):
            tx.count(CounterKey(name, "fake-2", state.epoch, minute, Metric.PAIRED.value, label), 200)

    await stage.ledger.run(work)


async def investigated(stage: Stage, name: str = "write") -> None:
    """The active version of a rollout comes under an open investigation."""
    await stage.enter(name, Phase.ADVISORY)
    await stage.services.levers.roll_back(name, reason="it went wrong", by=stage.principal("operator"))


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_candidate_never_changes_an_answer(two: Stage, other: Other, phase: Phase) -> None:
    other.says = "deny"
    await two.enter("read", phase)
    before = [answer(await two.decide(legacy=says)) for says in ("allow", "deny", "require_attestation")]
    await candidate(two)
    after = [answer(await two.decide(legacy=says)) for says in ("allow", "deny", "require_attestation")]
    assert after == before
    await two.until(lambda: of_candidate(two).observed == 3)
    assert two.rows(t.candidate_advisories) == 3


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.ENFORCED])
async def test_a_candidate_that_hangs_delays_nobody(two: Stage, other: Other, phase: Phase) -> None:
    await two.enter("read", phase)
    await candidate(two)
    other.thinks()
    await two.decide()
    await other.is_thinking()
    for _ in range(5):
        await two.decide()
    await two.observed(n=6)
    assert of_candidate(two).observed == 0
    other.answers_now()
    await two.until(lambda: of_candidate(two).observed == 6)


async def test_what_comes_in_while_a_candidate_hangs_is_bounded(two: Stage, other: Other) -> None:
    await candidate(two)
    other.thinks()
    for _ in range(70):
        await two.decide()
    await two.observed(n=70)
    other.answers_now()
    await two.until(lambda: of_candidate(two).observed == 65)
    assert len(other.asked) == 65


async def test_a_candidate_that_is_not_ready_is_not_asked(two: Stage, other: Other) -> None:
    other.is_ready = False
    await candidate(two)
    await two.decide()
    await two.observed(n=1)
    assert other.asked == []


async def test_a_new_candidate_changes_neither_phase_nor_epoch(two: Stage) -> None:
    before = await two.enter("read", Phase.ADVISORY)
    await candidate(two)
    after = two.state("read")
    assert (after.phase, after.epoch, after.version) == (before.phase, before.epoch, before.version)
    assert (after.candidate, after.candidate_mode, after.candidate_since) == (
        "fake-2",
        Comparison.BOTH,
        two.clock.now(),
    )


async def test_the_evidence_of_a_candidate_is_its_own(two: Stage, other: Other) -> None:
    other.says = "deny"
    await candidate(two)
    await compared(two, 4)
    assert two.evidence("read").agreed == 4
    assert (of_candidate(two).agreed, of_candidate(two).compared) == (0, 4)
    assert pairs(two, "agreement") == {"active": 4}


async def test_a_verdict_says_which_of_the_two_was_right(two: Stage, other: Other) -> None:
    other.says = "deny"
    await two.enter("read", Phase.ADVISORY)
    await candidate(two)
    await compared(two, 12)
    blind = sum(review["mode"] == "blind" for review in two.queue())
    await two.judge_all("deny")
    assert 0 < blind < 12
    assert pairs(two, "verdicts") == {"candidate": blind}
    assert two.evidence("read").n(Metric.OVERRIDDEN) == 12
    assert (of_candidate(two).n(Metric.REVIEWED), of_candidate(two).n(Metric.OVERRIDDEN)) == (12, 0)


async def test_a_verdict_that_was_faster_than_the_candidate_counts_for_it_too(
    two: Stage, other: Other
) -> None:
    await candidate(two)
    other.thinks()
    for _ in range(6):
        await two.decide()
    await two.until(lambda: len(two.queue()) == 6)
    blind = sum(review["mode"] == "blind" for review in two.queue())
    await two.judge_all("allow")
    other.answers_now()
    await two.until(lambda: of_candidate(two).n(Metric.REVIEWED) == 6)
    assert pairs(two, "verdicts") == ({"both": blind} if blind else {})


async def test_an_undone_verdict_takes_back_what_it_said_of_the_candidate(two: Stage) -> None:
    await candidate(two)
    await compared(two, 8)
    await two.judge_all("deny")
    assert of_candidate(two).wrong_allows == 8
    for review in two.queue("judged"):
        await two.services.reviews.undo(review["id"], two.principal("reviewer"))
    assert of_candidate(two).n(Metric.REVIEWED) == of_candidate(two).wrong_allows == 0
    assert pairs(two, "verdicts") == {}


async def test_a_wrong_allow_of_the_candidate_alone_rolls_nothing_back(two: Stage, other: Other) -> None:
    await two.enter("deploy", Phase.ADVISORY)
    await candidate(two, name="deploy")
    other.says = "allow"
    [wrong] = await compared(two, 1, name="deploy", model="deny")
    told = await two.services.reviews.report(wrong["id"], Verdict(Decision.DENY), two.principal("operator"))
    assert told["rollback"] is None
    assert two.state("deploy").phase is Phase.ADVISORY
    assert (of_candidate(two, "deploy").wrong_allows, two.evidence("deploy").wrong_allows) == (1, 0)
    gate = two.services.experiments.gate("deploy")
    assert gate["outcome"] == "fail"


async def test_a_wrong_allow_from_its_time_as_candidate_rolls_the_active_version_back(
    two: Stage, other: Other
) -> None:
    await candidate(two, name="deploy")
    other.says = "allow"
    [wrong] = await compared(two, 1, name="deploy", model="deny")
    await turn(two, Act.ACTIVATE, name="deploy")
    await two.enter("deploy", Phase.ADVISORY)
    told = await two.services.reviews.report(wrong["id"], Verdict(Decision.DENY), two.principal("operator"))
    assert told["rollback"]["to"]["phase"] == two.state("deploy").phase == Phase.SHADOW
    assert "fake-2 said allow" in told["rollback"]["reason"]


async def test_the_story_of_a_decision_tells_what_the_candidate_said_but_for_a_blind_reviewer(
    two: Stage, other: Other
) -> None:
    assert (await two.story((await two.decide())["id"]))["candidate"] is None
    other.says = "deny"
    await candidate(two)
    made = await compared(two, 8)
    blind = {review["decision_id"]: review["mode"] == "blind" for review in two.queue()}
    for document in made:
        story = await two.story(document["id"])
        assert story["candidate"].keys() == story["advisory"].keys()
        assert (story["candidate"]["version"], story["candidate"]["decision"]) == ("fake-2", "deny")
        hidden = (await two.story(document["id"], who="reviewer"))["candidate"] is None
        assert hidden == blind[document["id"]]
    assert set(blind.values()) == {True, False}


async def test_a_version_that_is_not_known_here_yet_proves_nothing_by_agreement(two: Stage) -> None:
    with two.database.read() as connection:
        state = load_states(connection)["read"]
        assert two.services.gates.evidence(connection, state, version="elsewhere").independent is False
        assert two.services.gates.evidence(connection, state).independent is True


async def test_split_actors_see_one_version_each_and_stay_with_it(two: Stage) -> None:
    await candidate(two, mode=Comparison.SPLIT, share=0.5)
    for _ in range(2):
        for number in range(30):
            await two.decide(actor=f"actor-{number}")
    await two.until(lambda: of_candidate(two).observed + two.evidence("read").observed == 60)
    with two.database.read() as connection:
        seen = {
            table: set(
                connection.execute(
                    select(t.situations.c.actor_id).where(t.situations.c.decision_id == table.c.decision_id)
                ).scalars()
            )
            for table in (t.advisories, t.candidate_advisories)
        }
    assert not seen[t.advisories] & seen[t.candidate_advisories]
    assert min(map(len, seen.values())) >= 5
    assert two.evidence("read").n(Metric.OBSERVATION) == two.rows(t.advisories)


async def test_what_a_candidate_saw_alone_is_judged_as_its_own(two: Stage) -> None:
    await candidate(two, mode=Comparison.SPLIT, share=0.999)
    for number in range(6):
        await two.decide(actor=f"actor-{number}")
    await two.until(lambda: len(two.queue()) == 6)
    await two.judge_all("deny")
    assert of_candidate(two).n(Metric.OVERRIDDEN) == 6
    assert two.evidence("read").n(Metric.REVIEWED) == 0


async def test_a_candidates_soak_is_counted_beside_the_active_versions(two: Stage, other: Other) -> None:
    await candidate(two)
    await two.looks(times=3, every_s=10)
    assert of_candidate(two).n(Metric.SERVED_S) == two.evidence("read").n(Metric.SERVED_S) == 30
    other.is_ready = False
    await two.looks(every_s=10)
    assert (of_candidate(two).n(Metric.SERVED_S), two.evidence("read").n(Metric.SERVED_S)) == (30, 40)


async def test_what_a_candidate_said_lies_in_the_chain_and_leaves_by_retention(any_stage: Stage) -> None:
    key = await any_stage.decide()
    row = {
        "decision_id": key["id"],
        "created_us": 1,
        "rollout": "read",
        "epoch": 1,
        "version": "fake-2",
        "outcome": "ok",
        "latency_ms": 1.0,
        "started": True,
        "cached": False,
    }
    await any_stage.ledger.run(lambda tx: tx.insert(t.candidate_advisories, row))
    await any_stage.observed(n=1)
    with any_stage.database.read() as connection:
        assert verify(connection).ok
    now_us = any_stage.services.now_us() + 1
    await any_stage.ledger.run(lambda tx: remove_old(tx, older_than_us=now_us, now_us=now_us))
    assert any_stage.rows(t.candidate_advisories) == 0
    with any_stage.database.read() as connection:
        assert verify(connection).ok


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"mode": Comparison.SPLIT}, "share"),
        ({"mode": Comparison.SPLIT, "share": 1.0}, "share"),
        ({"mode": Comparison.SPLIT, "share": float("nan")}, "share"),
        ({"share": 0.5}, "share"),
    ],
)
async def test_a_share_belongs_to_a_split(two: Stage, more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await candidate(two, **more)
    assert [name for name, _ in refusal.value.fields] == [field]


async def test_there_is_one_candidate_at_a_time_and_it_can_be_withdrawn(two: Stage) -> None:
    await candidate(two)
    with pytest.raises(Conflict, match="withdraw it") as refusal:
        await candidate(two)
    assert refusal.value.code == "candidate-exists"
    await turn(two, Act.WITHDRAW)
    state = two.state("read")
    assert (state.candidate, state.candidate_mode, state.candidate_since) == (None, None, None)
    with pytest.raises(Conflict, match="no candidate"):
        await turn(two, Act.WITHDRAW)
    with pytest.raises(Conflict, match="no candidate"):
        two.services.experiments.gate("read")


@pytest.mark.parametrize("act", [Act.CANDIDATE, Act.ACTIVATE])
async def test_only_what_is_registered_and_not_active_comes_into_question(two: Stage, act: Act) -> None:
    with pytest.raises(NotFound, match="fake-9"):
        await turn(two, act, "fake-9")
    with pytest.raises(Conflict, match="runs on"):
        await turn(two, act, "fake-1")
    with pytest.raises(InvalidInput, match="version"):
        await turn(two, act)
