"""Who may sign in to the console, and with what?"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, or_, select, update

from app.domain.role import Role
from app.errors import Conflict, NotFound
from app.store.people import USER, fingerprint, names_in, roles_in, stored_actors, stored_roles
from app.store.tables import sessions, sign_in_links, users
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class User:
    """`failures`: wrong passwords in a row. `subject` is `issuer subject` of an OpenID provider."""

    id: str
    name: str
    roles: frozenset[Role]
    actors: frozenset[str]
    created_us: int
    created_by: str
    password_hash: str | None = field(default=None, repr=False)
    subject: str | None = None
    disabled_us: int | None = None
    failures: int = 0
    locked_until_us: int | None = None


def create(
    tx: Transaction,
    *,
    name: str,
    roles: Iterable[Role],
    actors: Iterable[str] = (),
    created_by: str,
    now_us: int,
    subject: str | None = None,
) -> User:
    """A user without a password. Raises `Conflict` where the name is taken."""
    if tx.connection.execute(select(users.c.id).where(users.c.name == name)).first():
        raise Conflict("name-taken", f"there is a user {name!r} already")
    user = User(
        USER + secrets.token_hex(8),
        name,
        frozenset(roles),
        frozenset(actors),
        now_us,
        created_by,
        subject=subject,
    )
    row = {each.name: getattr(user, each.name) for each in fields(User)}
    tx.insert(users, {**row, "roles": stored_roles(user.roles), "actors": stored_actors(user.actors)})
    return user


def everyone(connection: Connection) -> list[User]:
    """All users by name, disabled ones included."""
    return [_record(row) for row in connection.execute(select(users).order_by(users.c.name)).mappings()]


def find(connection: Connection, *, name: str | None = None, subject: str | None = None) -> User | None:
    """Whose name or subject this is."""
    this = users.c.name == name if subject is None else users.c.subject == subject
    row = connection.execute(select(users).where(this)).mappings().first()
    return None if row is None else _record(row)


def get(connection: Connection, user_id: str) -> User:
    """Raises `NotFound`."""
    row = connection.execute(select(users).where(users.c.id == user_id)).mappings().first()
    if row is None:
        raise NotFound("user", user_id)
    return _record(row)


def lock(tx: Transaction, user: str) -> User:
    """A user by id or name, as nobody else can change them before this transaction ends. Raises `NotFound`."""
    this: ColumnElement[bool] = or_(users.c.id == user, users.c.name == user)
    row = tx.connection.execute(select(users).where(this).with_for_update()).mappings().first()
    if row is None:
        raise NotFound("user", user)
    return _record(row)


def change(tx: Transaction, user_id: str, **columns: object) -> None:
    """Change columns of a user but these two, which have functions of their own: `roles` and `actors`."""
    tx.connection.execute(update(users).where(users.c.id == user_id).values(columns))


def change_roles(tx: Transaction, user_id: str, roles: Iterable[Role]) -> None:
    change(tx, user_id, roles=stored_roles(roles))


def change_actors(tx: Transaction, user_id: str, actors: Iterable[str]) -> None:
    change(tx, user_id, actors=stored_actors(actors))


def make_link(tx: Transaction, user_id: str, *, created_by: str, now_us: int, expires_us: int) -> str:
    """A token that lets a user in once; shown once, kept nowhere. Those before it let nobody in any more."""
    c, token = sign_in_links.c, secrets.token_urlsafe(32)
    tx.connection.execute(delete(sign_in_links).where(c.user_id == user_id, c.used_us.is_(None)))
    row = {
        "token_sha256": fingerprint(token),
        "user_id": user_id,
        "created_us": now_us,
        "created_by": created_by,
        "expires_us": expires_us,
        "used_us": None,
    }
    tx.insert(sign_in_links, row)
    return token


def use_link(tx: Transaction, token: str, *, now_us: int) -> User | None:
    """Whom a link lets in; it is used up by this. None where it was, has run out, or its user is disabled."""
    c = sign_in_links.c
    this = update(sign_in_links).where(
        c.token_sha256 == fingerprint(token), c.used_us.is_(None), c.expires_us > now_us
    )
    if tx.connection.execute(this.values(used_us=now_us)).rowcount != 1:
        return None
    user_id = select(c.user_id).where(c.token_sha256 == fingerprint(token))
    user = lock(tx, tx.connection.execute(user_id).scalar_one())
    return None if user.disabled_us is not None else user


def came_by_link(connection: Connection, user_id: str, *, at_us: int) -> bool:
    """Whether a link let this user in at that moment; known for as long as the link would have lived."""
    c = sign_in_links.c
    used = select(c.user_id).where(c.user_id == user_id, c.used_us == at_us)
    return connection.execute(used).first() is not None


def has_anyone_signed_in(connection: Connection) -> bool:
    """Whether some user has a way in of their own, or is in."""
    own = or_(users.c.password_hash.is_not(None), users.c.subject.is_not(None))
    by_themselves = select(users.c.id).where(own, users.c.disabled_us.is_(None)).limit(1)
    is_in = select(sessions.c.principal_id).where(sessions.c.principal_id.startswith(USER, autoescape=True))
    return any(connection.execute(each).first() for each in (by_themselves, is_in.limit(1)))


def end_links(tx: Transaction, user_id: str) -> None:
    """What was made for a user lets nobody in any more, nor lets them off their old password."""
    tx.connection.execute(delete(sign_in_links).where(sign_in_links.c.user_id == user_id))


def forget_links(tx: Transaction, *, now_us: int) -> int:
    """Delete links that have run out; returns how many."""
    return tx.connection.execute(delete(sign_in_links).where(sign_in_links.c.expires_us <= now_us)).rowcount


def _record(row: RowMapping) -> User:
    parsed = {"roles": roles_in(row["roles"]), "actors": names_in(row["actors"])}
    return User(**{each.name: row[each.name] for each in fields(User)} | parsed)
