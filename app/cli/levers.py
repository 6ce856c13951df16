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


def _upward(act: str, what: str, told: str) -> click.Command:
    """One that takes the next phase up, and the revision that was looked at."""

    @click.command(act, help=f"{what} Exit code 3 if its gate is not met.")
    @click.argument("name")
    @click.option(
        "--to", type=click.Choice(["advisory", "enforced"]), required=True, help="The next phase up."
    )
    @reason_option
    @click.option(
        "--revision", type=int, help="That the rollout must still have; the present one by default."
    )
    @json_option
    def lever(*, name: str, to: str, reason: str, revision: int | None, as_json: bool) -> None:
        with server(as_json=as_json) as client:
            expected = client.rollout(name)["revision"] if revision is None else revision
            body = {"to": to, "reason": reason, "expected_revision": expected}
            with gate_shown(as_json=as_json):
                transition = client.post(f"/v1/rollouts/{name}/{act}", **body)
        tell(transition, told.format(name=name, to=to), as_json=as_json)

    return lever


promote = _upward("promote", "Take rollout NAME one phase up.", "{name} is in {to}")
approve = _upward(
    "approve",
    "Say that the evidence of rollout NAME is enough, so that another person may promote it.",
    "approved: another person may take {name} to {to}",
)


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


def _switch(act: str, what: str, told: str, *, engaged: bool) -> None:
    @kill.command(act, help=what)
    @reason_option
    @json_option
    def switch(*, reason: str, as_json: bool) -> None:
        with server(as_json=as_json) as client:
            transition = client.post("/v1/kill-switch", engaged=engaged, reason=reason)
        tell(transition, told, as_json=as_json)


_switch("engage", "Engage the kill switch.", "the legacy engine answers everything", engaged=True)
_switch(
    "release",
    "Release the kill switch; every rollout goes on at its first exposure step.",
    "the kill switch is released",
    engaged=False,
)
