"""What does a promotion still need, and what would other limits have said?"""

from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from app.cli import EXIT_GATE
from app.cli.groups import NounGroup
from app.cli.output import emit, emit_facts_of, emit_table, json_option, say, span
from app.cli.remote import server
from app.client import ClientError
from app.client.wire import Document
from app.domain.gate import try_gate

_RATE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.group(cls=NounGroup, named="show")
def gates() -> None:
    """Show what a promotion needs, or try limits out: `phasegate gates read --to advisory`."""


@gates.command()
@click.argument("name")
@click.option(
    "--to",
    type=click.Choice(["advisory", "enforced", "version"]),
    help="Phase to enter, the next one up by default; or `version`, the candidate's.",
)
@json_option
def show(*, name: str, to: str | None, as_json: bool) -> None:
    """The gate of rollout NAME, condition by condition."""
    with server(as_json=as_json) as client:
        document = client.gate(name, to=to or _next_phase(client.rollout(name)))
    emit(document, emit_gate, as_json=as_json)


@contextmanager
def gate_shown(*, as_json: bool) -> Iterator[None]:
    """Where a gate is not met, show it condition by condition and exit with code 3."""
    try:
        yield
    except ClientError as error:
        if as_json or not isinstance(error.problem.get("gate"), dict):
            raise
        emit_gate(error.problem["gate"])
        raise SystemExit(EXIT_GATE) from None


def emit_conditions(conditions: list[Document]) -> None:
    rows = [(each["name"], each["outcome"], span(each["eta"]), each["sentence"]) for each in conditions]
    emit_table(("condition", "outcome", "eta", "what was seen"), rows)


def emit_gate(gate: Document) -> None:
    """The conditions as a checklist, and how many are open; `eta` is at the present traffic."""
    conditions = gate["conditions"]
    emit_conditions(conditions)
    still_open = sum(each["outcome"] != "pass" for each in conditions)
    met = f"all {len(conditions)} conditions hold"
    unmet = f"{still_open} of {len(conditions)} conditions do not hold yet"
    say(f"{gate['rollout']} to {gate['to']}: {gate['outcome']}: {unmet if still_open else met}")


def _next_phase(rollout: Document) -> str:
    return "advisory" if rollout["phase"] == "shadow" else "enforced"


@gates.command("try")
@click.option("--limit", type=_RATE, required=True, help="Rate of bad observations to lie below.")
@click.option("--alpha", type=_RATE, default=0.05, show_default=True, help="Chance of a false pass.")
@click.option("--n", type=click.IntRange(min=0), required=True, help="Observations.")
@click.option("--bad", type=click.IntRange(min=0), required=True, help="Bad ones among them.")
@json_option
def try_limits(*, limit: float, alpha: float, n: int, bad: int, as_json: bool) -> None:
    """Say whether BAD of N observations prove a rate below the limit."""
    if bad > n:
        raise click.BadParameter(f"{bad} is more than the {n} observations", param_hint="'--bad'")
    trial = try_gate(n, bad, limit=limit, alpha=alpha)
    emit_facts_of({"outcome": trial.outcome, "log_m": trial.log_m, "upper": trial.upper}, as_json=as_json)
