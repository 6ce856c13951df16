"""Which change of the policy files takes effect, when, and on whose word?"""

from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import CeilingReached, Conflict, Forbidden, PolicyError
from app.store import policies as stored
from app.store.database import Database
from tests.services.plane import LEGACY, ROLLOUTS, FakeModel, Stage, opened, written

LOOSER = ROLLOUTS.replace(
    "{advisory: {agreement_above: 0.5, soak_days: 2}", "{advisory: {agreement_above: 0.4, soak_days: 2}"
)
STRICTER = ROLLOUTS.replace(
    "{advisory: {agreement_above: 0.5, soak_days: 2}", "{advisory: {agreement_above: 0.7, soak_days: 2}"
)
BOTH = STRICTER.replace(
    "enforced: {override_below: 0.5, reviewed_at_least: 5}",
    "enforced: {override_below: 0.6, reviewed_at_least: 5}",
)
OTHER_RULES = LEGACY.replace("name: open", "name: wide-open")


@pytest.fixture
async def running(stage: Stage) -> Stage:
    """Everything in advisory, so that a reset to shadow shows."""
    for name in ("read", "write", "deploy", "admin"):
        await stage.enter(name, Phase.ADVISORY)
    return stage


async def apply(stage: Stage, who: str) -> dict[str, Any]:
    return await stage.services.policies.apply(stage.principal(who))


def limit(stage: Stage, name: str = "write") -> float | None:
    return stage.services.plane.view.policy.book.get(name).gates[Phase.ADVISORY].agreement_above


async def test_what_tightens_is_applied_at_the_next_start(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as stage:
        await stage.enter("write", Phase.ADVISORY)
    async with opened(database, tmp_path, rollouts=STRICTER) as stage:
        assert limit(stage) == 0.7
        assert stage.state("write").phase is Phase.ADVISORY


async def test_what_loosens_waits(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path):
        pass
    async with opened(database, tmp_path, rollouts=LOOSER) as stage:
        assert limit(stage) == 0.5
        plan = stage.services.policies.diff()
        assert plan["loosens"]
        assert plan["to_shadow"] == ["write"]


async def test_of_both_only_what_tightens_is_applied_at_start(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path):
        pass
    async with opened(sqlite_database, tmp_path, rollouts=BOTH) as stage:
        assert limit(stage) == 0.7
        gate = stage.services.plane.view.policy.book.get("read").gates[Phase.ENFORCED]
        assert gate.override_below == 0.5
        assert stage.services.policies.diff()["to_shadow"] == ["read"]


async def test_what_loosens_takes_two_people_and_an_approver(running: Stage) -> None:
    written(running.files.policies_dir.parent, rollouts=LOOSER)
    assert (await apply(running, "operator"))["status"] == "proposed"
    assert limit(running) == 0.5
    assert running.services.policies.diff()["proposed_by"] == running.principal("operator").key_id
    assert (await apply(running, "approver"))["status"] == "applied"
    assert limit(running) == 0.4


@pytest.mark.parametrize("who", ["approver", "admin"])
async def test_nobody_approves_their_own_request(running: Stage, who: str) -> None:
    written(running.files.policies_dir.parent, rollouts=LOOSER)
    await apply(running, who)
    with pytest.raises(Forbidden, match="other than its author") as refusal:
        await apply(running, who)
    assert refusal.value.code == "own-request"
    assert limit(running) == 0.5


async def test_an_operator_does_not_approve_what_loosens(running: Stage) -> None:
    written(running.files.policies_dir.parent, rollouts=LOOSER)
    await apply(running, "approver")
    with pytest.raises(Forbidden, match="by an approver"):
        await apply(running, "operator")


async def test_what_was_proposed_is_what_is_applied(running: Stage) -> None:
    directory = running.files.policies_dir.parent
    written(directory, rollouts=LOOSER)
    await apply(running, "operator")
    written(directory, rollouts=LOOSER.replace("agreement_above: 0.4", "agreement_above: 0.1"))
    assert (await apply(running, "approver"))["status"] == "proposed"
    assert limit(running) == 0.5


async def test_loosened_rollouts_go_to_shadow_in_a_new_epoch_and_no_others(running: Stage) -> None:
    before = running.state("write")
    written(running.files.policies_dir.parent, rollouts=LOOSER)
    await apply(running, "operator")
    assert running.state("write") == before
    outcome = await apply(running, "approver")
    assert outcome["to_shadow"] == ["write"]
    after = running.state("write")
    assert (after.phase, after.epoch, after.revision) == (Phase.SHADOW, before.epoch + 1, before.revision + 1)
    assert running.state("read").phase is Phase.ADVISORY


async def test_what_tightens_is_applied_by_one_person_and_keeps_the_phase(running: Stage) -> None:
    written(running.files.policies_dir.parent, rollouts=STRICTER)
    assert (await apply(running, "operator"))["status"] == "applied"
    assert (limit(running), running.state("write").phase) == (0.7, Phase.ADVISORY)


async def test_other_legacy_rules_begin_every_epoch_anew_in_shadow(running: Stage) -> None:
    epochs = {name: state.epoch for name, state in running.services.plane.view.states.items()}
    written(running.files.policies_dir.parent, legacy=OTHER_RULES)
    await apply(running, "operator")
    await apply(running, "approver")
    for name, state in running.services.plane.view.states.items():
        assert (state.phase, state.epoch) == (Phase.SHADOW, epochs[name] + 1)
    assert (await running.decide())["legacy"]["rule"] == "wide-open"


async def test_other_legacy_rules_wait_at_start(sqlite_database: Database, tmp_path: Path) -> None:
    async with opened(sqlite_database, tmp_path):
        pass
    async with opened(sqlite_database, tmp_path, legacy=OTHER_RULES) as stage:
        assert (await stage.decide())["legacy"]["rule"] == "open"


async def test_another_confidence_threshold_begins_the_epoch_anew(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        before = await stage.enter("read", Phase.ADVISORY)
    surer = ROLLOUTS.replace("combine: model", "combine: model\n    confidence_at_least: 0.8")
    async with opened(sqlite_database, tmp_path, rollouts=surer) as stage:
        after = stage.state("read")
        assert (after.phase, after.epoch) == (Phase.ADVISORY, before.epoch + 1)


async def test_another_model_version_begins_in_shadow(sqlite_database: Database, tmp_path: Path) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        await stage.enter("read", Phase.ENFORCED)
    async with opened(sqlite_database, tmp_path, model=FakeModel(version_id="fake-2")) as stage:
        state = stage.state("read")
        assert (state.phase, state.version, state.previous) == (Phase.SHADOW, "fake-2", "fake-1")


async def test_a_file_with_an_error_is_refused_with_its_place_and_changes_nothing(running: Stage) -> None:
    written(running.files.policies_dir.parent, rollouts=ROLLOUTS.replace("combine: model", "combin: model"))
    with pytest.raises(PolicyError, match=r"rollouts.yaml:\d+: .*combin"):
        await apply(running, "operator")
    assert limit(running) == 0.5


async def test_files_that_are_in_force_leave_nothing_to_apply(running: Stage) -> None:
    with pytest.raises(Conflict, match="in force"):
        await apply(running, "operator")


async def test_a_new_rollout_begins_in_shadow(running: Stage) -> None:
    more = ROLLOUTS.replace(
        "  other:", "  merge: {actions: [merge], risk: medium, ceiling: advisory}\n  other:"
    )
    written(running.files.policies_dir.parent, rollouts=more)
    await apply(running, "operator")
    await apply(running, "approver")
    document = await running.decide("merge")
    assert (document["rollout"], document["phase"]) == ("merge", "shadow")
    assert running.state("merge").revision == 1


async def test_a_raised_ceiling_is_a_change_that_two_people_make(running: Stage) -> None:
    higher = ROLLOUTS.replace("risk: critical, ceiling: advisory", "risk: critical, ceiling: enforced")
    written(running.files.policies_dir.parent, rollouts=higher)
    assert (await apply(running, "admin"))["status"] == "proposed"
    assert running.services.plane.view.policy.book.get("admin").ceiling is Phase.ADVISORY


async def test_nothing_is_promoted_by_a_policy_that_is_no_longer_in_force(stage: Stage) -> None:
    gates = "    gates: {advisory: {agreement_above: 0.5}, enforced: {override_below: 0.5, reviewed_at_least: 5}}\n"
    lowered = ROLLOUTS.replace(gates, "").replace("ceiling: enforced", "ceiling: shadow", 1)
    documents = {**stage.files.read(), "rollouts": lowered}
    await stage.ledger.run(lambda tx: stored.apply(tx, documents, author="a", approver="b", now_us=1))

    async def promote() -> None:
        await stage.services.levers.promote(
            "read", to=Phase.ADVISORY, reason="on", expected_revision=1, by=stage.principal("approver")
        )

    with pytest.raises(Conflict) as refusal:
        await promote()
    assert refusal.value.code == "policy-changed"
    stage.services.plane.refresh()
    with pytest.raises(CeilingReached):
        await promote()
