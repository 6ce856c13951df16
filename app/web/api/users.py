"""People over HTTP: who may sign in to the console, and as what."""

from typing import Any

from litestar import get, post
from litestar.params import FromPath, JSONBody

from app.domain.role import Role
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import NewUser, OwnActors, Roles

_ADMIN = [requires(Role.ADMIN)]


@get("/v1/users", guards=_ADMIN, sync_to_thread=True)
def users(request: Asked) -> dict[str, Any]:
    return {"users": services_of(request).users.all()}


@post("/v1/users", status_code=200, guards=_ADMIN)
async def create_user(request: Asked, data: JSONBody[NewUser]) -> dict[str, Any]:
    """A user without a password, who comes in by a link."""
    by, use = principal_of(request), services_of(request).users
    return await use.create(name=data.name, roles=data.roles, actors=data.actors, by=by)


@post("/v1/users/{user:str}/link", status_code=200, guards=_ADMIN)
async def make_link(request: Asked, user: FromPath[str]) -> dict[str, Any]:
    """`path` lets the user in once, within an hour; it is shown this once."""
    return await services_of(request).users.link(user, by=principal_of(request))


@post("/v1/users/{user:str}/roles", status_code=200, guards=_ADMIN)
async def change_roles(request: Asked, user: FromPath[str], data: JSONBody[Roles]) -> dict[str, Any]:
    return await services_of(request).users.change_roles(user, roles=data.roles, by=principal_of(request))


@post("/v1/users/{user:str}/actors", status_code=200, guards=_ADMIN)
async def change_actors(request: Asked, user: FromPath[str], data: JSONBody[OwnActors]) -> dict[str, Any]:
    return await services_of(request).users.change_actors(user, actors=data.actors, by=principal_of(request))


@post("/v1/users/{user:str}/disable", status_code=200, guards=_ADMIN)
async def disable_user(request: Asked, user: FromPath[str]) -> dict[str, Any]:
    """Signs the user out at once, and lets nobody in as them."""
    return await services_of(request).users.disable(user, by=principal_of(request))


@post("/v1/users/{user:str}/enable", status_code=200, guards=_ADMIN)
async def enable_user(request: Asked, user: FromPath[str]) -> dict[str, Any]:
    return await services_of(request).users.enable(user, by=principal_of(request))
