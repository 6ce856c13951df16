"""Was the history changed or cut?"""

import math
from contextlib import closing
from typing import Any

import msgspec
import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import emit, emit_facts, json_option, say
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
    with closing(Database(load_settings().database_url)) as database:
        database.check_schema()
        with database.read(at_most_s=math.inf) as connection:
            found = verify_chain(connection)
    facts = {"ok": found.ok, **msgspec.to_builtins(found)}
    emit(facts, _show, as_json=as_json)
    for problem in found.problems:
        say(problem)
    if not found.ok:
        raise SystemExit(EXIT_ERROR)


def _show(facts: dict[str, Any]) -> None:
    emit_facts((name, value) for name, value in facts.items() if name != "problems")
