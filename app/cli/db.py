"""Is the database ready, and was what it holds changed or cut?"""

import math
from contextlib import closing

import msgspec
import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import emit, emit_facts, json_option, say, tell
from app.settings import load_settings
from app.store.chain import verify as verify_chain
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


@click.group()
def audit() -> None:
    """Verify the history, beside a running server or without one."""


@audit.command()
@json_option
def verify(*, as_json: bool) -> None:
    """Compare every chained row with its hash. Exit code 1 if one does not fit."""
    with closing(Database(load_settings().database_url)) as database:
        database.check_schema()
        with database.read(at_most_s=math.inf) as connection:
            found = verify_chain(connection)
    facts = {"ok": found.ok, **msgspec.to_builtins(found)}
    counts = [(name, value) for name, value in facts.items() if name not in ("problems", "heads")]
    heads = [(f"head {instance}", digest) for instance, digest in found.heads.items()]
    emit(facts, lambda _: emit_facts([*counts, *heads]), as_json=as_json)
    for problem in found.problems:
        say(problem)
    if not found.ok:
        raise SystemExit(EXIT_ERROR)
