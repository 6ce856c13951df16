"""Does `phasegate replay` read a database, and say in words and in data what it found?"""

import asyncio
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rich_click as click

from app.cli.replay import Instant
from app.domain.phase import Phase
from app.engines.model.version import choose_version, load_versions
from app.store.database import Database
from tests.cli.conftest import Run
from tests.services.plane import LEGACY, ROLLOUTS, opened

POLICIES = Path(__file__).parents[2] / "policies"
EMBEDDED = choose_version(load_versions(POLICIES)).id
PERIOD = ("--from", "2027-01-15", "--to", "2027-01-16T00:00:00Z")


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policies of a plane that has answered a few situations, and whose server is gone."""
    (tmp_path / "data").mkdir()

    async def record() -> None:
        with closing(Database(f"sqlite:///{tmp_path / 'data' / 'phasegate.db'}")) as database:
            database.migrate()
            async with opened(database, tmp_path) as stage:
                await stage.enter("read", Phase.ENFORCED)
                for legacy, model in (("allow", "allow"), ("allow", "deny"), ("deny", "allow")):
                    await stage.decide(legacy=legacy, model=model, team_context=legacy + model)
                await stage.decide("admin_action")
                await stage.judge_all("deny")

    asyncio.run(record())
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(tmp_path / "policies"))
    return tmp_path / "policies"


def test_what_was_recorded_is_told_as_data(run: Run, plane: Path) -> None:
    result = run("replay", *PERIOD, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {"from", "to", "version", "phase", "rollouts", "erased", "unasked"} < set(found)
    assert (found["decisions"], found["changed"]) == (4, 0)
    assert [row["rollout"] for row in found["rollouts"]] == ["read", "admin"]
    assert "4 decisions answered again: 0 otherwise" in result.stderr


def test_stricter_files_are_tried_and_the_difference_is_named(run: Run, plane: Path) -> None:
    stricter = plane / "stricter.yaml"
    stricter.write_text(ROLLOUTS.replace("combine: model", "combine: stricter"), encoding="utf-8")
    result = run("replay", *PERIOD, "--policies", str(stricter), "--rollout", "read")
    assert result.exit_code == 0
    assert "3 decisions answered again: 1 otherwise, 0 of them milder" in result.stderr
    tables = [table.splitlines() for table in result.stdout.split("\n\n")]
    assert [table[0] for table in tables[1:]] == ["confusion", "examples"]
    assert tables[1][2].split() == ["read", "require_attestation", "deny", "1"]
    assert "admin" not in result.stdout


def test_a_whole_directory_brings_its_legacy_rules_along(run: Run, plane: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rollouts.yaml").write_text(ROLLOUTS, encoding="utf-8")
    (other / "legacy.yaml").write_text(
        LEGACY.replace("decision: allow}", "decision: deny}"), encoding="utf-8"
    )
    found = json.loads(run("replay", *PERIOD, "--policies", str(other), "--json").stdout)
    assert next(row["model_confusion"] for row in found["rollouts"]) == {"allow>allow": 2, "deny>deny": 1}
    assert {row["rollout"]: row["stricter"] for row in found["rollouts"]} == {"read": 1, "admin": 1}


def test_another_phase_is_tried_without_being_entered(run: Run, plane: Path) -> None:
    found = json.loads(run("replay", *PERIOD, "--phase", "shadow", "--json").stdout)
    assert found["phase"] == "shadow"
    [read, _] = found["rollouts"]
    assert read["confusion"] == {"allow>allow": 1, "deny>allow": 1, "require_attestation>deny": 1}
    assert read["examples"][0]["decision"] == {"then": "deny", "now": "allow"}, "what got milder comes first"


def test_a_real_version_answers_what_another_one_had_answered(
    run: Run, plane: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHASEGATE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(POLICIES))
    result = run("replay", *PERIOD, "--version", EMBEDDED, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["version"], found["decisions"]) == (EMBEDDED, 4)
    latencies = [row["now"]["latency_ms"]["p95"] for row in found["rollouts"]]
    assert all(latency > 0 for latency in latencies)
    assert "model confusion" in run("replay", *PERIOD, "--version", EMBEDDED).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--from", "yesterday"), 2, "is not a time such as 2026-11-01"),
        (("--from", "1d", "--to", "2d"), 2, "--from must lie before --to"),
        ((), 2, "Missing option '--from'"),
        (("--from", "7d", "--version", "none"), 1, "no version 'none'; there are fake-1"),
        (("--from", "7d", "--rollout", "none"), 1, "no rollout 'none'"),
        (("--from", "7d", "--policies", "none"), 2, "does not exist"),
    ],
)
def test_a_mistake_is_named(run: Run, plane: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run("replay", *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_without_a_database_the_mending_command_is_named(run: Run) -> None:
    result = run("replay", "--from", "7d")
    assert result.exit_code == 1
    assert "phasegate db migrate" in result.stderr


def test_times_are_dates_instants_or_so_long_ago() -> None:
    def read(text: str) -> datetime:
        return Instant().convert(text, None, None)

    assert read("2026-11-01") == datetime(2026, 11, 1, tzinfo=UTC)
    assert read("2026-11-01T12:00:00+02:00") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(hours=36) - read("36h")) < timedelta(minutes=1)
    with pytest.raises(click.BadParameter):
        read("7 d")
