"""Was the history changed or cut?"""

import math

import msgspec
import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import emit_facts, emit_json, json_option, say
from app.settings import load_settings
from app.store.chain import verify as verify_chain
from app.store.database import Database


@click.group()
def audit() -> None:
    """Verify the history, beside a running server or without one."""


@audit.command()
@json_option
def verify(*, as_json: bool) -> None:
    """Compare every chained row with its hash. Exit code 1 if one does not fit."""
    database = Database(load_settings().database_url)
    try:
        with database.read(at_most_s=math.inf) as connection:
            found = verify_chain(connection)
    finally:
        database.close()
    facts = {"ok": found.ok, **msgspec.to_builtins(found)}
    if as_json:
        emit_json(facts)
    else:
        emit_facts((name, value) for name, value in facts.items() if name != "problems")
    for problem in found.problems:
        say(problem)
    if not found.ok:
        raise SystemExit(EXIT_ERROR)
