"""How does a person steer a rollout from the command line?"""

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from app.cli.gates import gate_shown
from app.cli.output import json_option, tell
from app.cli.remote import server

F = TypeVar("F", bound=Callable[..., Any])

reason_option: Callable[[F], F] = click.option(
    "--reason", required=True, help="Why; it stands in the history."
)


to_option: Callable[[F], F] = click.option(
    "--to", type=click.Choice(["advisory", "enforced"]), required=True, help="The next phase up."
)
revision_option: Callable[[F], F] = click.option(
    "--revision", type=int, help="Revision that the rollout must still have; the present one by default."
)


@click.command()
@click.argument("name")
@to_option
@reason_option
@revision_option
@json_option
def promote(*, name: str, to: str, reason: str, revision: int | None, as_json: bool) -> None:
    """Take rollout NAME one phase up. Exit code 3 if its gate is not met."""
    with server(as_json=as_json) as client:
        expected = client.rollout(name)["revision"] if revision is None else revision
        with gate_shown(as_json=as_json):
            transition = client.promote(name, to=to, reason=reason, expected_revision=expected)
    tell(transition, f"{name} is in {to}", as_json=as_json)


@click.command()
@click.argument("name")
@to_option
@reason_option
@revision_option
@json_option
def approve(*, name: str, to: str, reason: str, revision: int | None, as_json: bool) -> None:
    """Say that another person may promote rollout NAME. Exit code 3 if anything else is missing."""
    with server(as_json=as_json) as client:
        expected = client.rollout(name)["revision"] if revision is None else revision
        with gate_shown(as_json=as_json):
            given = client.approve(name, to=to, reason=reason, expected_revision=expected)
    tell(given, f"approved: another person may take {name} to {to}", as_json=as_json)


def _lever(act: str, what: str, told: str) -> click.Command:
    """One that takes a rollout and a reason."""

    @click.command(act, help=what)
    @click.argument("name")
    @reason_option
    @json_option
    def lever(*, name: str, reason: str, as_json: bool) -> None:
        with server(as_json=as_json) as client:
            transition = client.post(f"/v1/rollouts/{name}/{act}", reason=reason)
        tell(transition, f"{name} {told}", as_json=as_json)

    return lever


rollback = _lever("rollback", "Take rollout NAME down at once; it opens an investigation.", "is rolled back")
hold = _lever("hold", "Freeze promotions and ramps of rollout NAME; rollbacks go on.", "is held")
resume = _lever("resume", "End the hold of rollout NAME.", "is held no longer")


@click.command()
@click.argument("name")
@click.argument("percent", type=click.FloatRange(0, 100))
@reason_option
@json_option
def exposure(*, name: str, percent: float, reason: str, as_json: bool) -> None:
    """Let the phase of rollout NAME apply to PERCENT of its actors."""
    with server(as_json=as_json) as client:
        revision = client.rollout(name)["revision"]
        body = {"exposure": percent / 100, "reason": reason, "expected_revision": revision}
        transition = client.post(f"/v1/rollouts/{name}/exposure", **body)
    tell(transition, f"{name} applies to {percent:g} % of actors", as_json=as_json)


@click.command()
@click.argument("name")
@click.option(
    "--cause", type=click.Choice(["model", "prompt", "integration", "policy", "other"]), required=True
)
@click.option("--fix", required=True, help="What was done about it.")
@json_option
def investigation(*, name: str, cause: str, fix: str, as_json: bool) -> None:
    """Close the open investigation of rollout NAME; promotion needs it."""
    with server(as_json=as_json) as client:
        transition = client.post(f"/v1/rollouts/{name}/investigation", cause=cause, fix=fix)
    tell(transition, f"the investigation of {name} is closed", as_json=as_json)


@click.group()
def kill() -> None:
    """Let the legacy engine answer everything, at once; no phase changes."""


@kill.command()
@reason_option
@json_option
def engage(*, reason: str, as_json: bool) -> None:
    """Engage the kill switch."""
    with server(as_json=as_json) as client:
        transition = client.post("/v1/kill-switch", engaged=True, reason=reason)
    tell(transition, "the legacy engine answers everything", as_json=as_json)


@kill.command()
@reason_option
@json_option
def release(*, reason: str, as_json: bool) -> None:
    """Release the kill switch; every rollout goes on at its first exposure step."""
    with server(as_json=as_json) as client:
        transition = client.post("/v1/kill-switch", engaged=False, reason=reason)
    tell(transition, "the kill switch is released", as_json=as_json)
