"""How does a person let exposure widen by itself, and see how far it is?"""

import rich_click as click

from app.cli.gates import emit_conditions
from app.cli.groups import NounGroup
from app.cli.levers import reason_option
from app.cli.output import emit, emit_facts, json_option, say, tell
from app.cli.remote import server
from app.client.wire import Document

_FACTS = ("state", "step", "next", "steps", "started_by", "started_at", "step_started_at")


@click.group(cls=NounGroup, named="show")
def ramp() -> None:
    """Let the exposure of a rollout widen step by step while nothing speaks against it: `phasegate ramp read`."""


@ramp.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """How far the ramp of rollout NAME is, and what its next step waits for."""
    with server(as_json=as_json) as client:
        found = client.rollout(name)["ramp"]
    if found is None and not as_json:
        say(f"{name} has no ramp: `phasegate ramp start {name} --reason …` approves one")
    else:
        emit({"ramp": found}, lambda document: _show(document["ramp"]), as_json=as_json)


def _show(found: Document) -> None:
    emit_facts((name, found[name]) for name in _FACTS)
    click.echo()
    if found["conditions"]:
        emit_conditions(found["conditions"])
    say(found["sentence"])


@ramp.command()
@click.argument("name")
@click.option(
    "--to",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    show_default=True,
    help="Percent of actors, a step of the policy.",
)
@reason_option
@click.option(
    "--revision", type=int, help="Revision that the rollout must still have; the present one by default."
)
@json_option
def start(*, name: str, to: float, reason: str, revision: int | None, as_json: bool) -> None:
    """Approve the steps of rollout NAME up to a share of its actors; automation takes them, or ends the ramp."""
    with server(as_json=as_json) as client:
        expected = client.rollout(name)["revision"] if revision is None else revision
        body = {"reason": reason, "to": to / 100, "expected_revision": expected}
        transition = client.post(f"/v1/rollouts/{name}/ramp", action="start", **body)
    tell(transition, f"{name} widens by itself up to {to:g} % of actors", as_json=as_json)


@ramp.command()
@click.argument("name")
@reason_option
@json_option
def stop(*, name: str, reason: str, as_json: bool) -> None:
    """End the ramp of rollout NAME where it is."""
    with server(as_json=as_json) as client:
        transition = client.post(f"/v1/rollouts/{name}/ramp", action="stop", reason=reason)
    tell(transition, f"{name} widens no longer", as_json=as_json)
