import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.settings import PREFIX
from tests.peer import Peer, serving


class Run(Protocol):
    def __call__(self, *arguments: str, stdin: str | None = None) -> Result: ...


@pytest.fixture(autouse=True)
def only_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHASEGATE_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def run() -> Run:
    """Run a command of `phasegate` in this process."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=stdin, prog_name="phasegate")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """A server that the commands find, with a key."""
    with serving() as running:
        monkeypatch.setenv("PHASEGATE_URL", running.url)
        monkeypatch.setenv("PHASEGATE_KEY", "pg_test")
        yield running
