"""How do things stand, in one document?"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import rich_click as click

from app.cli.output import say
from app.cli.remote import server
from app.client.wire import Document
from app.services.reports.render import as_html, as_markdown

_DEADLINE_S = 120.0
_FORMS: dict[str, Callable[[Document], str]] = {
    "md": as_markdown,
    "html": as_html,
    "json": partial(json.dumps, ensure_ascii=False),
}


@click.command()
@click.argument("period", type=click.Choice(["daily", "weekly", "monthly"]))
@click.option("--at", help="A day in the period, such as 2027-01-31; the present period by default.")
@click.option("--format", "form", type=click.Choice(["md", "html", "json"]), default="md", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write it to.")
def report(*, period: str, at: str | None, form: str, output: Path | None) -> None:
    """The checklist, every rollout, the disagreements and the next steps of a day, a week or a month."""
    with server(deadline_s=_DEADLINE_S) as client:
        found = client.get(f"/v1/reports/{period}", **({} if at is None else {"at": at}))
    text = _FORMS[form](found)
    if output is None:
        click.echo(text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    say(f"{output}: the {period} report from {found['starts_at'][:10]} on")
