"""How close is a rollout to rolling back, and when would other limits have done so?"""

from collections.abc import Iterable, Iterator
from typing import TextIO

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit, emit_facts_of, emit_table, json_option
from app.cli.remote import server
from app.client.wire import Document
from app.domain.sequential import watch

_RATE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.group(cls=NounGroup, named="list")
def guardrails() -> None:
    """Show a rollout's guardrails, or try limits out: `phasegate guardrails read`."""


@guardrails.command("list")
@click.argument("name")
@json_option
def list_guardrails(*, name: str, as_json: bool) -> None:
    """The guardrails of rollout NAME with their numbers."""
    with server(as_json=as_json) as client:
        document = client.guardrails(name)
    emit(document, lambda found: emit_guardrails(found["guardrails"]), as_json=as_json)


def emit_guardrails(found: Iterable[Document]) -> None:
    """What each is, what its breach does, and what it saw."""
    rows = [(each["name"], each["outcome"], _on_breach(each), each["sentence"]) for each in found]
    emit_table(("guardrail", "outcome", "on breach", "what was seen"), rows)


def _on_breach(guardrail: Document) -> str | None:
    return f"{guardrail['action']} (dry run)" if guardrail.get("dry_run") else guardrail["action"]


@guardrails.command("try")
@click.option("--limit", type=_RATE, required=True, help="Rate of bad samples that is still tolerated.")
@click.option("--alpha", type=_RATE, default=0.01, show_default=True, help="Chance of a false alarm.")
@click.option(
    "--gap",
    type=click.FloatRange(min=0),
    required=True,
    help="Share of the horizon between two samples: 0.5 / (samples in the horizon).",
)
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@json_option
def try_limits(*, limit: float, alpha: float, gap: float, file: TextIO, as_json: bool) -> None:
    """Read one 0 or 1 a line from FILE (- is stdin) and say at which sample the guardrail alarms."""
    seen = watch(_samples(file), limit=limit, alpha=alpha, gap=gap)
    facts = {"alarm_at": seen.alarm_at, "e_value": seen.e_value, "threshold": 1 / alpha, "n": seen.n}
    emit_facts_of(facts, as_json=as_json)


def _samples(file: TextIO) -> Iterator[int]:
    for number, line in enumerate(file, start=1):
        text = line.strip()
        if text not in ("0", "1"):
            raise click.ClickException(f"line {number}: must be 0 or 1, not {text[:40]!r}")
        yield int(text)
