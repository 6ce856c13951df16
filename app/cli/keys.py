"""Who may do what, by which key?"""

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit_json, emit_list, json_option, say, tell
from app.cli.remote import server
from app.domain.role import Role


@click.group(cls=NounGroup, alone="list")
def keys() -> None:
    """List, create and revoke API keys."""


@keys.command("list")
@json_option
def list_keys(*, as_json: bool) -> None:
    """All keys; the keys themselves are stored nowhere."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/keys")
    columns = ("id", "name", "roles", "actors", "created_at", "expires_at", "revoked_at")
    emit_list(document, "keys", columns, as_json=as_json)


@keys.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@click.option(
    "--actor", "actors", multiple=True, help="An actor id that is this person's own; may be repeated."
)
@json_option
def create(*, name: str, roles: tuple[str, ...], actors: tuple[str, ...], as_json: bool) -> None:
    """Make a key for NAME and print it, once."""
    with server(as_json=as_json) as client:
        document = client.post("/v1/keys", name=name, roles=list(roles), actors=list(actors))
    if as_json:
        emit_json(document)
        return
    click.echo(document["key"])
    say(f"key {document['id']} for {name}: shown this once")


@keys.command()
@click.argument("key_id")
@json_option
def revoke(*, key_id: str, as_json: bool) -> None:
    """End key KEY_ID at once."""
    with server(as_json=as_json) as client:
        document = client.delete(f"/v1/keys/{key_id}")
    tell(document, f"key {key_id} is revoked", as_json=as_json)
