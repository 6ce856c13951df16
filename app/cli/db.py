"""Is the database ready, and how does it become so?"""

from contextlib import closing

import rich_click as click

from app.cli.output import json_option, say, tell
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
    with closing(Database(settings.database_url)) as database:
        database.migrate()
    say("the schema is this program's")


@db.command()
@json_option
def current(*, as_json: bool) -> None:
    """Say whether the schema is this program's. Exit code 1 if it is not."""
    with closing(Database(load_settings().database_url)) as database:
        database.check_schema()
    facts = {"dialect": database.dialect, "current": True}
    tell(facts, f"{database.dialect}: the schema is this program's", as_json=as_json)
