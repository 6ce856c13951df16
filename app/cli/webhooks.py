"""Who is told what happens, and did the message arrive?"""

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit_json, emit_list, json_option, say, tell
from app.cli.remote import server


@click.group(cls=NounGroup, alone="list")
def webhooks() -> None:
    """Tell other systems what happens here, and see whether they heard it."""


@webhooks.command("list")
@json_option
def list_webhooks(*, as_json: bool) -> None:
    """Those that are told."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/webhooks")
    emit_list(document, "webhooks", ("id", "url", "kinds", "created_at", "created_by"), as_json=as_json)


@webhooks.command()
@click.argument("url")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="transition, guardrail, report or review_backlog; may be repeated. Default: all.",
)
@json_option
def add(*, url: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Tell URL, and print the secret that its messages are signed with, once."""
    with server(as_json=as_json) as client:
        document = client.post("/v1/webhooks", url=url, kinds=list(kinds))
    if as_json:
        emit_json(document)
        return
    click.echo(document["secret"])
    say(f"webhook {document['id']}: its secret is shown this once")


@webhooks.command()
@click.argument("webhook_id")
@json_option
def remove(*, webhook_id: str, as_json: bool) -> None:
    """Send webhook WEBHOOK_ID nothing more."""
    with server(as_json=as_json) as client:
        document = client.delete(f"/v1/webhooks/{webhook_id}")
    tell(document, f"webhook {webhook_id} is told nothing more", as_json=as_json)


@webhooks.command()
@click.argument("webhook_id")
@json_option
def test(*, webhook_id: str, as_json: bool) -> None:
    """Send webhook WEBHOOK_ID a test message."""
    with server(as_json=as_json) as client:
        document = client.post(f"/v1/webhooks/{webhook_id}/test")
    said = f"sent within seconds as {document['id']}: phasegate webhooks deliveries says whether it arrived"
    tell(document, said, as_json=as_json)


@webhooks.command()
@click.option("--status", type=click.Choice(["waiting", "delivered", "failed"]))
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@json_option
def deliveries(*, status: str | None, limit: int, as_json: bool) -> None:
    """What was sent and what came of it, newest first."""
    with server(as_json=as_json) as client:
        wanted = {"limit": limit} if status is None else {"status": status, "limit": limit}
        document = client.get("/v1/webhooks/deliveries", **wanted)
    columns = ("id", "webhook_id", "kind", "status", "attempts", "response", "error", "due_at")
    emit_list(document, "deliveries", columns, as_json=as_json)
