"""Which levers do what, and which refuse?"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import (
    CeilingReached,
    Conflict,
    Forbidden,
    GateNotMet,
    InvalidInput,
    NotFound,
    RevisionConflict,
)
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened, written
from tests.services.test_phases import answer


async def promote(
    stage: Stage, name: str, to: Phase, *, revision: int | None = None, who: str = "approver"
) -> dict[str, Any]:
    expected = stage.state(name).revision if revision is None else revision
    return await stage.services.levers.promote(
        name, to=to, reason="the evidence is there", expected_revision=expected, by=stage.principal(who)
    )


async def with_evidence(stage: Stage, action: str = "read", *, n: int = 12) -> None:
    """Enough agreement for the first gate."""
    for number in range(n):
        await stage.decide(action, actor=f"actor-{number}")
    await stage.observed(n=n, rollout=action)


async def roll_back(stage: Stage, name: str = "read") -> dict[str, Any]:
    return await stage.services.levers.roll_back(name, reason="it went wrong", by=stage.principal("operator"))


async def test_honest_evidence_promotes_at_the_first_exposure_step_in_a_new_epoch(any_stage: Stage) -> None:
    before = any_stage.state("read")
    await with_evidence(any_stage)
    transition = await promote(any_stage, "read", Phase.ADVISORY)
    after = any_stage.state("read")
    assert (after.phase, after.exposure, after.epoch) == (Phase.ADVISORY, 0.5, before.epoch + 1)
    assert after.revision == before.revision + 1 == transition["revision"]
    assert transition["evidence"]["outcome"] == "pass"
    assert (transition["kind"], transition["automatic"]) == ("promote", False)


async def test_judged_reviews_promote_to_enforced(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    for number in range(12):
        await stage.decide(actor=f"actor-{number}")
    await stage.until(lambda: stage.rows(t.reviews) == 12)
    with pytest.raises(GateNotMet):
        await promote(stage, "read", Phase.ENFORCED)
    await stage.judge_all("allow")
    await promote(stage, "read", Phase.ENFORCED)
    assert stage.state("read").phase is Phase.ENFORCED


async def test_without_evidence_nothing_is_promoted(stage: Stage) -> None:
    with pytest.raises(GateNotMet) as refusal:
        await promote(stage, "read", Phase.ADVISORY)
    assert refusal.value.gate["outcome"] == "insufficient"
    assert stage.state("read").phase is Phase.SHADOW


async def test_of_fifty_promotions_at_once_exactly_one_wins(any_stage: Stage) -> None:
    await with_evidence(any_stage)
    revision = any_stage.state("read").revision
    tries = [promote(any_stage, "read", Phase.ADVISORY, revision=revision) for _ in range(50)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    lost = [outcome for outcome in outcomes if isinstance(outcome, RevisionConflict)]
    assert len(lost) == 49
    assert any_stage.rows(t.transitions) == 1
    assert any_stage.state("read").revision == revision + 1


async def test_a_promotion_on_an_older_revision_says_which_one_is_now(stage: Stage) -> None:
    with pytest.raises(RevisionConflict) as refusal:
        await promote(stage, "read", Phase.ADVISORY, revision=7)
    assert (refusal.value.expected, refusal.value.actual) == (7, stage.state("read").revision)


async def test_no_phase_is_skipped(stage: Stage) -> None:
    with pytest.raises(Conflict, match="not the next phase"):
        await promote(stage, "read", Phase.ENFORCED)


async def test_no_lever_lifts_a_rollout_past_its_ceiling(stage: Stage) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    with pytest.raises(CeilingReached):
        await promote(stage, "admin", Phase.ENFORCED, who="admin")
    admin = stage.principal("admin")
    levers = stage.services.levers
    await levers.expose("admin", exposure=1.0, reason="more", expected_revision=None, by=admin)
    await levers.hold("admin", reason="so", by=admin)
    await levers.resume("admin", reason="so", by=admin)
    await levers.kill(engaged=True, reason="so", by=admin)
    await levers.kill(engaged=False, reason="so", by=admin)
    document = await stage.decide("admin_action")
    assert (document["phase"], document["answered_by"]) == ("advisory", "legacy")


async def test_a_ceiling_that_sinks_takes_its_rollout_along_at_the_next_start(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        await stage.enter("read", Phase.ENFORCED)
    lower = ROLLOUTS.replace(
        "ceiling: enforced\n    combine: model\n    gates: {advisory: {agreement_above: 0.5}, enforced: {override_below: 0.5, reviewed_at_least: 5}}",
        "ceiling: advisory\n    combine: model\n    gates: {advisory: {agreement_above: 0.5}}",
    )
    async with opened(sqlite_database, tmp_path, rollouts=lower) as stage:
        assert stage.state("read").phase is Phase.SHADOW
        assert (await stage.decide())["answered_by"] == "legacy"


@pytest.mark.parametrize("hindrance", ["held", "kill_switch", "investigation"])
async def test_a_gate_stays_shut_while(stage: Stage, hindrance: str) -> None:
    operator = stage.principal("operator")
    if hindrance == "investigation":
        await stage.enter("read", Phase.ADVISORY)
        await roll_back(stage)
    await with_evidence(stage)
    if hindrance == "held":
        await stage.services.levers.hold("read", reason="wait", by=operator)
    if hindrance == "kill_switch":
        await stage.services.levers.kill(engaged=True, reason="wait", by=operator)
    with pytest.raises(GateNotMet) as refusal:
        await promote(stage, "read", Phase.ADVISORY)
    open_ones = [one["name"] for one in refusal.value.gate["conditions"] if one["outcome"] != "pass"]
    assert open_ones == [hindrance]


async def test_a_rollback_asks_for_no_revision_and_works_while_held_and_killed(any_stage: Stage) -> None:
    operator = any_stage.principal("operator")
    await any_stage.enter("read", Phase.ENFORCED, exposure=0.5)
    await any_stage.services.levers.hold("read", reason="wait", by=operator)
    await any_stage.services.levers.kill(engaged=True, reason="wait", by=operator)
    await roll_back(any_stage)
    assert (any_stage.state("read").phase, any_stage.state("read").exposure) == (Phase.ADVISORY, 1.0)


@pytest.mark.parametrize(
    ("target", "phase", "lands"),
    [
        ("advisory", Phase.ENFORCED, Phase.ADVISORY),
        ("advisory", Phase.ADVISORY, Phase.SHADOW),
        ("shadow", Phase.ENFORCED, Phase.SHADOW),
    ],
)
async def test_a_rollback_goes_to_the_lower_of_its_target_and_one_phase_down(
    sqlite_database: Database, tmp_path: Path, target: str, phase: Phase, lands: Phase
) -> None:
    aimed = ROLLOUTS.replace("combine: model", f"combine: model\n    rollback_to: {target}")
    async with opened(sqlite_database, tmp_path, rollouts=aimed) as stage:
        await stage.enter("read", phase)
        await roll_back(stage)
        assert stage.state("read").phase is lands


async def test_in_shadow_there_is_nothing_to_roll_back(stage: Stage) -> None:
    with pytest.raises(Conflict, match="nothing below"):
        await roll_back(stage)


async def test_a_rollback_opens_an_investigation_that_a_person_closes_with_a_cause(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    await roll_back(any_stage)
    opened_one = any_stage.state("read").investigation
    assert opened_one is not None
    assert (opened_one.is_open, opened_one.version) == (True, any_stage.model.version_id)
    await any_stage.services.levers.close_investigation(
        "read", cause="prompt", fix="reworded", by=any_stage.principal("operator")
    )
    closed = any_stage.state("read").investigation
    assert closed is not None
    assert (closed.cause, closed.fix, closed.closed_by) == (
        "prompt",
        "reworded",
        any_stage.principal("operator").key_id,
    )


async def test_an_investigation_has_one_of_the_known_causes(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="integration"):
        await stage.services.levers.close_investigation(
            "read", cause="weather", fix="umbrella", by=stage.principal("operator")
        )


async def test_a_rollout_that_was_rolled_back_says_why(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await roll_back(stage)
    status = stage.services.rollouts.one("read")["status"]
    assert status["state"] == "rolled_back"
    assert (
        "rolled back to advisory: it went wrong; close its investigation, then 7 days of observation"
        in status["sentence"]
    )


async def test_promotion_again_needs_observed_days_after_the_investigation(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await roll_back(stage)
    await stage.services.levers.close_investigation(
        "read", cause="model", fix="retrained", by=stage.principal("operator")
    )
    await with_evidence(stage)
    with pytest.raises(GateNotMet, match="7 days observed since its investigation"):
        await promote(stage, "read", Phase.ADVISORY)
    await stage.serves("read", days=7)
    await promote(stage, "read", Phase.ADVISORY)


async def test_a_hold_freezes_what_raises_exposure_and_lets_it_sink(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    operator = stage.principal("operator")
    levers = stage.services.levers
    await levers.hold("read", reason="wait", by=operator)
    with pytest.raises(Conflict, match="held"):
        await levers.expose("read", exposure=1.0, reason="up", expected_revision=None, by=operator)
    await levers.expose("read", exposure=0.1, reason="down", expected_revision=None, by=operator)
    assert stage.state("read").exposure == 0.1
    await levers.resume("read", reason="go on", by=operator)
    await levers.expose("read", exposure=0.5, reason="up", expected_revision=None, by=operator)
    assert stage.state("read").exposure == 0.5


@pytest.mark.parametrize("exposure", [-0.1, 1.1, float("nan")])
async def test_an_exposure_is_a_share(stage: Stage, exposure: float) -> None:
    with pytest.raises(InvalidInput, match="share"):
        await stage.services.levers.expose(
            "read", exposure=exposure, reason="?", expected_revision=None, by=stage.principal("operator")
        )


async def test_exposure_rises_one_step_at_a_time_and_keeps_the_epoch(stage: Stage) -> None:
    before = await stage.enter("read", Phase.ADVISORY, exposure=0.1)
    levers, operator = stage.services.levers, stage.principal("operator")
    with pytest.raises(Conflict, match="next step up is 50%"):
        await levers.expose("read", exposure=1.0, reason="up", expected_revision=None, by=operator)
    await levers.expose("read", exposure=0.5, reason="up", expected_revision=before.revision, by=operator)
    with pytest.raises(RevisionConflict):
        await levers.expose("read", exposure=1.0, reason="up", expected_revision=before.revision, by=operator)
    assert stage.state("read").epoch == before.epoch


async def test_a_rollout_is_held_once_and_resumed_once(stage: Stage) -> None:
    levers, operator = stage.services.levers, stage.principal("operator")
    with pytest.raises(Conflict, match="not held"):
        await levers.resume("read", reason="?", by=operator)
    await levers.hold("read", reason="first", by=operator)
    with pytest.raises(Conflict, match="held already: first"):
        await levers.hold("read", reason="second", by=operator)


async def test_the_kill_switch_gives_every_rollout_to_the_legacy_engine_at_once(enforced: Stage) -> None:
    before = {name: enforced.state(name) for name in ("read", "write", "deploy")}
    await enforced.services.levers.kill(engaged=True, reason="fire", by=enforced.principal("operator"))
    for name, state in before.items():
        assert answer(await enforced.decide(name, legacy="deny")) == ("deny", "legacy", "kill_switch")
        assert enforced.state(name) == state


@pytest.mark.parametrize(
    ("engaged", "who"), [(True, "approver"), (False, "operator"), (True, "reviewer"), (False, "auditor")]
)
async def test_operators_engage_the_kill_switch_and_approvers_release_it(
    enforced: Stage, who: str, *, engaged: bool
) -> None:
    levers = enforced.services.levers
    if not engaged:
        await levers.kill(engaged=True, reason="fire", by=enforced.principal("operator"))
    with pytest.raises(Forbidden):
        await levers.kill(engaged=engaged, reason="so", by=enforced.principal(who))


async def test_a_released_kill_switch_begins_at_the_first_exposure_step(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED, exposure=1.0)
    levers = any_stage.services.levers
    await levers.kill(engaged=True, reason="fire", by=any_stage.principal("operator"))
    await levers.kill(engaged=False, reason="it is out", by=any_stage.principal("approver"))
    state = any_stage.state("read")
    assert (state.phase, state.exposure) == (Phase.ENFORCED, 0.5)
    assert not any_stage.services.plane.view.kill_switch


async def test_no_exposure_rises_while_the_kill_switch_is_engaged(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    await stage.services.levers.kill(engaged=True, reason="fire", by=stage.principal("operator"))
    with pytest.raises(Conflict, match="kill switch"):
        await stage.services.levers.expose(
            "read", exposure=1.0, reason="up", expected_revision=None, by=stage.principal("operator")
        )


async def test_a_kill_switch_is_not_engaged_twice(stage: Stage) -> None:
    await stage.services.levers.kill(engaged=True, reason="fire", by=stage.principal("operator"))
    with pytest.raises(Conflict, match="engaged already"):
        await stage.services.levers.kill(engaged=True, reason="fire", by=stage.principal("operator"))


async def test_a_kill_switch_is_released_though_a_rollout_was_taken_out_of_the_policy(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path) as stage:
        await stage.services.levers.kill(engaged=True, reason="fire", by=stage.principal("operator"))
        without = "\n".join(line for line in ROLLOUTS.splitlines() if "  admin:" not in line)
        written(tmp_path, rollouts=without)
        await stage.services.policies.apply(stage.principal("operator"))
        await stage.services.policies.apply(stage.principal("approver"))
        await stage.services.levers.kill(engaged=False, reason="out", by=stage.principal("approver"))
        assert not stage.services.plane.view.kill_switch


async def test_every_change_leaves_exactly_one_transition(any_stage: Stage) -> None:
    operator, approver = any_stage.principal("operator"), any_stage.principal("approver")
    levers = any_stage.services.levers
    await with_evidence(any_stage)
    made = [
        await promote(any_stage, "read", Phase.ADVISORY),
        await levers.expose("read", exposure=1.0, reason="up", expected_revision=None, by=operator),
        await levers.hold("read", reason="wait", by=operator),
        await levers.resume("read", reason="go on", by=operator),
        await roll_back(any_stage),
        await levers.close_investigation("read", cause="model", fix="fixed", by=operator),
        await levers.kill(engaged=True, reason="fire", by=operator),
        await levers.kill(engaged=False, reason="out", by=approver),
    ]
    assert list(reversed(any_stage.services.rollouts.transitions("read", limit=100))) == made
    assert [one["kind"] for one in made] == [
        "promote",
        "exposure",
        "hold",
        "resume",
        "rollback",
        "investigation",
        "kill_switch",
        "kill_switch",
    ]


@pytest.mark.parametrize("lever", ["roll_back", "hold", "resume"])
async def test_no_lever_turns_what_is_not_there(stage: Stage, lever: str) -> None:
    with pytest.raises(NotFound):
        await getattr(stage.services.levers, lever)("nowhere", reason="so", by=stage.principal("operator"))
