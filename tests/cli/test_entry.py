"""Is the command line quick to look at, and whole?"""

import importlib
import subprocess
import sys

import pytest
import rich_click as click

from app.cli import COMMANDS, exit_code
from app.errors import (
    CeilingReached,
    Conflict,
    GateNotMet,
    NotFound,
    PhasegateError,
    PolicyError,
    RevisionConflict,
    SettingsError,
)
from tests.cli.conftest import Run

HEAVY = {
    "httpx",
    "sqlalchemy",
    "litestar",
    "uvicorn",
    "llama_cpp",
    "asyncio",
    "numpy",
    "cedarpy",
    "apscheduler",
}


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from app.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").stdout
    for name, (_, _, what) in COMMANDS.items():
        assert f" {name} " in shown
        assert what.split()[0] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_under_its_name(run: Run, name: str) -> None:
    module, function, _ = COMMANDS[name]
    command = getattr(importlib.import_module(f"app.cli.{module}"), function)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert run(name, "--help").exit_code == 0


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("rollot")
    assert result.exit_code == 2
    assert "rollouts" in result.stderr, "the command that was meant"


def test_a_wrong_setting_is_a_usage_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEGATE_PROT", "1")
    result = run("settings")
    assert result.exit_code == 2
    assert result.stderr == "phasegate: PHASEGATE_PROT: is not a setting; did you mean PHASEGATE_PORT?\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("rollout", "x"), 1),
        (PolicyError("f", 1, "k", "m"), 1),
        (SettingsError("N", "m"), 2),
        (GateNotMet({"sentence": "s"}), 3),
        (CeilingReached("admin", "advisory"), 4),
        (RevisionConflict(1, 2), 5),
        (Conflict("already-running", "m"), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_has_its_exit_code(error: PhasegateError, code: int) -> None:
    assert exit_code(error) == code
