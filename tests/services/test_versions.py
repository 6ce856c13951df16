"""Who decides what a rollout runs on, and what may a candidate do meanwhile?"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from app.domain.advisory import Advisory
from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.phase import Phase
from app.domain.rollout import Comparison
from app.domain.situation import Situation
from app.engines.model.version import ModelVersion
from app.errors import (
    Conflict,
    Forbidden,
    GateNotMet,
    InvalidInput,
    NotFound,
    PolicyError,
    RevisionConflict,
)
from app.services.policies import settle_at_start
from app.services.succession import Act, Wish
from app.services.verdicts import Verdict
from app.services.versions import Versions, register_at_start
from app.store import tables as t
from app.store.chain import verify
from app.store.database import Database
from app.store.retention import remove_old
from app.store.rollouts import baselines, load_states
from app.store.transaction import CounterKey, Transaction, transaction
from app.store.versions import registered
from tests.services.plane import (
    ROLLOUTS,
    Clock,
    FakeModel,
    Several,
    Stage,
    opened,
    version_of,
)
from tests.services.test_freezes import freeze
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


# A candidate observes.


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


# A version is activated.


async def test_in_shadow_any_registered_version_is_activated_in_a_new_epoch(two: Stage) -> None:
    before = two.state("read")
    transition = await turn(two, Act.ACTIVATE, "fake-2", who="operator")
    after = two.state("read")
    assert (after.version, after.previous, after.epoch) == ("fake-2", "fake-1", before.epoch + 1)
    assert (transition["kind"], transition["from"]["version"], transition["to"]["version"]) == (
        "activate",
        "fake-1",
        "fake-2",
    )
    assert (await two.decide())["version"] == "fake-2"


@pytest.mark.parametrize("phase", [Phase.ADVISORY, Phase.ENFORCED])
async def test_above_shadow_nothing_is_activated_without_a_passing_gate(two: Stage, phase: Phase) -> None:
    await two.enter("read", phase)
    with pytest.raises(Conflict, match="only a candidate") as refusal:
        await turn(two, Act.ACTIVATE, "fake-2")
    assert refusal.value.code == "not-candidate"
    await candidate(two)
    await compared(two, 5)
    with pytest.raises(GateNotMet) as unmet:
        await turn(two, Act.ACTIVATE, "fake-2")
    assert unmet.value.gate == two.services.experiments.gate("read")
    assert (unmet.value.gate["to"], unmet.value.gate["outcome"]) == ("version", "insufficient")
    assert two.state("read").version == "fake-1"


@pytest.mark.parametrize("name", ["read", "deploy"])
async def test_a_candidate_that_is_no_worse_takes_over_at_the_first_exposure_step(
    two: Stage, name: str
) -> None:
    before = await two.enter(name, Phase.ADVISORY)
    await candidate(two, name=name)
    await with_proof(two, name)
    with pytest.raises(Forbidden, match="approver"):
        await turn(two, Act.ACTIVATE, name=name, who="operator")
    transition = await turn(two, Act.ACTIVATE, name=name, who="approver")
    after = two.state(name)
    assert transition["evidence"]["outcome"] == "pass"
    assert (after.version, after.previous, after.candidate) == ("fake-2", "fake-1", None)
    assert (after.phase, after.epoch) == (before.phase, before.epoch + 1)
    assert after.exposure == (0.5 if name == "read" else 1.0)


async def test_a_new_version_is_held_against_its_own_answers_from_before(two: Stage, other: Other) -> None:
    await two.enter("read", Phase.ADVISORY)
    other.says = "deny"
    await candidate(two)
    await compared(two, 3, legacy="deny")
    await two.judge_all("deny")
    await with_proof(two)
    await turn(two, Act.ACTIVATE)

    def base() -> dict[str, int]:
        with two.database.read() as connection:
            return baselines(connection)["read"]

    assert base() == {"deny": 3, "deny>deny": 3}
    await turn(two, Act.REVERT)
    assert base() == {"allow": 3, "deny>allow": 3}


async def test_high_risk_does_not_rest_on_the_candidates_counters_alone(two: Stage) -> None:
    await two.enter("deploy", Phase.ADVISORY)
    await candidate(two, name="deploy")
    await with_proof(two, "deploy")
    state, minute = two.state("deploy"), two.services.now_us() // 60_000_000
    forged = CounterKey("deploy", "fake-2", state.epoch, minute, Metric.PAIR.value, "allow>allow")
    await two.ledger.run(lambda tx: tx.count(forged))
    with pytest.raises(GateNotMet, match="the ledger"):
        await turn(two, Act.ACTIVATE, name="deploy")


@pytest.mark.parametrize("hindrance", ["held", "kill_switch", "freeze"])
async def test_nothing_is_activated_above_shadow_while(two: Stage, hindrance: str) -> None:
    await two.enter("read", Phase.ADVISORY)
    await candidate(two)
    await with_proof(two)
    operator = two.principal("operator")
    if hindrance == "held":
        await two.services.levers.hold("read", reason="wait", by=operator)
    elif hindrance == "freeze":
        await freeze(two)
    else:
        await two.services.levers.kill(engaged=True, reason="wait", by=operator)
    with pytest.raises(GateNotMet) as refusal:
        await turn(two, Act.ACTIVATE)
    open_ones = [one["name"] for one in refusal.value.gate["conditions"] if one["outcome"] != "pass"]
    assert open_ones == [hindrance]


async def test_a_version_under_an_open_investigation_is_activated_nowhere(two: Stage) -> None:
    await turn(two, Act.ACTIVATE, "fake-2")
    await investigated(two)
    with pytest.raises(Conflict, match="open investigation") as refusal:
        await turn(two, Act.ACTIVATE, "fake-1")
    assert refusal.value.code == "investigation"
    await two.services.levers.close_investigation(
        "write", cause="model", fix="retrained", by=two.principal("operator")
    )
    await turn(two, Act.ACTIVATE, "fake-1")


async def test_an_activation_on_an_older_revision_says_which_one_is_now(two: Stage) -> None:
    with pytest.raises(RevisionConflict):
        await turn(two, Act.ACTIVATE, "fake-2", expected_revision=7)


async def test_of_twenty_activations_at_once_exactly_one_wins(two: Stage) -> None:
    tries = [turn(two, Act.ACTIVATE, "fake-2", expected_revision=1) for _ in range(20)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, RevisionConflict) for outcome in outcomes) == 19
    assert two.rows(t.transitions) == 1


async def test_no_version_lifts_a_rollout_past_its_ceiling(two: Stage) -> None:
    await two.enter("admin", Phase.ADVISORY)
    await candidate(two, name="admin")
    await turn(two, Act.WITHDRAW, name="admin")
    await two.services.levers.roll_back("admin", reason="down", by=two.principal("operator"))
    await turn(two, Act.ACTIVATE, "fake-2", name="admin")
    state = two.state("admin")
    assert (state.phase, state.version) == (Phase.SHADOW, "fake-2")
    await two.enter("admin", Phase.ADVISORY)
    document = await two.decide("admin_action")
    assert (document["phase"], document["answered_by"]) == ("advisory", "legacy")


async def test_automation_never_activates(two: Stage) -> None:
    await two.enter("read", Phase.ADVISORY)
    await candidate(two)
    await with_proof(two)
    assert two.services.experiments.gate("read")["outcome"] == "pass"
    await two.looks(times=5, every_s=30)
    await two.services.guard.check_oversight()
    await two.services.registry.keep_ready()
    assert (two.state("read").version, two.state("read").candidate) == ("fake-1", "fake-2")


async def test_answers_of_the_former_version_that_were_under_way_do_not_count(two: Stage) -> None:
    await two.enter("read", Phase.ENFORCED)
    two.model.thinks()
    asked = asyncio.create_task(two.decide())
    await two.model.is_thinking()
    await two.services.levers.roll_back("read", reason="down", by=two.principal("operator"))
    await two.services.levers.roll_back("read", reason="down", by=two.principal("operator"))
    await turn(two, Act.ACTIVATE, "fake-2")
    two.model.answers_now()
    assert answer(await asked) == ("allow", "legacy", "stale_state")


# A version is gone back to.


@pytest.mark.parametrize("phase", list(Phase))
async def test_revert_returns_the_former_version_at_once(two: Stage, phase: Phase) -> None:
    await turn(two, Act.ACTIVATE, "fake-2")
    before = await two.enter("read", phase)
    started = time.monotonic()
    transition = await turn(two, Act.REVERT, who="operator")
    document = await two.decide()
    assert time.monotonic() - started < 1
    after = two.state("read")
    assert (document["version"], document["phase"]) == ("fake-1", phase)
    assert document["answered_by"] == ("model" if phase is Phase.ENFORCED else "legacy")
    assert (after.version, after.previous, after.epoch) == ("fake-1", "fake-2", before.epoch + 1)
    assert (after.phase, after.exposure) == (phase, before.exposure)
    assert (transition["kind"], transition["evidence"]) == ("revert", None)


async def test_without_a_previous_version_there_is_nothing_to_revert_to(two: Stage) -> None:
    with pytest.raises(Conflict, match="no previous version"):
        await turn(two, Act.REVERT)


async def test_a_previous_version_under_investigation_leads_to_shadow_instead(two: Stage) -> None:
    await turn(two, Act.ACTIVATE, "fake-2")
    await two.enter("read", Phase.ENFORCED)
    await investigated(two)
    transition = await turn(two, Act.REVERT)
    state = two.state("read")
    assert (state.phase, state.version) == (Phase.SHADOW, "fake-2")
    assert "fake-1 is under an open investigation" in transition["reason"]
    with pytest.raises(Conflict, match="in shadow already"):
        await turn(two, Act.REVERT)


async def test_a_rollback_that_came_on_top_of_another_leaves_no_investigation_open(two: Stage) -> None:
    await two.enter("read", Phase.ENFORCED)
    operator = two.principal("operator")
    for _ in range(2):
        await two.services.levers.roll_back("read", reason="down", by=operator)
    await two.services.levers.close_investigation("read", cause="model", fix="fixed", by=operator)
    await turn(two, Act.ACTIVATE, "fake-2")
    await turn(two, Act.REVERT)


# Versions are kept ready.


def fleet(stage: Stage) -> Several:
    models = stage.services.models
    assert isinstance(models, Several)
    return models


async def test_what_a_rollout_runs_on_goes_back_to_or_compares_with_is_kept_ready(two: Stage) -> None:
    await two.services.registry.keep_ready()
    assert fleet(two).wanted == [("fake-1",)]
    await candidate(two)
    await two.services.registry.keep_ready()
    assert fleet(two).wanted[1:] == [("fake-1", "fake-2")]
    await turn(two, Act.WITHDRAW)
    assert fleet(two).wanted[-1] == ("fake-1",)
    await turn(two, Act.ACTIVATE, "fake-2")
    assert set(fleet(two).wanted[-1]) == {"fake-1", "fake-2"}


async def test_what_another_instance_registered_is_learned_from_the_registry(
    two: Stage, tmp_path: Path
) -> None:
    await candidate(two)
    models = Several(two.model, [])
    known: dict[str, ModelVersion] = {"fake-1": version_of(two.model)}
    elsewhere = Versions(
        known, models, two.services.plane, two.ledger, policies_dir=tmp_path, now=two.clock.now
    )
    await elsewhere.keep_ready()
    assert models.declared == ["fake-2"]
    assert models.wanted == [("fake-1", "fake-2")]


# Versions are registered, and stay what they are.


def changed(model: FakeModel) -> ModelVersion:
    return version_of(replace(model, shows_legacy=True))


def start_with(database: Database, directory: Path, *versions: ModelVersion) -> dict[str, ModelVersion]:
    with transaction(database, "test", now_us=1) as tx:
        return register_at_start(
            tx, {version.id: version for version in versions}, policies_dir=directory, now=Clock().now()
        )


def test_a_version_that_was_never_used_may_still_change(database: Database, tmp_path: Path) -> None:
    start_with(database, tmp_path, version_of(FakeModel()))
    start_with(database, tmp_path, changed(FakeModel()))
    with database.read() as connection:
        assert registered(connection)["fake-1"].document["show_legacy"] is True


async def test_a_version_that_was_used_never_changes(sqlite_database: Database, tmp_path: Path) -> None:
    async with opened(sqlite_database, tmp_path):
        pass
    with pytest.raises(
        PolicyError, match=r"fake-1 is registered with other content \(see show_legacy\).*a new id"
    ):
        start_with(sqlite_database, tmp_path, changed(FakeModel()))
    with pytest.raises(PolicyError, match=r"\(see prompts/.*\)"):
        start_with(
            sqlite_database,
            tmp_path,
            msgspec.structs.replace(version_of(FakeModel()), prompt_sha256="0" * 64),
        )


def test_a_version_is_registered_once(database: Database, tmp_path: Path) -> None:
    for _ in range(3):
        start_with(database, tmp_path, version_of(FakeModel()))
    with database.read() as connection:
        assert len(connection.execute(select(t.versions)).all()) == 1


def test_what_is_in_no_file_any_more_is_known_from_the_registry(database: Database, tmp_path: Path) -> None:
    start_with(database, tmp_path, version_of(FakeModel()), version_of(Other()))
    known = start_with(database, tmp_path, version_of(FakeModel()))
    assert replace_origin(known["fake-2"]) == replace_origin(version_of(Other()))


def replace_origin(version: ModelVersion) -> dict[str, Any]:
    return {name: getattr(version, name) for name in version.__struct_fields__ if name != "origin"}


# A server starts with another default.


async def start_again(
    stage: Stage, version: str, *, declared: tuple[str, ...] = ("fake-1", "fake-2"), is_chosen: bool = False
) -> None:
    files = stage.files.read()

    def work(tx: Any) -> None:
        settle_at_start(
            tx,
            files,
            version=version,
            now=stage.clock.now(),
            declared=declared,
            is_chosen=is_chosen,
        )

    await stage.ledger.run(work)


async def test_another_default_resets_nothing_that_is_still_declared(two: Stage) -> None:
    before = await two.enter("read", Phase.ENFORCED)
    await start_again(two, "fake-2")
    assert two.state("read") == before


async def test_a_version_that_is_gone_is_replaced_by_the_default_in_shadow(two: Stage) -> None:
    await two.enter("read", Phase.ENFORCED)
    await start_again(two, "fake-2", declared=("fake-2",))
    state = two.state("read")
    assert (state.phase, state.version, state.previous) == (Phase.SHADOW, "fake-2", "fake-1")


async def test_a_version_that_the_operator_chose_holds_for_all_from_then_on_but_not_for_ever(
    two: Stage,
) -> None:
    await two.enter("read", Phase.ENFORCED)
    await start_again(two, "fake-2", is_chosen=True)
    assert (two.state("read").phase, two.state("read").version) == (Phase.SHADOW, "fake-2")
    await turn(two, Act.ACTIVATE, "fake-1")
    await start_again(two, "fake-2", is_chosen=True)
    assert two.state("read").version == "fake-1"
    await start_again(two, "fake-1", is_chosen=True)
    await start_again(two, "fake-2", is_chosen=True)
    assert two.state("read").version == "fake-2"


async def test_a_changed_policy_leaves_a_rollout_its_version(two: Stage) -> None:
    await turn(two, Act.ACTIVATE, "fake-2")
    path = two.files.policies_dir / "rollouts.yaml"
    path.write_text(path.read_text().replace("risk: medium", "risk: high"), encoding="utf-8")
    await two.services.policies.apply(two.principal("operator"))
    assert two.state("read").version == "fake-2"
