"""Who may do what here: which keys and which users are there, and who makes, changes or ends them?"""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, URLEncodedBody

from app.domain.role import Role
from app.errors import NotFound
from app.web.authentication import Asked, principal_of, services_of
from app.web.bodies import instant_us
from app.web.console.access import seen_by
from app.web.console.forms import Ticked, check_typed, lines, ticked
from app.web.console.pages import goes_to, page
from app.web.sessions import seen_at

_ADMIN = [seen_by(Role.ADMIN)]


class Person(msgspec.Struct):
    """`actors`: one id a line. `expires_at` is a key's; empty is never."""

    name: str
    roles: Ticked = []
    actors: str = ""
    expires_at: str = ""


class Changed(msgspec.Struct):
    """What a user may do from now on, and which actors are theirs."""

    roles: Ticked = []
    actors: str = ""


class Typed(msgspec.Struct):
    """The name of what is to be ended, typed."""

    typed: str


@get("/keys", guards=_ADMIN, sync_to_thread=True)
def keys(request: Asked) -> Response[bytes]:
    services = services_of(request)
    found, in_use = services.administration.keys(), services.administration.keys_in_use()
    users = services.users.all()
    return page(
        request,
        "keys.html",
        title="Keys and users",
        keys=[each for each in found if each["id"] in in_use],
        ended=[each for each in found if each["id"] not in in_use],
        users=sorted(users, key=lambda each: each["disabled_at"] is not None),
        names=services.administration.names(),
        roles=tuple(Role),
    )


@post("/keys", status_code=200, guards=_ADMIN)
async def create_key(request: Asked, data: URLEncodedBody[Person]) -> Response[bytes]:
    """A new key, shown this once in the place of the form."""
    made = await services_of(request).administration.create_key(
        name=data.name,
        roles=ticked(data.roles),
        actors=lines(data.actors),
        expires_us=instant_us("expires_at", data.expires_at or None),
        by=principal_of(request),
    )
    return page(request, "secret_part.html", secret=made["key"], title=f"Key of {made['name']}", kind="key")


@post("/keys/{key_id:str}/revoke", status_code=200, guards=_ADMIN)
async def revoke_key(request: Asked, key_id: FromPath[str], data: URLEncodedBody[Typed]) -> Response[bytes]:
    administration = services_of(request).administration
    check_typed(data.typed, _found(administration.keys(), "key", key_id)["name"])
    await administration.revoke_key(key_id, by=principal_of(request))
    return goes_to(request, "/keys")


@post("/users", status_code=200, guards=_ADMIN)
async def create_user(request: Asked, data: URLEncodedBody[Person]) -> Response[bytes]:
    """A new user, and the link by which they come in, shown this once in the place of the form."""
    users, by = services_of(request).users, principal_of(request)
    made = await users.create(name=data.name, roles=ticked(data.roles), actors=lines(data.actors), by=by)
    return _link(request, await users.link(made["id"], by=by))


@post("/users/{user_id:str}/link", status_code=200, guards=_ADMIN)
async def link(request: Asked, user_id: FromPath[str]) -> Response[bytes]:
    return _link(request, await services_of(request).users.link(user_id, by=principal_of(request)))


@post("/users/{user_id:str}", status_code=200, guards=_ADMIN)
async def change(request: Asked, user_id: FromPath[str], data: URLEncodedBody[Changed]) -> Response[bytes]:
    """Both together: a change of roles signs the user out."""
    roles, actors = ticked(data.roles), lines(data.actors)
    await services_of(request).users.change(user_id, roles=roles, actors=actors, by=principal_of(request))
    return goes_to(request, "/keys")


@post("/users/{user_id:str}/disable", status_code=200, guards=_ADMIN)
async def disable(request: Asked, user_id: FromPath[str], data: URLEncodedBody[Typed]) -> Response[bytes]:
    users = services_of(request).users
    check_typed(data.typed, _found(users.all(), "user", user_id)["name"])
    await users.disable(user_id, by=principal_of(request))
    return goes_to(request, "/keys")


@post("/users/{user_id:str}/enable", status_code=200, guards=_ADMIN)
async def enable(request: Asked, user_id: FromPath[str]) -> Response[bytes]:
    await services_of(request).users.enable(user_id, by=principal_of(request))
    return goes_to(request, "/keys")


def _link(request: Asked, made: dict[str, Any]) -> Response[bytes]:
    name, expires_at = made["user"]["name"], made["expires_at"]
    return page(
        request,
        "secret_part.html",
        secret=f"{seen_at(request)}{made['path']}",
        title=f"Sign-in link for {name}",
        kind="link",
        expires_at=expires_at,
    )


def _found(every: Sequence[dict[str, Any]], kind: str, wanted: str) -> dict[str, Any]:
    for each in every:
        if each["id"] == wanted:
            return each
    raise NotFound(kind, wanted)
