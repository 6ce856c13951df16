"""Who may sign in to the console, and as what?"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit_json, emit_list, json_option, say, tell
from app.cli.remote import server
from app.domain.role import Role
from app.settings import load_settings

_ROLES = click.Choice([role.value for role in Role])
_role = click.option("--role", "roles", type=_ROLES, multiple=True, required=True, help="May be repeated.")


@click.group(cls=NounGroup, alone="list")
def users() -> None:
    """List, create and disable those who sign in to the console."""


@users.command("list")
@json_option
def list_users(*, as_json: bool) -> None:
    """All users, disabled ones included."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/users")
    columns = ("id", "name", "roles", "actors", "signs_in_by", "created_at", "disabled_at")
    emit_list(document, "users", columns, as_json=as_json, row=_row)


def _row(user: Mapping[str, Any]) -> list[object]:
    ways = [{"oidc": "OpenID"}.get(way, way) for way in user["ways"]] or ["link"]
    facts = (user.get(name) for name in ("id", "name", "roles", "actors"))
    return [*facts, ways, user.get("created_at"), user.get("disabled_at")]


@users.command()
@click.argument("name")
@_role
@click.option(
    "--actor", "actors", multiple=True, help="An actor id that is this person's own; may be repeated."
)
@json_option
def create(*, name: str, roles: tuple[str, ...], actors: tuple[str, ...], as_json: bool) -> None:
    """Make NAME a user, and print the link by which they come in first."""
    with server(as_json=as_json) as client:
        user = client.post("/v1/users", name=name, roles=list(roles), actors=list(actors))
        made = client.post(f"/v1/users/{user['id']}/link")
    _show_link(made, as_json=as_json)


@users.command()
@click.argument("name")
@json_option
def link(*, name: str, as_json: bool) -> None:
    """Print an address that lets NAME in once, within an hour."""
    with server(as_json=as_json) as client:
        made = client.post(f"/v1/users/{_in_path(name)}/link")
    _show_link(made, as_json=as_json)


@users.command()
@click.argument("name")
@_role
@json_option
def roles(*, name: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Give NAME these roles in place of what they hold; signs them out."""
    with server(as_json=as_json) as client:
        document = client.post(f"/v1/users/{_in_path(name)}/roles", roles=list(roles))
    tell(document, f"{name}: {', '.join(document['roles'])}", as_json=as_json)


@users.command()
@click.argument("name")
@click.option("--actor", "actors", multiple=True, help="May be repeated; none at all takes all away.")
@json_option
def actors(*, name: str, actors: tuple[str, ...], as_json: bool) -> None:
    """Say which actor ids are NAME's own, in place of those that are known."""
    with server(as_json=as_json) as client:
        document = client.post(f"/v1/users/{_in_path(name)}/actors", actors=list(actors))
    tell(document, f"{name}: {', '.join(document['actors']) or 'no actors'}", as_json=as_json)


@users.command()
@click.argument("name")
@json_option
def disable(*, name: str, as_json: bool) -> None:
    """Sign NAME out at once, and let nobody in as them."""
    with server(as_json=as_json) as client:
        document = client.post(f"/v1/users/{_in_path(name)}/disable")
    tell(document, f"{name} is disabled", as_json=as_json)


@users.command()
@click.argument("name")
@json_option
def enable(*, name: str, as_json: bool) -> None:
    """Let NAME in again."""
    with server(as_json=as_json) as client:
        document = client.post(f"/v1/users/{_in_path(name)}/enable")
    tell(document, f"{name} may sign in again", as_json=as_json)


def _in_path(name: str) -> str:
    return quote(name, safe="")


def _show_link(made: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    click.echo(f"{load_settings().url}{made['path']}")
    say(f"{made['user']['name']}: lets them in once, within an hour; shown this once")
