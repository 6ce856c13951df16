"""Who decides what a rollout runs on, and what becomes of versions over registrations and starts?"""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from app.domain.counters import Metric
from app.domain.phase import Phase
from app.engines.model.version import ModelVersion
from app.errors import (
    Conflict,
    Forbidden,
    GateNotMet,
    PolicyError,
    RevisionConflict,
)
from app.services.policies import settle_at_start
from app.services.succession import Act
from app.services.versions import Versions, register_at_start
from app.store import tables as t
from app.store.database import Database
from app.store.rollouts import baselines
from app.store.transaction import CounterKey, transaction
from app.store.versions import registered
from tests.services.plane import (
    Clock,
    FakeModel,
    Several,
    Stage,
    opened,
    version_of,
)
from tests.services.test_candidates import (
    Other,
    candidate,
    compared,
    investigated,
    other,
    turn,
    two,
    with_proof,
)
from tests.services.test_freezes import freeze
from tests.services.test_phases import answer

__all__ = ["other", "two"]  # fixtures


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
