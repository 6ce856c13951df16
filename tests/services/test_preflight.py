"""Does preflight see what would keep a machine from serving?"""

import shutil
from pathlib import Path

import pytest

from app.domain.advisory import Outcome
from app.policy.rollouts import load_rollouts
from app.services import preflight, rehearsal
from app.services.preflight import Check, CheckOutcome, quick_checks
from app.services.rehearsal import model_checks
from app.settings import Settings, load_settings
from app.store.database import Database

POLICIES = Path(__file__).parents[2] / "policies"


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
    assert list(found) == ["python", "data_dir", "disk", "policies", "database", "llama_cpp", "model_file"]
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


def test_a_database_that_does_not_answer_fails(environ: dict[str, str]) -> None:
    away = {**environ, "PHASEGATE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    found = checks(load_settings(away))["database"]
    assert found.outcome is CheckOutcome.FAIL
    assert found.mend


def test_a_wrong_policy_file_fails_with_its_place(environ: dict[str, str], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("*.gguf")))
    (copied / "legacy.yaml").write_text("rules: 7\n", encoding="utf-8")
    found = checks(load_settings({**environ, "PHASEGATE_POLICIES_DIR": str(copied)}))
    assert found["policies"].outcome is CheckOutcome.FAIL
    assert "legacy.yaml" in found["policies"].sentence


def test_a_data_directory_that_cannot_be_made_fails(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = load_settings({**environ, "PHASEGATE_DATA_DIR": str(tmp_path / "file" / "data")})
    found = checks(inside)["data_dir"]
    assert found.outcome is CheckOutcome.FAIL
    assert f"{tmp_path / 'file'} is no directory" in found.sentence


def test_a_database_without_its_directory_fails_with_the_place(environ: dict[str, str]) -> None:
    found = checks(load_settings({**environ, "PHASEGATE_DATABASE_URL": "sqlite:////nowhere/plane.db"}))
    assert found["database"].outcome is CheckOutcome.FAIL
    assert "no directory /nowhere" in found["database"].sentence


def test_a_file_that_is_no_database_fails_with_its_name(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phasegate.db").write_text("a text " * 100, encoding="utf-8")
    found = checks(load_settings(environ))["database"]
    assert found.outcome is CheckOutcome.FAIL
    assert str(tmp_path / "data" / "phasegate.db") in found.sentence


def test_a_file_that_is_no_model_fails(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not one")
    found = checks(load_settings({**environ, "PHASEGATE_MODEL_PATH": str(tmp_path / "model.gguf")}))
    assert found["model_file"].outcome is CheckOutcome.FAIL
    assert "is no GGUF file" in found["model_file"].sentence


def test_wrong_policies_leave_the_model_file_unlooked_for(environ: dict[str, str], tmp_path: Path) -> None:
    found = checks(load_settings({**environ, "PHASEGATE_POLICIES_DIR": str(tmp_path / "nowhere")}))
    assert found["policies"].outcome is CheckOutcome.FAIL
    assert found["model_file"].outcome is CheckOutcome.SKIPPED


def test_a_missing_model_file_fails(environ: dict[str, str]) -> None:
    found = checks(load_settings({**environ, "PHASEGATE_MODEL_PATH": "/nowhere/model.gguf"}))["model_file"]
    assert found.outcome is CheckOutcome.FAIL
    assert "/nowhere/model.gguf" in found.sentence


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


@pytest.mark.parametrize(("drivers", "outcome"), [(("/dev/null",), "pass"), (("/nowhere",), "warning")])
def test_a_gpu_that_was_asked_for_needs_a_driver(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, drivers: tuple[str, ...], outcome: str
) -> None:
    monkeypatch.setattr(preflight, "_GPU_DRIVERS", drivers)
    assert "gpu_driver" not in checks(load_settings(environ))
    asks = load_settings({**environ, "PHASEGATE_MODEL_VERSION": "phi-4-mini-q4-examples-1"})
    assert checks(asks)["gpu_driver"].outcome == outcome


def test_slow_answers_fail_by_the_place_that_gives_them() -> None:
    assert rehearsal._latency([1.0, 6.0], "CPU").outcome is CheckOutcome.PASS
    assert rehearsal._latency([1.0, 6.0], "GPU").outcome is CheckOutcome.FAIL
    assert rehearsal._latency([15.0], "CPU").outcome is CheckOutcome.FAIL


def test_p95_is_held_against_the_tightest_deadline() -> None:
    book = load_rollouts(POLICIES / "rollouts.yaml")
    assert rehearsal._deadlines([0.1] * 19 + [60.0], book).outcome is CheckOutcome.PASS
    assert rehearsal._deadlines([0.1] * 18 + [60.0] * 2, book).outcome is CheckOutcome.FAIL


def test_an_unsure_answer_is_one_and_a_malformed_one_is_none() -> None:
    assert rehearsal._inference([Outcome.OK, Outcome.UNSURE]).outcome is CheckOutcome.PASS
    assert rehearsal._inference([Outcome.OK, Outcome.MALFORMED]).outcome is CheckOutcome.FAIL


@pytest.mark.model
async def test_the_embedded_model_loads_answers_and_is_quick_enough(environ: dict[str, str]) -> None:
    found = {check.name: check for check in await model_checks(load_settings(environ))}
    assert list(found) == ["load", "inference", "latency", "deadlines"]
    assert {check.outcome for check in found.values()} == {CheckOutcome.PASS}
