"""Does `phasegate validate` judge a real model, with and without a server?"""

import json
from pathlib import Path

import pytest

from app.cli.validate import places
from app.engines.model.version import choose_version, load_versions
from app.settings import load_settings
from tests.cli.conftest import Run
from tests.peer import Peer, Reply

POLICIES = Path(__file__).parents[2] / "policies"
EMBEDDED = choose_version(load_versions(POLICIES)).id


def line(name: str, **changes: str) -> str:
    """A case that passes whatever the answer, as long as there is one."""
    situation = {
        "action_type": "read",
        "actor_role": "member",
        "actor_id": "ann",
        "t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8},
        **changes,
    }
    accept = ["require_attestation", "deny"]
    case = {"id": name, "tags": ["easy"], "situation": situation, "expected": "allow", "accept": accept}
    return json.dumps({**case, "why": "Because."})


@pytest.fixture
def half(tmp_path: Path) -> str:
    """A suite of one's own, of which any version of the shipped size passes half."""
    path = tmp_path / "half.jsonl"
    path.write_text(line("short") + "\n" + line("endless", details="on and on " * 2_000), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shipped_policies(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(POLICIES))
    monkeypatch.setenv("PHASEGATE_CACHE_DIR", str(cache_dir))


def test_the_shipped_version_is_validated_without_a_server(run: Run, half: str) -> None:
    result = run("validate", EMBEDDED, "--suite", half, "--reasons", "--against", EMBEDDED, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["version"], found["n"], found["passed"], found["suites"]) == (EMBEDDED, 2, 1, ["half"])
    assert [each["id"] for each in found["failures"]] == ["endless"]
    assert found["outcomes"]["oversize"] == 1
    assert found["reasoning"] == {"coverage": 1.0, "n": 1}
    assert found["against"] == {"version": EMBEDDED, "n": 2, "better": [], "worse": [], "other": []}
    assert f"{EMBEDDED}: 1 of 2 passed" in result.stderr


@pytest.mark.parametrize(("above", "code"), [("0.49", 0), ("0.5", 3)])
def test_a_pass_rate_that_is_not_above_the_wanted_one_exits_with_3(
    run: Run, half: str, above: str, code: int
) -> None:
    result = run("validate", EMBEDDED, "--suite", half, "--above", above)
    assert result.exit_code == code
    assert "legacy alone" in result.stdout


def test_a_model_file_of_ones_own_replaces_that_of_the_default_alone(tmp_path: Path, cache_dir: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    settings = load_settings(
        {
            "PHASEGATE_MODEL_PATH": str(file),
            "PHASEGATE_POLICIES_DIR": str(POLICIES),
            "PHASEGATE_CACHE_DIR": str(cache_dir),
        }
    )
    versions = load_versions(POLICIES)
    default = choose_version(versions, model_path=file)
    assert places(default, settings)["model_path"] == file
    assert places(versions[EMBEDDED], settings)["model_path"] is None


def test_an_unknown_version_or_suite_is_named(run: Run) -> None:
    said = run("validate", "none").stderr
    assert "no version 'none'; there are " in said
    assert EMBEDDED in said
    result = run("validate", EMBEDDED, "--suite", "none")
    assert result.exit_code == 1
    assert "no suite 'none'" in result.stderr


def test_recording_is_the_servers(run: Run, peer: Peer) -> None:
    score = {"passed": 1, "pass_rate": 0.5, "wrong_allows": {"low": 1}}
    report = {
        **score, "version": "v1", "n": 2, "lower": 0.1, "unsure": 0, "elapsed_s": 1.0,
        "answered": {"rate": 1.0, "n": 2, "passed": 1, "pass_rate": 0.5},
        "legacy": score, "stricter": score,
        "by_tag": {}, "by_action": {}, "confusion": {"deny>allow": 1}, "calibration": {"ece": 0.1, "brier": 0.2},
        "reasoning": {"coverage": None, "n": 0}, "latency_ms": {"p50": 1.0, "p95": 1.0, "p99": 1.0}, "failures": [],
    }  # fmt: skip
    peer.replies(Reply(200, report))
    result = run("validate", "v1", "--record", "--suite", "core", "--above", "0.5")
    assert result.exit_code == 3
    assert "deny>allow" in result.stdout
    [seen] = peer.seen
    assert (seen.method, seen.path) == ("POST", "/v1/versions/v1/validate")
    assert seen.body == {"suites": ["core"], "against": None, "reasons": False}
