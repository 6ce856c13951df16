"""Does `phasegate model` say what runs here, and how it would run faster?"""

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from app.cli import EXIT_CONFLICT, EXIT_ERROR
from app.cli import model as command
from app.engines.model.bench import Bench, Findings
from app.engines.model.local import LocalModel
from app.engines.model.tuning import Trial
from app.engines.model.version import load_versions
from tests.cli.conftest import Run

POLICIES = Path(__file__).parents[2] / "policies"
EMBEDDED = "smollm2-135m-q8-policy-2"
DECLARED = Trial(
    layout="q8_0",
    merged=False,
    threads=1,
    ubatch=512,
    flash_attention=True,
    situations=60,
    speedup=1.0,
    decisions_per_s=10.0,
    differ=0.0,
    moved=0.02,
)
FASTER = msgspec.structs.replace(DECLARED, merged=True, speedup=1.3, decisions_per_s=13.0)
TUNING = msgspec.structs.replace(DECLARED, ubatch=256, speedup=1.1, decisions_per_s=11.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHASEGATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(copied))
    return copied


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Bench]:
    """The benches that ran: each finds a merged copy faster without measuring."""
    ran: list[Bench] = []

    class Known(Bench):
        def run(self) -> Findings:
            ran.append(self)
            return Findings(
                version=EMBEDDED,
                cores=1,
                settings=[DECLARED],
                layouts=[DECLARED, FASTER],
                tuning=TUNING,
                layout=FASTER,
            )

    monkeypatch.setattr(command, "Bench", Known)
    return ran


def test_show_names_every_file_with_its_hash(run: Run, cache: Path) -> None:
    found = json.loads(run("model", "show", "--json").stdout)
    assert found["version"] == EMBEDDED
    files = {each["file"]: each for each in found["files"]}
    assert set(files) == {"model", "adapter", "copy"}
    assert files["copy"]["state"] == "not made yet"
    assert len(files["model"]["sha256"]) == 64
    assert found["tunings"] == []
    assert "not tuned" in run("model", "show").stderr


def test_a_copy_that_was_made_is_found_as_made_until_it_is_damaged(run: Run, cache: Path) -> None:
    with LocalModel.open(load_versions(POLICIES)[EMBEDDED], policies_dir=POLICIES, cache_dir=cache):
        pass
    copy = next(
        each for each in json.loads(run("model", "show", "--json").stdout)["files"] if each["file"] == "copy"
    )
    assert copy["state"] == "as made"
    with Path(copy["path"]).open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    assert "changed: will be made anew" in run("model", "show").stdout


@pytest.mark.usefixtures("measured")
def test_a_tuning_is_kept_and_shown(run: Run) -> None:
    before = os.sched_getaffinity(0)
    assert run("model", "tune").exit_code == 0
    assert os.sched_getaffinity(0) == before
    (kept,) = json.loads(run("model", "show", "--json").stdout)["tunings"]
    assert (kept["ubatch"], kept["decisions_per_s"]) == (256, 11.0)


@pytest.mark.usefixtures("measured")
def test_a_faster_layout_is_printed_and_not_written(run: Run, policies: Path) -> None:
    before = load_versions(policies)
    result = run("model", "tune")
    assert "merge: true" in result.stdout
    assert load_versions(policies) == before


@pytest.mark.usefixtures("measured")
def test_a_written_layout_is_a_version_that_names_its_parent(run: Run, policies: Path) -> None:
    found = json.loads(run("model", "tune", "--write", "--json").stdout)
    versions = load_versions(policies)
    child = versions[f"{EMBEDDED}-q8_0-merged"]
    assert found["written"] == child.origin
    assert child.parent == EMBEDDED
    assert child.adapter
    assert child.adapter.merge
    assert child.limits == versions[EMBEDDED].limits
    assert json.loads(run("model", "show", "--json").stdout)["version"] == EMBEDDED, "the start is unmoved"
    assert run("model", "tune", EMBEDDED, "--write").exit_code == EXIT_CONFLICT


def test_it_is_asked_what_the_suites_ask(run: Run, policies: Path, measured: list[Bench]) -> None:
    suite = policies / "suites" / "core.jsonl"
    first = suite.read_text(encoding="utf-8").splitlines()[0]
    for path in suite.parent.glob("*.jsonl"):
        path.unlink()
    assert "a built-in handful" in run("model", "tune").stderr
    suite.write_text(first + "\n", encoding="utf-8")
    run("model", "tune")
    assert [len(bench.situations) for bench in measured] == [8, 1]


def test_an_unknown_version_is_named(run: Run) -> None:
    result = run("model", "show", "nobody")
    assert result.exit_code == EXIT_ERROR
    assert "nobody" in result.stderr


def test_a_version_that_runs_elsewhere_has_no_files_here(run: Run, policies: Path) -> None:
    text = (policies / "versions" / "phi-4-mini.yaml").read_text(encoding="utf-8")
    remote = "remote: {url: 'http://127.0.0.1:9/v1', model: phi}"
    text = text.replace("path: versions/Phi-4-mini-instruct-Q4_K_M.gguf", remote).replace(
        "id: phi", "id: far"
    )
    (policies / "versions" / "far.yaml").write_text(text, encoding="utf-8")
    result = run("model", "show", "far-4-mini-q4-examples-1")
    assert result.exit_code == EXIT_ERROR
    assert "model.remote" in result.stderr


def test_a_measurement_in_little_time_still_compares_what_can_be_asked_with_the_original(
    run: Run, policies: Path
) -> None:
    suite = policies / "suites" / "core.jsonl"
    first, *rest = suite.read_text(encoding="utf-8").splitlines()
    long = json.loads(first)
    long["situation"]["details"] = "word " * 5000
    for path in suite.parent.glob("*.jsonl"):
        path.unlink()
    suite.write_text("\n".join([json.dumps(long), *rest]) + "\n", encoding="utf-8")
    found = json.loads(run("model", "tune", "--seconds", "1", "--json").stdout)
    declared = found["layouts"][0]
    assert (declared["layout"], declared["merged"], declared["situations"]) == ("q8_0", True, 8)
    assert declared["decisions_per_s"] > 0
    assert declared["differ"] <= 0.25
    assert 0 < declared["moved"] < 0.5
    assert found["layout"] is None, "there was no time for another one"
