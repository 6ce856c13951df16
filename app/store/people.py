"""Who stands behind an id in the records: the holder of a key, or a user?"""

import hashlib
import json
from collections.abc import Iterable

from sqlalchemy import Connection, null, select, union_all

from app.domain.role import Principal, Role
from app.store import tables as t

USER = "u_"  # how the id of a user begins; a key's is hexadecimal

_k, _u = t.api_keys.c, t.users.c

# Keys and users as one table. `ended_us`: revoked or disabled.
PEOPLE = union_all(
    select(_k.id, _k.name, _k.roles, _k.actors, _k.expires_us, _k.revoked_us.label("ended_us")),
    select(_u.id, _u.name, _u.roles, _u.actors, null().label("expires_us"), _u.disabled_us.label("ended_us")),
).subquery("people")


def fingerprint(presented: str) -> str:
    """What a key or a token is kept and looked up by: the hash of all of it."""
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).hexdigest()


def stored_roles(roles: Iterable[Role]) -> str:
    return " ".join(sorted(roles))


def stored_actors(actors: Iterable[str]) -> str:
    return json.dumps(sorted(actors))


def roles_in(stored: str) -> frozenset[Role]:
    """The roles of a key or a user, as their column holds them."""
    return frozenset(map(Role, stored.split()))


def names_in(stored: str) -> frozenset[str]:
    """The actors of a key or a user, as their column holds them."""
    return frozenset(json.loads(stored))


def name_of(connection: Connection, person_id: str) -> str | None:
    """The name of a key or a user; None for automation and what is unknown."""
    return connection.execute(select(PEOPLE.c.name).where(PEOPLE.c.id == person_id)).scalar()


def names(connection: Connection) -> dict[str, str]:
    """The name of everybody who ever held a key or was a user, by id."""
    return {row.id: row.name for row in connection.execute(select(PEOPLE.c.id, PEOPLE.c.name))}


def principal_of(
    connection: Connection, person_id: str, *, now_us: int
) -> tuple[Principal, int | None] | None:
    """Who this is as of now and until when, or None where the key or the user has ended."""
    row = connection.execute(select(PEOPLE).where(PEOPLE.c.id == person_id)).mappings().first()
    if row is None or row["ended_us"] is not None:
        return None
    if row["expires_us"] is not None and row["expires_us"] <= now_us:
        return None
    principal = Principal(row["id"], row["name"], roles_in(row["roles"]), names_in(row["actors"]))
    return principal, row["expires_us"]
