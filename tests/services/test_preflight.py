"""Does preflight see what would keep a machine from serving?"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.advisory import Outcome
from app.domain.clock import to_us
from app.domain.phase import Phase
from app.domain.rollout import RolloutState
from app.engines.model.version import choose_version, load_versions
from app.policy.rollouts import book_of, load_rollouts
from app.services import model_needs, preflight
from app.services.model_needs import Check, CheckOutcome
from app.services.preflight import model_checks, quick_checks
from app.services.versions import register_at_start
from app.settings import Settings, load_settings
from app.store.database import Database
from app.store.rollouts import insert_state
from app.store.transaction import transaction
from tests.peer import Peer, Reply, serving

POLICIES = Path(__file__).parents[2] / "policies"
EMBEDDED = choose_version(load_versions(POLICIES)).id


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PHASEGATE_DATA_DIR": str(tmp_path / "data"),
        "PHASEGATE_CACHE_DIR": str(tmp_path / "cache"),
        "PHASEGATE_POLICIES_DIR": str(POLICIES),
    }


def checks(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in quick_checks(settings)}


def test_a_machine_as_it_should_be_passes(environ: dict[str, str]) -> None:
    found = checks(load_settings(environ))
    machine = ["python", "data_dir", "disk", "policies", "database"]
    assert list(found) == [*machine, "llama_cpp", "model_file", "decoding", "cache", "versions"]
    assert not [check for check in found.values() if check.outcome is CheckOutcome.FAIL]
    model = found["model_file"]
    assert model.value == model.limit
    assert "MiB" in model.sentence


def test_looking_creates_no_database(environ: dict[str, str], tmp_path: Path) -> None:
    assert checks(load_settings(environ))["database"].outcome is CheckOutcome.PASS
    assert not (tmp_path / "data" / "phasegate.db").exists()


def test_a_database_of_another_schema_says_what_mends_it(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phasegate.db").touch()
    found = checks(load_settings(environ))["database"]
    assert (found.outcome, found.mend) == (CheckOutcome.WARNING, "phasegate db migrate")


def test_a_migrated_database_passes(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    settings = load_settings(environ)
    database = Database(settings.database_url)
    database.migrate()
    database.close()
    assert checks(settings)["database"].value == "sqlite"


def test_a_wrong_policy_file_fails_with_its_place(environ: dict[str, str], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("*.gguf")))
    (copied / "legacy.yaml").write_text("rules: 7\n", encoding="utf-8")
    found = checks(load_settings({**environ, "PHASEGATE_POLICIES_DIR": str(copied)}))
    assert found["policies"].outcome is CheckOutcome.FAIL
    assert "legacy.yaml" in found["policies"].sentence


@pytest.mark.parametrize(
    ("name", "value", "check", "words"),
    [
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "database", ""),
        ("DATABASE_URL", "sqlite:////nowhere/plane.db", "database", "no directory /nowhere"),
        ("DATABASE_URL", "sqlite:///{}/file", "database", "/file"),
        ("DATA_DIR", "{}/file/data", "data_dir", "/file is no directory"),
        ("MODEL_PATH", "{}/file", "model_file", "is no GGUF file"),
        ("MODEL_PATH", "/nowhere/model.gguf", "model_file", "/nowhere/model.gguf"),
    ],
)
def test_what_is_not_there_or_something_else_fails_with_its_place(
    environ: dict[str, str], tmp_path: Path, name: str, value: str, check: str, words: str
) -> None:
    (tmp_path / "file").write_text("a text " * 100, encoding="utf-8")
    found = checks(load_settings({**environ, f"PHASEGATE_{name}": value.format(tmp_path)}))[check]
    assert found.outcome is CheckOutcome.FAIL
    assert words in found.sentence
    assert found.mend


def test_wrong_policies_leave_the_model_file_unlooked_for(environ: dict[str, str], tmp_path: Path) -> None:
    found = checks(load_settings({**environ, "PHASEGATE_POLICIES_DIR": str(tmp_path / "nowhere")}))
    assert found["policies"].outcome is CheckOutcome.FAIL
    assert found["model_file"].outcome is CheckOutcome.SKIPPED


async def test_a_model_that_is_switched_off_is_not_looked_for(environ: dict[str, str]) -> None:
    settings = load_settings({**environ, "PHASEGATE_MODEL": "off"})
    assert checks(settings)["model_file"].outcome is CheckOutcome.SKIPPED
    assert {check.outcome for check in await model_checks(settings)} == {CheckOutcome.SKIPPED}


@pytest.mark.parametrize(
    ("free_gib", "outcome"), [(5, CheckOutcome.PASS), (4, CheckOutcome.WARNING), (0, CheckOutcome.FAIL)]
)
def test_little_room_warns_and_none_fails(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, free_gib: int, outcome: CheckOutcome
) -> None:
    usage = shutil._ntuple_diskusage(2**40, 0, free_gib * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert checks(load_settings(environ))["disk"].outcome is outcome


PRODUCTION = "phi-4-mini-q4-examples-1"


def asking_for_gpu(environ: dict[str, str], policies: Path, *, layers: int) -> Settings:
    shutil.copytree(POLICIES, policies, ignore=shutil.ignore_patterns("*.gguf"))
    path = policies / "versions" / "phi-4-mini.yaml"
    text = path.read_text(encoding="utf-8")
    assert "n_gpu_layers: -1" in text
    path.write_text(text.replace("n_gpu_layers: -1", f"n_gpu_layers: {layers}"), encoding="utf-8")
    return load_settings(
        {**environ, "PHASEGATE_POLICIES_DIR": str(policies), "PHASEGATE_MODEL_VERSION": PRODUCTION}
    )


@pytest.mark.parametrize(("layers", "without"), [(-1, CheckOutcome.WARNING), (20, CheckOutcome.FAIL)])
def test_a_gpu_that_was_asked_for_needs_a_driver_and_a_library_built_for_it(
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: int,
    without: CheckOutcome,
) -> None:
    settings = asking_for_gpu(environ, tmp_path / "policies", layers=layers)
    version = load_versions(settings.policies_dir)[PRODUCTION]
    for path, offloaded, outcome in (("/nowhere", 0, without), ("/dev/null", 31, CheckOutcome.PASS)):
        monkeypatch.setattr(model_needs, "_GPU_DRIVERS", (path,))
        [loaded] = preflight._gpu(version, offloaded, "GPU")
        assert (checks(settings)["gpu_driver"].outcome, loaded.outcome) == (outcome, outcome)
        assert ("GGML_CUDA" in (loaded.mend or "")) == (outcome is not CheckOutcome.PASS)


def test_no_gpu_is_looked_for_where_none_is_asked_for(environ: dict[str, str]) -> None:
    assert "gpu_driver" not in checks(load_settings(environ))
    assert preflight._gpu(choose_version(load_versions(POLICIES)), 0, "CPU") == []


async def test_a_worker_that_dies_before_it_has_loaded_fails_with_its_words_and_what_mends_it(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'libgomp.so.1: cannot open shared object file' >&2; exit 1\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    found = {check.name: check for check in await model_checks(load_settings(environ))}
    assert found["load"].outcome is CheckOutcome.FAIL
    assert "libgomp.so.1" in found["load"].sentence
    assert "--force-reinstall" in (found["load"].mend or "")


def test_no_room_for_the_copy_fails_and_a_copy_that_is_there_needs_none(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings(environ)
    usage = shutil._ntuple_diskusage(2**40, 0, 2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = checks(settings)
    assert found["cache"].outcome is CheckOutcome.FAIL
    (tmp_path / "cache" / f"{str(found['model_file'].value)[:16]}-q8_0.gguf").touch()
    assert checks(settings)["cache"].outcome is CheckOutcome.PASS


@pytest.mark.parametrize(("phi", "outcome"), [("previous", "warning"), (None, "pass")])
def test_a_version_in_use_whose_file_is_missing_warns_and_serves(
    environ: dict[str, str], tmp_path: Path, phi: str | None, outcome: str
) -> None:
    (tmp_path / "data").mkdir()
    settings = load_settings(environ)
    database = Database(settings.database_url)
    database.migrate()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    state = RolloutState("read", Phase.SHADOW, 1.0, 1, 1, at, "another", previous=PRODUCTION if phi else None)
    with transaction(database, "test", now_us=to_us(at)) as tx:
        insert_state(tx, state, settings_hash="0")
    database.close()
    found = checks(settings)["versions"]
    assert found.outcome == outcome
    assert (PRODUCTION in found.sentence) == (phi is not None)


def test_a_version_in_use_that_was_changed_fails_as_the_start_would(
    environ: dict[str, str], tmp_path: Path
) -> None:
    policies = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    (tmp_path / "data").mkdir()
    settings = load_settings({**environ, "PHASEGATE_POLICIES_DIR": str(policies)})
    database = Database(settings.database_url)
    database.migrate()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with transaction(database, "test", now_us=to_us(at)) as tx:
        register_at_start(tx, load_versions(policies), policies_dir=policies, now=at)
        state = RolloutState("read", Phase.SHADOW, 1.0, 1, 1, at, EMBEDDED)
        insert_state(tx, state, settings_hash="0")
    database.close()
    assert checks(settings)["versions"].outcome == "pass"
    prompt = policies / "prompts" / "smollm2-policy.md"
    prompt.write_text(f"{prompt.read_text(encoding='utf-8')} ", encoding="utf-8")
    found = checks(settings)["versions"]
    assert found.outcome == "fail"
    assert f"{EMBEDDED} is registered with other content (see prompts/smollm2-policy.md)" in found.sentence


@pytest.fixture
def elsewhere(environ: dict[str, str], tmp_path: Path, peer: Peer) -> dict[str, str]:
    """The production version, asked on a server."""
    policies = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("*.gguf")))
    path = policies / "versions" / "phi-4-mini.yaml"
    text, place = path.read_text(encoding="utf-8"), "  path: versions/Phi-4-mini-instruct-Q4_K_M.gguf"
    assert place in text
    remote = f"  remote: {{url: '{peer.url}/v1', model: phi, key_env: PHI_KEY}}"
    path.write_text(text.replace(place, remote), encoding="utf-8")
    return {**environ, "PHASEGATE_POLICIES_DIR": str(policies), "PHASEGATE_MODEL_VERSION": PRODUCTION}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as found:
        found.answer = lambda seen: Reply(
            body={"data": [{"id": "phi"}]}
            if seen.method == "GET"
            else {"choices": [{"text": " deny", "logprobs": {"top_logprobs": [{" deny": -0.01}]}}]}
        )
        yield found


def test_a_server_without_its_key_fails_by_the_variables_name(elsewhere: dict[str, str]) -> None:
    found = checks(load_settings(elsewhere))["model_server"]
    assert found.outcome is CheckOutcome.FAIL
    assert "PHI_KEY" in found.sentence


async def test_a_model_on_a_server_is_measured_there(
    elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHI_KEY", "secret")
    settings = load_settings(elsewhere)
    assert "llama_cpp" not in checks(settings)
    found = {check.name: check for check in await model_checks(settings)}
    assert {check.outcome for check in found.values()} == {CheckOutcome.PASS}
    assert "on the server" in found["load"].sentence


async def test_a_server_that_is_away_fails_to_load(
    elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch, peer: Peer
) -> None:
    monkeypatch.setenv("PHI_KEY", "secret")
    peer.replies(Reply(500))
    found = {check.name: check for check in await model_checks(load_settings(elsewhere))}
    assert found["load"].outcome is CheckOutcome.FAIL
    assert "500" in found["load"].sentence
    assert found["deadlines"].outcome is CheckOutcome.SKIPPED


def test_slow_answers_fail_by_the_place_that_gives_them() -> None:
    assert preflight._latency([1.0, 6.0], "CPU").outcome is CheckOutcome.PASS
    assert preflight._latency([1.0, 6.0], "GPU").outcome is CheckOutcome.FAIL
    assert preflight._latency([15.0], "CPU").outcome is CheckOutcome.FAIL


def test_p95_is_held_against_every_deadline_and_what_misses_one_is_named() -> None:
    book = load_rollouts(POLICIES / "rollouts.yaml")
    assert preflight._deadlines([0.1] * 19 + [60.0], book).outcome is CheckOutcome.PASS
    assert preflight._deadlines([0.1] * 18 + [60.0] * 2, book).outcome is CheckOutcome.FAIL
    admin = next(policy for policy in book.policies if policy.name == "admin")
    assert admin.ceiling is Phase.ADVISORY
    hurried = [replace(one, deadline_ms=50) if one is admin else one for one in book.policies]
    found = preflight._deadlines([0.1] * 20, book_of(hurried))
    assert found.outcome is CheckOutcome.FAIL
    assert "too late for admin (0.05 s)" in found.sentence
    assert "deadline_ms of admin above 100" in (found.mend or "")


def test_an_unsure_answer_is_one_and_a_malformed_one_is_none() -> None:
    assert preflight._inference([Outcome.OK, Outcome.UNSURE]).outcome is CheckOutcome.PASS
    assert preflight._inference([Outcome.OK, Outcome.MALFORMED]).outcome is CheckOutcome.FAIL


@pytest.mark.model
async def test_the_embedded_model_loads_answers_and_is_quick_enough(environ: dict[str, str]) -> None:
    found = {check.name: check for check in await model_checks(load_settings(environ))}
    assert list(found) == ["load", "inference", "latency", "deadlines"]
    assert {check.outcome for check in found.values()} == {CheckOutcome.PASS}
