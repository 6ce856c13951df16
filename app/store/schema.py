"""Is the database's schema this program's, and how does it become so?"""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

import app
from app.errors import StoreUnavailable

_MIGRATIONS = Path(app.__path__[0]).parent / "migrations"
_MIGRATING = 7_305_571  # PostgreSQL's advisory lock: one instance migrates, the others wait


def upgrade(engine: Engine) -> None:
    """Run every migration that is missing, in one transaction."""
    _alembic(engine, lambda config: command.upgrade(config, "head"))


def downgrade(engine: Engine, revision: str) -> None:
    """Undo migrations down to `revision`, in one transaction."""
    _alembic(engine, lambda config: command.downgrade(config, revision))


def check(connection: Connection) -> None:
    """Raises `StoreUnavailable` where the schema is behind or ahead of this program."""
    found = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(_config())
    expected = script.get_current_head()
    if found == expected:
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if found is None or found in known:
        raise StoreUnavailable(
            f"the database is at schema {found or 'none'}, this program needs {expected}: "
            "run `phasegate db migrate`"
        )
    raise StoreUnavailable(
        f"the database is at schema {found}, made by a newer Phasegate than this one ({expected}): "
        "upgrade the program"
    )


def _alembic(engine: Engine, act: Callable[[Config], None]) -> None:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            config = _config()
            config.attributes["connection"] = connection
            act(config)
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
