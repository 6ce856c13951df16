"""Does a replay say what would have been different, and when a guardrail would have spoken?"""

import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from app.domain.advisory import Advisory, Outcome
from app.domain.clock import rfc3339, to_us
from app.domain.decision import Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.situation import Situation, parse_situation
from app.engines.legacy.rules import RulesEngine
from app.errors import PolicyError
from app.policy.rollouts import parse_rollouts
from app.services.replay import WhatIf, policy_of
from app.services.replay_report import Replay
from app.store import tables as t
from app.store.database import Database
from app.store.recorded import Recorded, recorded
from app.store.rollouts import baselines
from tests.services.plane import BEGINNING, LEGACY, ROLLOUTS, SHIPPED, Stage, opened, situation

SINCE_US = to_us(BEGINNING)
STRICT = ROLLOUTS.replace("risk: low", "risk: low\n    guardrails: {error_limit: 0.02}")
LOOSE = ROLLOUTS.replace("risk: low", "risk: low\n    guardrails: {error_limit: 0.9}")


@dataclass(frozen=True)
class Always:
    """A version that says the same of everything."""

    decision: Decision
    latency_ms: float = 20.0
    shows_legacy: bool = False

    async def advise(self, situation: Situation, *, legacy: Decision | None) -> Advisory:  # noqa: ARG002
        assert legacy is None
        return Advisory("always", Outcome.OK, self.latency_ms, decision=self.decision, confidence=1.0)


async def replayed(
    stage: Stage, *, rollouts: str = ROLLOUTS, legacy: str | None = None, limit: int = 10, **what: Any
) -> dict[str, Any]:
    """All that a plane recorded, answered again up to now."""
    until_us = to_us(stage.clock.now()) + 1
    versions = stage.services.versions
    engine = None if legacy is None else RulesEngine(legacy, path="legacy.yaml")
    with stage.database.read() as connection:
        bases: Mapping[str, Mapping[str, int]] = baselines(connection)
    what = {"versions": versions, "legacy": engine, **what}
    again = Replay(WhatIf(parse_rollouts(rollouts), **what), bases, limit=limit)
    for was in recorded(stage.database, since_us=SINCE_US, until_us=until_us):
        await again.take(was)
    return again.to_wire(since_us=SINCE_US, until_us=until_us)


def of(found: dict[str, Any], rollout: str) -> dict[str, Any]:
    [row] = [row for row in found["rollouts"] if row["rollout"] == rollout]
    assert isinstance(row, dict)
    return row


async def everything(stage: Stage) -> None:
    """Every way to be answered, in every phase: agreements, disagreements, failures, kill switch, verdicts."""
    for phase in Phase:
        for name in ("read", "deploy"):
            await stage.enter(name, phase, exposure=0.5)
            for legacy in ("allow", "deny", "require_attestation", "fail"):
                for model in ("allow", "deny", "timeout", "overloaded"):
                    for actor in ("alice", "bob", "carol", "dave"):
                        await stage.decide(name, legacy=legacy, model=model, actor=actor)
        stage.clock.passes(minutes=2)
        await stage.services.guard.look()
        await stage.until(lambda: stage.services.observer.queued == 0)
    await stage.judge_all("deny")


async def test_a_replay_with_nothing_changed_changes_nothing(stage: Stage) -> None:
    await everything(stage)
    found = await replayed(stage)
    assert found["decisions"] == stage.rows(t.decisions)
    assert (found["changed"], found["erased"], found["unasked"]) == (0, 0, 0)
    for row in found["rollouts"]:
        assert row["then"] == row["now"]
        assert all(pair.split(">")[0] == pair.split(">")[1] for pair in row["model_confusion"])
        assert row["examples"] == []


async def test_the_evidence_of_a_replay_is_what_was_counted(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    for number in range(40):
        model = "deny" if number % 4 == 0 else "allow"
        await stage.decide(model=model, actor=f"actor-{number}", team_context=str(number))
    await stage.observed(n=40)
    await stage.judge_all("allow")
    stage.clock.passes(minutes=5)
    row = of(await replayed(stage), "read")
    counted = stage.evidence("read")
    assert row["now"]["agreement"] == {"n": 40, "agreed": counted.agreed, "rate": 0.75}
    assert row["now"]["distribution"] == counted.distribution
    assert row["now"]["verdicts"] == {"n": 40, "right": 30, "wrong": 10}


def copied(database: Database, directory: Path) -> Database:
    directory.mkdir()
    file = shutil.copy(database.url.removeprefix("sqlite:///"), directory / "plane.db")
    return Database(f"sqlite:///{file}")


@asynccontextmanager
async def recording(database: Database, directory: Path, rollouts: str) -> AsyncIterator[Stage]:
    """A plane of its own on a copy of an empty database."""
    with closing(copied(database, directory)) as copy:
        async with opened(copy, directory, rollouts=rollouts) as stage:
            yield stage


async def test_an_alarm_comes_in_the_minute_in_which_the_server_would_have_raised_it(
    sqlite_database: Database, tmp_path: Path
) -> None:
    """A plane with strict limits rolls back; what one with loose limits recorded tells when."""

    async def one_a_minute(stage: Stage) -> list[dict[str, Any]]:
        await stage.enter("read", Phase.ADVISORY)
        for number in range(40):
            model = "malformed" if number % 4 == 3 else "allow"
            await stage.decide(model=model, actor=f"actor-{number}", team_context=str(number))
            await stage.observed(n=number + 1)
            made = await stage.looks(every_s=60)
            if made:
                return made
        return []

    async with recording(sqlite_database, tmp_path / "strict", STRICT) as stage:
        [rollback] = await one_a_minute(stage)
    async with recording(sqlite_database, tmp_path / "loose", LOOSE) as stage:
        assert await one_a_minute(stage) == []
        row = of(await replayed(stage, rollouts=STRICT), "read")
    [alarm], seen = row["alarms"], rollback["evidence"]["guardrail"]
    assert (alarm["at"], alarm["guardrail"], alarm["would"]) == (
        rollback["at"],
        "error",
        "rollback to shadow",
    )
    assert (alarm["evidence"], alarm["sentence"]) == (pytest.approx(seen["e_value"]), seen["sentence"])
    assert 4 < alarm["decisions"] < 40
    assert row["decisions"] == 40, "what follows an alarm is replayed all the same"


async def test_an_alarm_about_verdicts_waits_for_the_verdicts(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    for number in range(30):
        await stage.decide(actor=f"actor-{number}", team_context=str(number))
        stage.clock.passes(minutes=1)
    await stage.observed(n=30)
    stage.clock.passes(hours=20)
    await stage.judge_all("deny")
    judged_at = rfc3339(to_us(stage.clock.now()))
    stage.clock.passes(hours=1)
    alarms = of(await replayed(stage), "read")["alarms"]
    [override] = [alarm for alarm in alarms if alarm["guardrail"] == "override"]
    assert (override["decisions"], override["would"]) == (30, "rollback to shadow")
    assert judged_at < override["at"] <= rfc3339(to_us(stage.clock.now()))


async def test_another_legacy_policy_names_what_it_decides_otherwise(stage: Stage) -> None:
    for legacy in ("allow", "deny", "require_attestation", "allow"):
        await stage.decide(legacy=legacy)
    await stage.observed(n=4)
    shut = LEGACY.replace("decision: allow}", "decision: deny}").replace("name: open", "name: shut")
    row = of(await replayed(stage, legacy=shut, limit=1), "read")
    assert (row["changed"], row["milder"], row["stricter"]) == (2, 0, 2)
    assert row["confusion"] == {
        "allow>deny": 2,
        "deny>deny": 1,
        "require_attestation>require_attestation": 1,
    }
    assert row["then"]["agreement"] == {"n": 4, "agreed": 2, "rate": 0.5}
    assert row["now"]["agreement"] == {"n": 4, "agreed": 0, "rate": 0.0}
    [example] = row["examples"]
    assert example["rule"] == "shut"
    assert (example["decision"], example["legacy"]) == (2 * ({"then": "allow", "now": "deny"},))
    assert (example["action"], example["role"], example["answered_by"]) == ("read", "member", "legacy")


async def test_another_version_is_compared_answer_by_answer(enforced: Stage) -> None:
    for model in ("allow", "allow", "deny", "timeout"):
        await enforced.decide(model=model)
    await enforced.judge_all("deny")
    row = of(await replayed(enforced, subject=Always(Decision.DENY), version="always"), "read")
    assert row["model_confusion"] == {"allow>deny": 2, "deny>deny": 1, "timeout>deny": 1}
    assert row["confusion"] == {"allow>deny": 3, "deny>deny": 1}
    assert row["then"]["verdicts"] == {"n": 3, "right": 1, "wrong": 2}
    assert row["now"]["verdicts"] == {"n": 3, "right": 3, "wrong": 0}
    assert (row["then"]["wrong_allows"], row["now"]["wrong_allows"]) == (2, 0)
    assert row["now"]["latency_ms"]["p95"] == pytest.approx(20, rel=0.05)
    assert (row["then"]["errors"], row["now"]["errors"]) == (1, 0)


async def test_an_answer_slower_than_the_deadline_is_a_time_out(enforced: Stage) -> None:
    await enforced.decide(model="deny")
    slow = Always(Decision.DENY, latency_ms=2_001.0)
    row = of(await replayed(enforced, subject=slow, version="always"), "read")
    [example] = row["examples"]
    assert (example["decision"]["now"], example["fallback_reason"]) == ("allow", "timeout")


async def test_another_threshold_lets_an_unsure_answer_count(
    sqlite_database: Database, tmp_path: Path
) -> None:
    shy = ROLLOUTS.replace("risk: low", "risk: low\n    confidence_at_least: 0.95")
    async with opened(sqlite_database, tmp_path, rollouts=shy) as stage:
        await stage.enter("read", Phase.ENFORCED)
        await stage.decide(model="deny")
        assert of(await replayed(stage, rollouts=shy), "read")["changed"] == 0
        row = of(await replayed(stage), "read")
    assert row["model_confusion"] == {"unsure>deny": 1}
    assert row["confusion"] == {"allow>deny": 1}


async def test_a_phase_is_tried_for_every_actor_and_below_the_ceiling(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ADVISORY, exposure=0.01)
    for name in ("read", "deploy", "admin_action"):
        await stage.decide(name, legacy="allow", model="deny")
    await stage.until(lambda: stage.rows(t.advisories) == 3)
    found = await replayed(stage, phase=Phase.ENFORCED)
    for name in ("read", "deploy"):
        assert of(found, name)["confusion"] == {"allow>deny": 1}
    # Its ceiling is advisory, and there no allow leaves without a person.
    assert of(found, "admin")["confusion"] == {"allow>require_attestation": 1}


async def test_what_the_model_was_not_asked_cannot_be_enforced(stage: Stage) -> None:
    stage.model.is_ready = False
    await stage.decide()
    found = await replayed(stage, phase=Phase.ENFORCED)
    assert (found["decisions"], found["unasked"]) == (0, 1)
    asked = await replayed(stage, phase=Phase.ENFORCED, subject=Always(Decision.ALLOW), version="always")
    assert (asked["decisions"], asked["unasked"]) == (1, 0)


async def test_an_erased_situation_is_left_out_and_counted(stage: Stage) -> None:
    told = [await stage.decide(), await stage.decide(model="deny")]
    await stage.observed(n=2)
    await stage.ledger.run(
        lambda tx: tx.connection.execute(
            delete(t.situations).where(t.situations.c.decision_id == told[0]["id"])
        )
    )
    found = await replayed(stage)
    assert (found["decisions"], found["erased"]) == (1, 1)


async def test_a_situation_goes_to_the_rollout_that_the_policy_gives_it(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await stage.decide("read", model="deny")
    wider = ROLLOUTS.replace("actions: [read]", "actions: [view]").replace("[write]", "[write, read]")
    row = of(await replayed(stage, rollouts=wider), "write")
    assert (row["decisions"], row["moved_here"], row["changed"]) == (1, 1, 0)


async def test_a_dry_run_and_shadow_only_report(stage: Stage) -> None:
    for number in range(40):
        await stage.decide(model="malformed", actor=f"actor-{number}", team_context=str(number))
    await stage.observed(n=40)
    dry = ROLLOUTS.replace("risk: low", "risk: low\n    guardrails: {dry_run: [error]}")
    for rollouts, phase in ((STRICT, None), (dry, Phase.ADVISORY)):
        [alarm] = of(await replayed(stage, rollouts=rollouts, phase=phase), "read")["alarms"]
        assert (alarm["guardrail"], alarm["would"]) == ("error", "report")


async def test_pages_follow_one_another_without_a_gap(
    any_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [(await any_stage.decide(team_context=str(number)))["id"] for number in range(10)]
    until_us = to_us(any_stage.clock.now()) + 1
    for page in (1, 3, 5, 100):
        monkeypatch.setattr("app.store.recorded._PAGE", page)
        found = [was.id for was in recorded(any_stage.database, since_us=SINCE_US, until_us=until_us)]
        assert found == told
    assert list(recorded(any_stage.database, since_us=until_us, until_us=until_us + 1)) == []


async def test_one_file_takes_the_place_of_its_like(stage: Stage, tmp_path: Path) -> None:
    in_force = stage.services.plane.view.policy
    rollouts, legacy = tmp_path / "mine.yaml", tmp_path / "rules.yaml"
    rollouts.write_text(STRICT, encoding="utf-8")
    legacy.write_text(LEGACY, encoding="utf-8")
    tried = policy_of(rollouts, in_force, stage.files)
    assert tried.legacy is in_force.legacy, "recorded answers count"
    assert tried.book.get("read").guardrails.error_limit == 0.02
    tried = policy_of(legacy, in_force, stage.files)
    assert tried.book is in_force.book
    assert tried.legacy is not in_force.legacy
    whole = policy_of(stage.files.policies_dir, in_force, stage.files)
    assert whole.book.policies == in_force.book.policies
    assert whole.legacy.sha256 == in_force.legacy.sha256
    legacy.write_text("rules: [{name: odd, decision: maybe}]", encoding="utf-8")
    with pytest.raises(PolicyError, match=r"rules\.yaml:1: "):
        policy_of(legacy, in_force, stage.files)
    cedar = policy_of(SHIPPED / "legacy.cedar", in_force, stage.files)
    assert cedar.legacy.name == "cedar"


def decided(number: int, *, rollout: str = "read", epoch: int = 1, **changes: Any) -> Recorded:
    """One decision a minute, of a model and rules that allow."""
    legacy = LegacyAnswer("rules", Decision.ALLOW, "open", 1.0)
    made = Recorded(
        id=f"{number:06}",
        at_us=SINCE_US + number * 60_000_000,
        rollout=rollout,
        epoch=epoch,
        version="v1",
        phase=Phase.SHADOW if epoch == 1 else Phase.ADVISORY,
        exposed=True,
        decision=Decision.ALLOW,
        fallback_reason=None,
        legacy=legacy,
        situation=parse_situation(situation(rollout)),
        advisory=Advisory("v1", Outcome.OK, 12.0, decision=Decision.ALLOW, confidence=0.9),
        admitted=True,
        inclusion_probability=None,
        verdict=None,
        judged_us=None,
        due_us=None,
    )
    return replace(made, **changes)


async def alarms_of(decisions: Iterable[Recorded], rollout: str) -> list[dict[str, Any]]:
    again = Replay(WhatIf(parse_rollouts(ROLLOUTS), {}))
    for was in decisions:
        await again.take(was)
    row = of(again.to_wire(since_us=SINCE_US, until_us=SINCE_US + 10**12), rollout)
    found = row["alarms"]
    assert isinstance(found, list)
    return found


async def test_the_shadow_epoch_of_the_period_is_what_later_answers_are_held_against() -> None:
    denies = Advisory("v1", Outcome.OK, 12.0, decision=Decision.DENY, confidence=0.9)
    shadow = [decided(number) for number in range(320)]
    later = [decided(number, epoch=2, advisory=denies) for number in range(320, 360)]
    [shift, *_] = [
        each for each in await alarms_of([*shadow, *later], "read") if each["guardrail"] == "shift"
    ]
    assert (shift["would"], shift["epoch"], shift["phase"]) == ("notify", 2, "advisory")
    assert await alarms_of([*shadow, decided(320, epoch=2)], "read") == []


async def test_a_confirmed_wrong_allow_on_high_risk_rolls_back_when_it_is_confirmed() -> None:
    judged_us = SINCE_US + 600_500_000
    wrong = decided(0, rollout="deploy", epoch=2, verdict=Decision.DENY, judged_us=judged_us)
    others = [decided(number, rollout="deploy", epoch=2) for number in (1, 5, 30)]
    [alarm] = await alarms_of([wrong, *others], "deploy")
    assert (alarm["guardrail"], alarm["would"], alarm["decisions"]) == (
        "wrong_allow",
        "rollback to shadow",
        3,
    )
    assert alarm["at"] == rfc3339(SINCE_US + 660_000_000)


async def test_what_was_no_evidence_then_raises_no_alarm_now() -> None:
    broken = Advisory("v1", Outcome.MALFORMED, 12.0)
    heard = [decided(number, epoch=2, advisory=broken, admitted=False) for number in range(50)]
    assert await alarms_of(heard, "read") == []
    fresh = [replace(was, admitted=True) for was in heard]
    assert [each["guardrail"] for each in await alarms_of(fresh, "read")] == ["error"]


async def test_a_decision_of_an_epoch_that_is_over_is_no_evidence_of_the_next() -> None:
    broken = Advisory("v1", Outcome.MALFORMED, 12.0)
    late = [decided(number, epoch=1, advisory=broken) for number in range(1, 50)]
    assert await alarms_of([decided(0, epoch=2), *late], "read") == []
