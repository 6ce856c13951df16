"""Which model versions are there, and how does a rollout come to run on one?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

from app.cli.gates import gate_shown
from app.cli.groups import NounGroup
from app.cli.levers import reason_option
from app.cli.output import emit_facts_of, emit_list, json_option, say, tell
from app.cli.remote import server
from app.client.wire import Document
from app.errors import NotFound
from app.policy.files import parse_yaml, read_text

_COLUMNS = ("id", "state", "loaded", "model", "parent", "created_at")


@click.group(cls=NounGroup, alone="list", named="show")
def versions() -> None:
    """List model versions, or show one; let a rollout try one, run on it, or go back."""


@versions.command("list")
@json_option
def list_versions(*, as_json: bool) -> None:
    """All registered versions; `show` says more of one."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/versions")
    emit_list(document, "versions", (*_COLUMNS, "rollouts"), as_json=as_json, row=_row)


def _row(version: Mapping[str, Any]) -> list[object]:
    plain = [version.get(name) for name in _COLUMNS]
    return [*plain, ", ".join(f"{name}: {role}" for name, role in version["rollouts"].items()) or None]


@versions.command()
@click.argument("version")
@json_option
def show(*, version: str, as_json: bool) -> None:
    """All that is known of VERSION."""
    with server(as_json=as_json) as client:
        found = {each["id"]: each for each in client.get("/v1/versions")["versions"]}
    if version not in found:
        raise NotFound("version", version, known=found)
    emit_facts_of(found[version], as_json=as_json)


@versions.command()
@click.argument("what", metavar="ID|FILE")
@json_option
def register(*, what: str, as_json: bool) -> None:
    """Let the server read policies/versions again and take in version ID, or take in the declaration in FILE."""
    body = {"id": what}
    if what.endswith((".yaml", ".yml", ".json")):
        declaration = parse_yaml(read_text(Path(what)), what)
        body = {name: node.plain() for name, node in declaration.entries().items()}
    with server(as_json=as_json) as client:
        registered = client.post("/v1/versions", **body)
    tell(registered, f"{registered['id']} is registered", as_json=as_json)


@versions.command()
@click.argument("rollout")
@click.argument("version")
@reason_option
@click.option(
    "--split",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="Percent of actors of its own.",
)
@json_option
def candidate(*, rollout: str, version: str, reason: str, split: float | None, as_json: bool) -> None:
    """Let VERSION observe beside the active version of ROLLOUT, on every situation unless --split."""
    share: Document = {} if split is None else {"mode": "split", "share": split / 100}
    with server(as_json=as_json) as client:
        body = {"action": "candidate", "reason": reason, "version": version, **share}
        transition = client.post(f"/v1/rollouts/{rollout}/version", **body)
    tell(transition, f"{version} is the candidate of {rollout}", as_json=as_json)


@versions.command()
@click.argument("rollout")
@click.argument("version", required=False)
@reason_option
@json_option
def activate(*, rollout: str, version: str | None, reason: str, as_json: bool) -> None:
    """Let ROLLOUT run on VERSION, by default its candidate. Exit code 3 if the candidate's gate is not met."""
    with server(as_json=as_json) as client:
        revision = client.rollout(rollout)["revision"]
        with gate_shown(as_json=as_json):
            body = {"action": "activate", "reason": reason, "version": version}
            path = f"/v1/rollouts/{rollout}/version"
            transition = client.post(path, **body, expected_revision=revision)
    tell(transition, f"{rollout} runs on {transition['version']}", as_json=as_json)


def _change(action: str, what: str, told: str) -> None:
    """Add a command that takes a rollout and a reason."""

    @versions.command(action, help=what)
    @click.argument("rollout")
    @reason_option
    @json_option
    def change(*, rollout: str, reason: str, as_json: bool) -> None:
        with server(as_json=as_json) as client:
            transition = client.post(f"/v1/rollouts/{rollout}/version", action=action, reason=reason)
        tell(transition, told.format_map({**transition, "name": rollout}), as_json=as_json)


_change(
    "revert", "Let ROLLOUT go back to its previous version, at once.", "{name} is in {phase} on {version}"
)
_change("withdraw", "Let the candidate of ROLLOUT observe no longer.", "{name} has no candidate")


@versions.command()
@json_option
def compared(*, as_json: bool) -> None:
    """How the candidates do beside the active versions; `phasegate gates NAME --to version` says more."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/experiments")
    columns = ("rollout", "active", "candidate", "mode", "since")

    def row(trial: Mapping[str, Any]) -> list[object]:
        return [*(trial[column] for column in columns), trial["gate"]["outcome"]]

    emit_list(document, "experiments", (*columns, "gate"), as_json=as_json, row=row)
    if not document["experiments"] and not as_json:
        say("no rollout has a candidate")
