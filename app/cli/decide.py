"""What would the server answer to this situation?"""

import json
from typing import Any, TextIO

import rich_click as click

from app.cli.output import cell, emit_facts, emit_json, json_option
from app.cli.remote import server

_TRUST = ("competence", "reliability", "integrity")


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@click.option("--action", "action_type", help="What the actor wants to do, such as read.")
@click.option("--role", "actor_role", help="The actor's role.")
@click.option("--actor", "actor_id", help="The actor's id.")
@click.option(
    "--trust", help="One number for all three parts, or competence,reliability,integrity; each 0..1."
)
@click.option("--resource", help="What it is to be done to.")
@click.option("--details", help="Anything else to consider.")
@json_option
def decide(*, file: TextIO | None, trust: str | None, as_json: bool, **options: str | None) -> None:
    """Ask for a decision on a situation: JSON in FILE (- is stdin), options, or both.

    The decision is recorded like any other. The exit code says whether there is one, not which.
    """
    situation = _read(file) | {field: value for field, value in options.items() if value is not None}
    if trust is not None:
        situation["t3_tensor"] = _tensor(trust)
    with server(as_json=as_json) as client:
        decision = client.post("/v1/decisions", **situation)
    if as_json:
        emit_json(decision)
        return
    members = ("decision", "final", "answered_by", "fallback_reason", "rollout", "phase", "version", "id")
    emit_facts([(member, decision.get(member)) for member in members] + _opinions(decision))


def _opinions(decision: dict[str, Any]) -> list[tuple[str, object]]:
    legacy, advisory = decision.get("legacy") or {}, decision.get("advisory") or {}
    return [
        ("legacy", f"{cell(legacy.get('decision'))} by {cell(legacy.get('rule'))}"),
        (
            "model",
            f"{cell(advisory.get('decision'))} at {cell(advisory.get('confidence'))}" if advisory else None,
        ),
    ]


def _read(file: TextIO | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        situation = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="FILE") from None
    if not isinstance(situation, dict):
        raise click.BadParameter("must be a JSON object", param_hint="FILE")
    return situation


def _tensor(text: str) -> dict[str, float]:
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 3):
        raise click.BadParameter(f"{text!r} is not one number or three", param_hint="'--trust'")
    return dict(zip(_TRUST, parts * (3 // len(parts)), strict=True))
