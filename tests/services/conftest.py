"""On which database does a use case run?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.phase import Phase
from app.store.database import Database
from tests.services.plane import Stage, opened


@pytest.fixture
async def stage(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server on SQLite."""
    async with opened(sqlite_database, tmp_path) as server:
        yield server


@pytest.fixture
async def any_stage(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server on each kind of database in turn: for what leans on the database's own locks and types."""
    async with opened(database, tmp_path) as server:
        yield server


@pytest.fixture
async def enforced(stage: Stage) -> Stage:
    """Every rollout that may be is enforced for everybody."""
    for name in ("read", "write", "deploy"):
        await stage.enter(name, Phase.ENFORCED)
    return stage
