"""Where does each rollout stand?"""

from collections.abc import Mapping
from typing import Any

import rich_click as click

from app.cli.gates import emit_gate
from app.cli.groups import NounGroup
from app.cli.guardrails import emit_guardrails
from app.cli.output import emit, emit_facts, emit_list, json_option, say
from app.cli.remote import server
from app.client.wire import Document

_FACTS = (
    *("name", "actions", "when", "risk", "phase", "exposure", "exposure_steps", "ceiling", "combine"),
    *("approval", "version", "candidate", "previous", "revision", "epoch", "epoch_started_at"),
)

_KILLED = "the kill switch is engaged: the legacy engine answers everything"


@click.group(cls=NounGroup, alone="list", named="show")
def rollouts() -> None:
    """List rollouts, or show one: `phasegate rollouts read`."""


@rollouts.command("list")
@json_option
def list_rollouts(*, as_json: bool) -> None:
    """All rollouts with their phases; `show` says more of one."""
    with server(as_json=as_json) as client:
        found = client.rollouts()
    columns = ("name", "phase", "exposure", "ceiling", "risk", "version", "revision", "state")
    emit_list({"rollouts": found}, "rollouts", columns, as_json=as_json, row=_row)
    if any(each.get("kill_switch") for each in found):
        say(_KILLED)


def _row(rollout: Mapping[str, Any]) -> list[object]:
    plain = (rollout[name] for name in ("ceiling", "risk", "version", "revision"))
    exposure, state = f"{rollout['exposure']:.0%}", rollout["status"]["state"]
    return [rollout["name"], rollout["phase"], exposure, *plain, state]


@rollouts.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """All that is known of rollout NAME."""
    with server(as_json=as_json) as client:
        found = client.rollout(name)
    emit(found, _show, as_json=as_json)


def _show(found: Document) -> None:
    emit_facts((name, found[name]) for name in _FACTS)
    click.echo()
    emit_guardrails(found["guardrails"])
    if found.get("ramp"):
        say(f"ramp: {found['ramp']['sentence']}")
    if found.get("kill_switch"):
        say(_KILLED)
    status = found["status"]
    if status["state"] in ("ready", "not_yet") and found["gate"]:
        click.echo()
        emit_gate(found["gate"])
    else:
        say(f"{status['state']}: {status['sentence']}")


@rollouts.command()
@click.argument("name")
@json_option
def transitions(*, name: str, as_json: bool) -> None:
    """What happened to rollout NAME, who did it and why."""
    with server(as_json=as_json) as client:
        document = client.get(f"/v1/rollouts/{name}/transitions")
    columns = ("at", "sentence")
    emit_list(document, "transitions", columns, as_json=as_json)


@rollouts.command()
@click.argument("name")
@json_option
def evidence(*, name: str, as_json: bool) -> None:
    """What has been counted in the present epoch of rollout NAME."""
    with server(as_json=as_json) as client:
        document = client.get(f"/v1/rollouts/{name}/evidence")
    emit(document, lambda found: emit_facts(_flat("", found)), as_json=as_json)


def _flat(prefix: str, document: dict[str, object]) -> list[tuple[str, object]]:
    """Nested members under dotted names."""
    facts: list[tuple[str, object]] = []
    for key, value in document.items():
        if isinstance(value, dict):
            facts += _flat(f"{prefix}{key}.", value)
        else:
            facts.append((f"{prefix}{key}", value))
    return facts
