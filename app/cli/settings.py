"""What is each setting, and what does it do?"""

import msgspec
import rich_click as click

from app.cli.output import emit_json, emit_table, json_option
from app.settings import describe, load_settings


@click.command()
@json_option
def settings(*, as_json: bool) -> None:
    """List every setting with its value; secrets are masked."""
    rows = describe(load_settings())
    if as_json:
        emit_json(msgspec.to_builtins(rows))
        return
    emit_table(
        ("NAME", "VALUE", "DEFAULT", "WHAT IT DOES"),
        [(row.name, row.value, row.default, row.what) for row in rows],
    )
