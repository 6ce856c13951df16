"""Do the commands that need no server work without one?"""

import json
import shutil
from pathlib import Path

import pytest

from app.cli.serve import welcome
from app.settings import Settings, load_settings
from app.store.database import Database
from tests.cli.conftest import Run

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped policy files, to be spoilt."""
    copied = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("*.gguf")))
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(copied))
    return copied


def test_settings_are_listed_as_data(run: Run) -> None:
    rows = json.loads(run("settings", "--json").stdout)
    assert len(rows) == len(Settings.__struct_fields__)
    assert {"name", "value", "default", "what"} == set(rows[0])
    assert "PHASEGATE_RETENTION_DAYS" in run("settings").stdout


def test_a_database_is_created_and_found(run: Run, tmp_path: Path) -> None:
    missing = run("db", "current")
    assert missing.exit_code == 1
    assert "phasegate db migrate" in missing.stderr
    assert run("db", "migrate").exit_code == 0
    assert run("db", "migrate").exit_code == 0, "twice does no harm"
    assert json.loads(run("db", "current", "--json").stdout) == {"dialect": "sqlite", "current": True}
    assert (tmp_path / "data" / "phasegate.db").exists()


def test_an_untouched_history_verifies(run: Run) -> None:
    run("db", "migrate")
    result = run("audit", "verify", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True


def test_a_cut_history_exits_1_and_says_where(run: Run, tmp_path: Path) -> None:
    run("db", "migrate")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'phasegate.db'}")
    with database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO chain (instance, seq, created_us, entries, previous, hash) VALUES ('a', 2, 0, '[]', 'x', 'y')"
        )
    database.close()
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "a: batch 2" in result.stderr


def test_the_shipped_policies_are_right(run: Run, policies: Path) -> None:
    found = json.loads(run("policies", "check", "--json").stdout)
    assert found["rollouts"][0] == "read"
    assert found["rollouts"][-1] == "other"


def test_a_typo_is_named_by_file_line_and_key(run: Run, policies: Path) -> None:
    file = policies / "rollouts.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("    ceiling: enforced", "    cieling: enforced", 1), encoding="utf-8")
    line = text[: text.index("    ceiling: enforced")].count("\n") + 1
    result = run("policies", "check")
    assert result.exit_code == 1
    assert f"{file}:{line}: " in result.stderr
    assert "cieling" in result.stderr


def test_the_welcome_can_be_pasted() -> None:
    text = welcome(load_settings({"PHASEGATE_PORT": "9001", "PHASEGATE_DATA_DIR": "/srv/pg"}))
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("curl ")]
    assert len(commands) == 3
    assert all("$(cat /srv/pg/admin.key)" in command for command in commands)
    assert all("http://127.0.0.1:9001/" in command for command in commands)


def test_a_data_directory_with_a_blank_can_be_pasted_too() -> None:
    text = welcome(load_settings({"PHASEGATE_DATA_DIR": "/srv/my plane"}))
    assert "$(cat '/srv/my plane/admin.key')" in text


def test_the_welcome_does_not_print_a_preset_key() -> None:
    key = "preset-" + "k" * 40
    text = welcome(load_settings({"PHASEGATE_ADMIN_KEY": key}))
    assert key not in text
    assert "$PHASEGATE_ADMIN_KEY" in text
