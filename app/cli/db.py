"""Is the database ready, and how does it become so?"""

import rich_click as click

from app.cli.output import emit_json, json_option, say
from app.settings import load_settings
from app.store.database import Database


@click.group()
def db() -> None:
    """Create or upgrade the database, or say where it stands."""


@db.command()
def migrate() -> None:
    """Create the database or bring its schema up to date."""
    settings = load_settings()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database_url)
    try:
        database.migrate()
    finally:
        database.close()
    say("the schema is this program's")


@db.command()
@json_option
def current(*, as_json: bool) -> None:
    """Say whether the schema is this program's. Exit code 1 if it is not."""
    database = Database(load_settings().database_url)
    try:
        database.check_schema()
    finally:
        database.close()
    if as_json:
        emit_json({"dialect": database.dialect, "current": True})
    say(f"{database.dialect}: the schema is this program's")
