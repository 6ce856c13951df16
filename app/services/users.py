"""Who is a user, what may they do, and who says so?"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import structlog

from app.domain.clock import rfc3339, rfc3339_or_none, to_us
from app.domain.role import Principal, Role
from app.errors import Conflict, Forbidden, InvalidInput
from app.observability import Event
from app.services.plane import Plane
from app.store import sessions, users
from app.store.ledger import Ledger
from app.store.people import USER
from app.store.transaction import Transaction
from app.store.users import User

log = structlog.get_logger()

_HOUR_US = 3_600_000_000
_NAME_LENGTH = 80
_ACTOR_LENGTH = 200


class Users:
    """`user` is an id or a name everywhere. Whatever takes something from a user signs them out at once."""

    def __init__(self, plane: Plane, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._plane, self._ledger, self._now = plane, ledger, now

    def all(self) -> list[dict[str, Any]]:
        """By name, disabled ones included."""
        with self._plane.database.read() as connection:
            return [user_document(user) for user in users.everyone(connection)]

    async def create(
        self, *, name: str, roles: list[str], actors: list[str], by: Principal
    ) -> dict[str, Any]:
        """A user, who signs in by a link first. Raises `InvalidInput`, `Conflict` where the name is taken."""
        name = name.strip()
        _check([*_name_errors(name), *role_errors(roles), *actor_errors(actors)])
        now_us = to_us(self._now())
        user = await self._ledger.run(
            lambda tx: users.create(
                tx, name=name, roles=map(Role, roles), actors=actors, created_by=by.key_id, now_us=now_us
            )
        )
        log.info(Event.USER_CREATED, user=user.id, roles=sorted(user.roles), by=by.key_id)
        return user_document(user)

    async def change(
        self, user: str, *, roles: list[str], actors: list[str], by: Principal
    ) -> dict[str, Any]:
        """Both or neither, each where it differs."""
        _check([*role_errors(roles), *actor_errors(actors)])

        def change(tx: Transaction, found: User) -> None:
            if found.roles != set(roles):
                _put_roles(tx, found, roles, by)
            _put_actors(tx, found, actors, by)

        return await self._changed(user, "roles and actors", change, by=by)

    async def change_roles(self, user: str, *, roles: list[str], by: Principal) -> dict[str, Any]:
        _check(role_errors(roles))
        return await self._changed(user, "roles", lambda tx, found: _put_roles(tx, found, roles, by), by=by)

    async def change_actors(self, user: str, *, actors: list[str], by: Principal) -> dict[str, Any]:
        """All actor ids that are this person's own; nobody takes their own away."""
        _check(actor_errors(actors))
        return await self._changed(
            user, "actors", lambda tx, found: _put_actors(tx, found, actors, by), by=by
        )

    async def add_actor(self, actor: str, *, by: Principal) -> dict[str, Any]:
        """A user says that an actor is them; free, for it only takes from them what they may judge."""
        _check(actor_errors([actor]))

        def change(tx: Transaction, found: User) -> None:
            users.change_actors(tx, found.id, found.actors | {actor})

        return await self._changed(by.key_id, "actors", change, by=by)

    async def disable(self, user: str, *, by: Principal) -> dict[str, Any]:
        """The user can do nothing any more; what they did keeps their name."""

        def change(tx: Transaction, found: User) -> None:
            _not_own(found, by)
            if found.disabled_us is None:
                users.change(tx, found.id, disabled_us=to_us(self._now()))
            sessions.end_all(tx, found.id)
            users.end_links(tx, found.id)

        return await self._changed(user, "disabled", change, by=by)

    async def enable(self, user: str, *, by: Principal) -> dict[str, Any]:
        def change(tx: Transaction, found: User) -> None:
            users.change(tx, found.id, disabled_us=None, failures=0, locked_until_us=None)

        return await self._changed(user, "enabled", change, by=by)

    async def link(self, user: str, *, by: Principal) -> dict[str, Any]:
        """An address path that lets the user in once within an hour, in `path`; shown once."""
        now_us = to_us(self._now())

        def make(tx: Transaction) -> tuple[User, str]:
            found = users.lock(tx, user)
            if found.disabled_us is not None:
                raise Conflict("user-disabled", f"{found.name} is disabled: enable them first")
            return found, _link(tx, found.id, created_by=by.key_id, now_us=now_us)

        found, path = await self._ledger.run(make)
        log.info(Event.USER_CHANGED, user=found.id, what="link", by=by.key_id)
        return {"user": user_document(found), "path": path, "expires_at": rfc3339(now_us + _HOUR_US)}

    async def _changed(
        self, user: str, what: str, change: Callable[[Transaction, User], None], *, by: Principal
    ) -> dict[str, Any]:
        def work(tx: Transaction) -> User:
            found = users.lock(tx, user)
            change(tx, found)
            return users.lock(tx, found.id)

        found = await self._ledger.run(work)
        log.info(Event.USER_CHANGED, user=found.id, what=what, by=by.key_id)
        return user_document(found)


def first_link(tx: Transaction, *, now_us: int) -> str | None:
    """The path of a link for the first start, while no user has ever signed in; makes an admin where none is."""
    if users.has_anyone_signed_in(tx.connection):
        return None
    admins = (
        each
        for each in users.everyone(tx.connection)
        if Role.ADMIN in each.roles and each.disabled_us is None
    )
    user = next(admins, None)
    if user is None:
        user = users.create(tx, name="admin", roles=[Role.ADMIN], created_by="first start", now_us=now_us)
    return _link(tx, user.id, created_by="first start", now_us=now_us)


def user_document(user: User) -> dict[str, Any]:
    """`ways` in: `password`, `oidc`; none where only a link opens."""
    ways = [way for way, has in (("password", user.password_hash), ("oidc", user.subject)) if has]
    return {
        "id": user.id,
        "name": user.name,
        "roles": sorted(user.roles),
        "actors": sorted(user.actors),
        "ways": ways,
        "created_at": rfc3339(user.created_us),
        "created_by": user.created_by,
        "disabled_at": rfc3339_or_none(user.disabled_us),
    }


def _link(tx: Transaction, user_id: str, *, created_by: str, now_us: int) -> str:
    token = users.make_link(tx, user_id, created_by=created_by, now_us=now_us, expires_us=now_us + _HOUR_US)
    return f"/sign-in/{token}"


def _put_roles(tx: Transaction, found: User, roles: list[str], by: Principal) -> None:
    _not_own(found, by)
    users.change_roles(tx, found.id, map(Role, roles))
    sessions.end_all(tx, found.id)


def _put_actors(tx: Transaction, found: User, actors: list[str], by: Principal) -> None:
    if found.actors - set(actors):
        _not_own(found, by)
    users.change_actors(tx, found.id, set(actors))


def _not_own(user: User, by: Principal) -> None:
    if user.id == by.key_id:
        raise Forbidden("own-account", "another admin changes this of yours")


def _check(errors: list[tuple[str, str]]) -> None:
    if errors:
        raise InvalidInput(errors)


def _name_errors(name: str) -> list[tuple[str, str]]:
    if not name or len(name) > _NAME_LENGTH or not name.isprintable() or "/" in name or name.startswith(USER):
        said = f"must be 1 to {_NAME_LENGTH} printable characters without /, and not begin with {USER}"
        return [("name", said)]
    return []


def role_errors(roles: Iterable[str]) -> list[tuple[str, str]]:
    known = list(Role)
    wrong = [("roles", f"{role!r} is none of {', '.join(Role)}") for role in roles if role not in known]
    return wrong if roles else [("roles", f"must name at least one of {', '.join(Role)}")]


def actor_errors(actors: Iterable[str]) -> list[tuple[str, str]]:
    good = all(actor.strip() and len(actor) <= _ACTOR_LENGTH and "\x00" not in actor for actor in actors)
    return [] if good else [("actors", f"must be ids of 1 to {_ACTOR_LENGTH} characters")]
