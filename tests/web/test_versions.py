"""Do versions over HTTP say what they are, and refuse what would change them?"""

import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.domain.phase import Phase
from app.engines.model.version import load_versions
from app.store.database import Database
from tests.services.plane import ROLLOUTS, SHIPPED, FakeModel, Several, Stage, opened

PROMPT = (SHIPPED / "prompts" / "smollm2-policy.md").read_text(encoding="utf-8")
REVIEWED = ROLLOUTS.replace("review_rate: 0", "review_rate: 1")


@pytest.fixture
async def two(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server that knows two versions, with files that further ones may name."""
    others = [FakeModel(version_id="fake-2")]
    async with opened(sqlite_database, tmp_path, rollouts=REVIEWED, others=others) as server:
        policies = server.files.policies_dir
        for directory in ("versions", "prompts"):
            (policies / directory).mkdir()
        (policies / "prompts" / "policy.md").write_text(PROMPT, encoding="utf-8")
        (policies / "versions" / "adapter.gguf").write_bytes(b"adapter")
        yield server


def declared(name: str = "fresh-1", **changes: Any) -> dict[str, Any]:
    """The declaration of a version, as a file or a body has it."""
    shipped = msgspec.to_builtins(next(iter(load_versions(SHIPPED).values())))
    for derived in ("origin", "prompt_sha256"):
        del shipped[derived]
    given = {key: value for key, value in shipped.items() if value is not None}
    return {
        **given,
        "id": name,
        "prompt": "prompts/policy.md",
        "adapter": {"file": "versions/adapter.gguf"},
        **changes,
    }


async def versions(stage: Stage) -> dict[str, dict[str, Any]]:
    response = await stage.call("GET", "/v1/versions")
    assert response.status_code == 200, response.text
    return {version["id"]: version for version in response.json()["versions"]}


async def turn(stage: Stage, action: str, *, name: str = "read", who: str = "admin", **more: Any) -> Any:
    body = {"action": action, "reason": "because", **more}
    return await stage.call("POST", f"/v1/rollouts/{name}/version", body, who=who)


async def test_a_version_has_the_state_that_counts_most_and_every_rollouts(two: Stage) -> None:
    assert {name: each["state"] for name, each in (await versions(two)).items()} == {
        "fake-1": "active",
        "fake-2": "registered",
    }
    await turn(two, "candidate", version="fake-2")
    await turn(two, "activate", name="write", version="fake-2")
    found = await versions(two)
    assert found["fake-1"]["rollouts"] | {"deploy": "active"} == found["fake-1"]["rollouts"]
    assert found["fake-1"]["rollouts"]["write"] == "previous"
    assert found["fake-2"]["rollouts"] == {"read": "candidate", "write": "active"}
    await turn(two, "withdraw")
    assert (await versions(two))["fake-2"]["rollouts"] == {"read": "retired", "write": "active"}


async def test_a_version_has_the_shape_that_others_rely_on(two: Stage) -> None:
    version = (await versions(two))["fake-1"]
    assert version.keys() >= {
        *("id", "state", "model", "model_sha256", "prompt", "prompt_sha256", "adapter", "settings"),
        *("calibration", "parent", "created_at", "rollouts", "loaded", "independent"),
    }
    assert (version["loaded"], version["model_sha256"], version["independent"]) == (True, "f" * 64, True)


async def test_a_declaration_becomes_a_version_and_a_file_that_is_read_again(two: Stage) -> None:
    response = await two.call("POST", "/v1/versions", declared(), who="operator")
    assert response.status_code == 200, response.text
    assert (response.json()["id"], response.json()["state"]) == ("fresh-1", "registered")
    models = two.services.models
    assert isinstance(models, Several)
    assert models.declared == ["fresh-1"]
    written = load_versions(two.files.policies_dir)["fresh-1"]
    assert written.adapter is not None
    assert (await two.call("POST", "/v1/versions", {"id": "fresh-1"})).json() == response.json()
    assert (await two.call("POST", "/v1/versions", declared())).json() == response.json()
    assert (await turn(two, "candidate", version="fresh-1")).status_code == 200


async def test_an_id_alone_reads_the_files_again(two: Stage) -> None:
    missing = await two.call("POST", "/v1/versions", {"id": "late-1"})
    assert missing.status_code == 404
    path = two.files.policies_dir / "versions" / "late.yaml"
    path.write_text(json.dumps(declared("late-1")), encoding="utf-8")
    assert (await two.call("POST", "/v1/versions", {"id": "late-1"})).status_code == 200
    assert "late-1" in await versions(two)


@pytest.mark.parametrize("is_in_a_file", [True, False])
async def test_an_id_never_means_something_else(two: Stage, *, is_in_a_file: bool) -> None:
    await two.call("POST", "/v1/versions", declared())
    path = two.files.policies_dir / "versions" / "fresh-1.yaml"
    before = path.read_text()
    if not is_in_a_file:
        path.unlink()
    response = await two.call("POST", "/v1/versions", declared(reasoning="generated"))
    assert (response.status_code, response.json()["type"]) == (409, "version-exists")
    assert not is_in_a_file or path.read_text() == before


async def test_a_file_may_change_what_was_never_used_and_nothing_else(two: Stage) -> None:
    await two.call("POST", "/v1/versions", declared())
    path = two.files.policies_dir / "versions" / "fresh-1.yaml"
    for reasoning, status in (("generated", 200), ("both", 409)):
        path.write_text(json.dumps(declared(reasoning=reasoning)), encoding="utf-8")
        assert (await two.call("POST", "/v1/versions", {"id": "fresh-1"})).status_code == status
        assert (await versions(two))["fresh-1"]["settings"]["reasoning"] == "generated"
        await turn(two, "candidate", version="fresh-1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "id"),
        ({}, "id"),
        ({"id": 7}, "id"),
        (declared("Not An Id"), "id"),
        (declared(prompt="prompts/none.md"), "prompt"),
        (declared(prompt="../../etc/passwd"), "prompt"),
        (declared(prompt="a\x00b"), "prompt"),
        (declared(adapter={"file": "versions/none.gguf"}), "adapter.file"),
        (declared(adapter={"file": "/etc/hostname"}), "adapter.file"),
        (declared(adapter={"file": "versions/adapter.gguf", "sha256": "0" * 64}), "adapter.sha256"),
        (declared(model={"path": "versions/none.gguf"}), "model.path"),
        (declared(limits={"margin_at_least": 2}), "limits.margin_at_least"),
        (declared(colour="blue"), "colour"),
        (declared(prompt="p" * 300), "prompt"),
        (declared(prompt="versions"), "prompt"),
        (declared(prompt="versions/adapter.gguf"), ""),
        (declared(prompt=7), "prompt"),
        (declared(adapter="versions/adapter.gguf"), "adapter"),
        (declared(model=None), "model"),
        (declared(limits=[]), "limits"),
        (declared(decoding={"n_ctx": "many"}), "decoding.n_ctx"),
        (declared(decoding={"n_ctx": 10**30}), "decoding.n_ctx"),
        (declared(parent="\x7f"), ""),
    ],
)
async def test_what_is_wrong_with_a_declaration_is_named(two: Stage, body: Any, field: str) -> None:
    response = await two.call("POST", "/v1/versions", body)
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert set(await versions(two)) == {"fake-1", "fake-2"}


async def test_what_is_wrong_is_said_once_and_without_a_place(two: Stage) -> None:
    template = two.files.policies_dir / "prompts" / "empty.md"
    template.write_text("nothing", encoding="utf-8")
    bodies = (
        declared(limits={"margin_at_least": 2}),
        declared(parent="\x7f"),
        declared(prompt="prompts/empty.md"),
    )
    for body in bodies:
        problem = (await two.call("POST", "/v1/versions", body)).json()
        (error,) = problem["errors"]
        assert "the body" not in problem["detail"]
        assert ("empty.md" in problem["detail"]) is (body["prompt"] == "prompts/empty.md")
        assert problem["detail"] == ": ".join(filter(None, (error["field"], error["message"])))


@pytest.mark.parametrize(
    "name", [b'"\\ud800"', b'"\xed\xa0\x80"', b'"fresh-1", "prompt": ' + b"1" * 5_000, b"[" * 50_000]
)
async def test_a_body_that_is_no_json_is_refused_whatever_it_is(two: Stage, name: bytes) -> None:
    response = await two.call("POST", "/v1/versions", content=b'{"id": ' + name + b"}")
    assert response.status_code in (400, 422), response.text


async def test_what_would_leave_the_next_start_without_a_choice_names_its_parent(two: Stage) -> None:
    del two.services.registry.known["fake-2"]
    response = await two.call("POST", "/v1/versions", declared())
    assert [error["field"] for error in response.json()["errors"]] == ["parent"]
    assert (await two.call("POST", "/v1/versions", declared(parent="fake-1"))).status_code == 200


async def test_a_pinned_file_is_the_pinned_one(two: Stage) -> None:
    pinned = {"file": "versions/adapter.gguf", "sha256": hashlib.sha256(b"adapter").hexdigest()}
    assert (await two.call("POST", "/v1/versions", declared(adapter=pinned))).status_code == 200


async def test_a_version_is_stored_though_no_file_can_be_written(two: Stage) -> None:
    in_the_way = two.files.policies_dir / "versions" / f"fresh-1.{os.getpid()}.tmp"
    in_the_way.mkdir()
    assert (await two.call("POST", "/v1/versions", declared())).status_code == 200
    assert "fresh-1" in await versions(two)


async def test_a_lever_answers_with_the_rollout_and_its_transition(two: Stage) -> None:
    response = await turn(two, "candidate", version="fake-2", who="operator", expected_revision=1)
    document = response.json()
    assert (document["candidate"], document["version"], document["revision"]) == ("fake-2", "fake-1", 2)
    assert (document["transition"]["kind"], document["transition"]["to"]["candidate"]) == (
        "candidate",
        "fake-2",
    )


async def test_an_activation_whose_gate_is_not_met_is_409_with_the_whole_gate(two: Stage) -> None:
    await two.enter("read", Phase.ADVISORY)
    await turn(two, "candidate", version="fake-2")
    response = await turn(two, "activate")
    problem = response.json()
    assert (response.status_code, problem["type"]) == (409, "gate-not-met")
    gate = await two.call("GET", "/v1/rollouts/read/gate?to=version")
    assert problem["gate"] == gate.json()
    assert {condition["name"] for condition in problem["gate"]["conditions"]} >= {"agreement", "override"}


async def test_above_shadow_only_an_approver_activates(two: Stage) -> None:
    await two.enter("read", Phase.ADVISORY)
    await turn(two, "candidate", version="fake-2")
    response = await turn(two, "activate", who="operator")
    assert (response.status_code, response.json()["type"]) == (403, "role")
    assert (await turn(two, "activate", who="approver")).status_code == 409


async def test_experiments_tell_how_a_candidate_does(two: Stage) -> None:
    await turn(two, "candidate", version="fake-2", mode="split", share=0.25)
    [found] = (await two.call("GET", "/v1/experiments")).json()["experiments"]
    assert (found["rollout"], found["active"], found["candidate"]) == ("read", "fake-1", "fake-2")
    assert (found["mode"], found["share"]) == ("split", 0.25)
    assert found["paired"].keys() == {"agreement", "verdicts"}
    assert found["gate"]["outcome"] == "insufficient"


@pytest.mark.parametrize("body", [{"action": "bless"}, {"action": "revert", "reason": " "}, {"mode": "both"}])
async def test_a_wish_that_makes_no_sense_is_refused(two: Stage, body: dict[str, Any]) -> None:
    response = await two.call("POST", "/v1/rollouts/read/version", {"reason": "r", **body})
    assert response.status_code in (400, 422)
    assert two.state("read").revision == 1
