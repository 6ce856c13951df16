"""Does a validation ask everything, keep what came of it, and open the gate that asks for it?"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.condition import GateOutcome
from app.domain.gate import Gate
from app.domain.phase import Phase
from app.engines.model.wire import Priority
from app.errors import Conflict, InvalidInput, NotFound, PolicyError
from app.store.database import Database
from app.store.tables import validations
from tests.services.plane import ROLLOUTS, VERSION, Stage, opened, situation

AGREEMENT = "advisory: {agreement_above: 0.5}, enforced: {override_below: 0.5, reviewed_at_least: 5}"
GATED = ROLLOUTS.replace(AGREEMENT, "advisory: {validation_above: 0.9}, enforced: {override_below: 0.5}", 1)


def suite(stage: Stage, *answers: str, name: str = "mine", expected: str = "allow") -> None:
    """One case for each answer of the model; the legacy engine allows them all."""
    lines = [
        {
            "id": f"{name}-{number}",
            "tags": ["easy"],
            "situation": situation(model=answer, actor=f"{name}-{number}"),
            "expected": expected,
            "why": "Because.",
        }
        for number, answer in enumerate(answers)
    ]
    folder = stage.files.policies_dir / "suites"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


async def run(stage: Stage, version: str = VERSION, **changes: Any) -> dict[str, Any]:
    asked = {"suites": [], "against": None, "reasons": False, **changes}
    return await stage.services.validations.run(version, **asked, by=stage.principal("operator"))


@pytest.fixture
async def gated(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server whose gate of `read` to advisory asks for nothing but a validation, and fresh evidence."""
    async with opened(sqlite_database, tmp_path, rollouts=GATED) as server:
        await server.decide()
        await server.observed(n=1)
        yield server


def gate(stage: Stage) -> Gate:
    state, policy = stage.state("read"), stage.services.plane.view.policy.book.get("read")
    with stage.database.read() as connection:
        evidence = stage.services.gates.evidence(connection, state)
        return stage.services.gates.assess(
            connection, policy, state, evidence, to=Phase.ADVISORY, now=stage.clock.now()
        )


async def test_every_case_is_asked_after_everybody_else_and_the_report_is_kept(stage: Stage) -> None:
    suite(stage, "allow", "allow", "deny", expected="allow")
    found = await run(stage)
    assert [priority for _, priority, _ in stage.model.asked] == [Priority.SHADOW] * 3
    assert (found["version"], found["n"], found["passed"]) == (VERSION, 3, 2)
    assert found["legacy"]["passed"] == 3
    assert found["model_sha256"] == "f" * 64
    assert stage.services.validations.of(VERSION) == [found]


async def test_validations_are_listed_newest_first(stage: Stage) -> None:
    suite(stage, "allow")
    first = await run(stage)
    second = await run(stage)
    assert [each["id"] for each in stage.services.validations.of(VERSION)] == [second["id"], first["id"]]


async def test_suites_are_chosen_by_name(stage: Stage) -> None:
    suite(stage, "allow", name="a")
    suite(stage, "allow", "deny", name="b")
    assert (await run(stage))["suites"] == ["a", "b"]
    assert (await run(stage, suites=["b"]))["n"] == 2
    with pytest.raises(NotFound, match="no suite 'c'"):
        await run(stage, suites=["c"])


async def test_every_tenth_case_is_asked_why_or_all_where_wanted(stage: Stage) -> None:
    suite(stage, *["allow"] * 11, "timeout")
    assert (await run(stage))["reasoning"] == {"coverage": 1.0, "n": 2}
    assert (await run(stage, reasons=True))["reasoning"] == {"coverage": 1.0, "n": 11}
    assert stage.model.explained == 13


async def test_the_risk_of_a_case_is_its_rollouts(stage: Stage) -> None:
    suite(stage, "allow", expected="deny")
    assert (await run(stage))["wrong_allows"] == {"low": 1, "medium": 0, "high": 0, "critical": 0}


@pytest.mark.parametrize("shows_legacy", [False, True])
async def test_the_legacy_answer_is_shown_where_the_version_says_so(
    stage: Stage, *, shows_legacy: bool
) -> None:
    suite(stage, "allow")
    stage.model.shows_legacy = shows_legacy
    await run(stage)
    assert [legacy for _, _, legacy in stage.model.asked] == ["allow" if shows_legacy else None]


async def test_a_version_that_is_not_ready_is_not_judged(stage: Stage) -> None:
    suite(stage, "allow")
    stage.model.is_ready = False
    with pytest.raises(Conflict, match=f"phasegate validate {VERSION}"):
        await run(stage)
    with pytest.raises(NotFound, match="no version 'fake-2'"):
        await run(stage, "fake-2")
    assert stage.rows(validations) == 0


async def test_a_server_without_time_says_nothing_about_the_version(stage: Stage) -> None:
    suite(stage, "allow", "overloaded")
    with pytest.raises(Conflict, match="overloaded"):
        await run(stage)
    assert stage.rows(validations) == 0


async def test_failures_of_the_version_itself_are_results(stage: Stage) -> None:
    suite(stage, "allow", "oversize", "malformed", "timeout")
    found = await run(stage)
    assert found["outcomes"] == {"ok": 1, "oversize": 1, "malformed": 1, "timeout": 1}
    assert found["pass_rate"] == 0.25


async def test_a_comparison_is_with_the_last_validation_on_the_same_suites(stage: Stage) -> None:
    suite(stage, "allow", "deny")
    with pytest.raises(InvalidInput, match="do that first"):
        await run(stage, against=VERSION)
    await run(stage)
    stage.model.unsure = True
    found = await run(stage, against=VERSION)
    assert found["against"] == {"version": VERSION, "n": 2, "better": [], "worse": [], "other": []}
    suite(stage, "deny", "allow")
    with pytest.raises(InvalidInput, match="against"):
        await run(stage, against=VERSION)


async def test_a_wrong_suite_is_named_and_nobody_is_asked(stage: Stage) -> None:
    with pytest.raises(PolicyError, match="holds no suite"):
        await run(stage)
    suite(stage, "allow", expected="perhaps")
    with pytest.raises(PolicyError, match=r"mine.jsonl:1: expected"):
        await run(stage)
    assert stage.model.asked == []


async def test_a_gate_opens_only_by_a_validation_above_its_limit(gated: Stage) -> None:
    suite(gated, *["allow"] * 55, *["deny"] * 5)
    before = gate(gated)
    assert before.outcome is GateOutcome.INSUFFICIENT
    assert f"phasegate validate {VERSION} --record" in before.sentence
    await run(gated)
    after = gate(gated)
    assert after.outcome is GateOutcome.PASS
    condition = next(each for each in after.conditions if each.name == "validation")
    assert (condition.value, condition.n, condition.limit) == (55 / 60, 60, 0.9)
    assert condition.sentence == "validation 91.7 % of 60, 0 wrong allows, needs above 90 %"


async def test_a_validation_at_or_below_the_limit_fails_the_gate(gated: Stage) -> None:
    suite(gated, *["allow"] * 54, *["deny"] * 6)
    await run(gated)
    assert gate(gated).outcome is GateOutcome.FAIL


async def test_the_latest_validation_counts(gated: Stage) -> None:
    suite(gated, *["allow"] * 60)
    await run(gated)
    gated.model.version_id = "fake-2"  # what is loaded answers for another version from now on
    with pytest.raises(Conflict):
        await run(gated)
    assert gate(gated).outcome is GateOutcome.PASS


async def test_fewer_than_sixty_situations_are_not_enough(gated: Stage) -> None:
    suite(gated, *["allow"] * 59)
    await run(gated)
    assert gate(gated).outcome is GateOutcome.INSUFFICIENT


async def test_a_validation_on_other_suites_than_todays_is_not_enough(gated: Stage) -> None:
    suite(gated, *["allow"] * 60)
    await run(gated)
    suite(gated, "allow", name="more")
    later = gate(gated)
    assert later.outcome is GateOutcome.INSUFFICIENT
    assert "the suites are not what" in later.sentence
    await run(gated)
    assert gate(gated).outcome is GateOutcome.PASS
    await run(gated, suites=["mine"])
    assert gate(gated).outcome is GateOutcome.PASS, "a part of the suites says nothing about all"


async def test_suites_that_cannot_be_read_are_an_error_and_never_a_pass(gated: Stage) -> None:
    suite(gated, *["allow"] * 60)
    await run(gated)
    (gated.files.policies_dir / "suites" / "mine.jsonl").write_bytes(b"\xff\xfe")
    assert gate(gated).outcome is GateOutcome.ERROR


async def test_over_http_operators_and_approvers_validate_and_auditors_look(stage: Stage) -> None:
    suite(stage, "allow", "deny")
    path = f"/v1/versions/{VERSION}"
    for who, status in {
        "operator": 200,
        "approver": 200,
        "reviewer": 403,
        "auditor": 403,
        "caller": 403,
    }.items():
        answer = await stage.call("POST", f"{path}/validate", {"suites": ["mine"]}, who=who)
        assert answer.status_code == status, who
    listed = await stage.call("GET", f"{path}/validations", who="auditor")
    assert len(listed.json()["validations"]) == 2
    assert (await stage.call("POST", "/v1/versions/none/validate", {})).status_code == 404
    assert (await stage.call("GET", "/v1/versions/none/validations")).status_code == 404
    assert (await stage.call("POST", f"{path}/validate", {"suite": ["mine"]})).status_code == 422


async def test_a_validation_is_evidence_that_the_chain_vouches_for(any_stage: Stage) -> None:
    suite(any_stage, "allow")
    found = await run(any_stage)
    assert any_stage.services.administration.verify()["ok"] is True
    assert any_stage.services.validations.of(VERSION) == [found]
