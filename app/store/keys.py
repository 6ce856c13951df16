"""Who holds an API key, and what may it do?"""

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, RowMapping, select, update

from app.domain.role import Role
from app.errors import NotFound, SettingsError
from app.store.people import fingerprint, names_in, roles_in, stored_actors, stored_roles
from app.store.rollouts import touch_plane
from app.store.tables import api_keys, plane
from app.store.transaction import Transaction

ADMIN_PRESET = "PHASEGATE_ADMIN_KEY"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's record; the key itself is stored nowhere, only its SHA-256."""

    id: str
    name: str
    roles: frozenset[Role]
    actors: frozenset[str]  # ids of actors that are this person's own
    created_us: int
    created_by: str
    expires_us: int | None = None
    revoked_us: int | None = None

    def is_active(self, now_us: int) -> bool:
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


def create(
    tx: Transaction,
    *,
    name: str,
    roles: Iterable[Role],
    created_by: str,
    now_us: int,
    actors: Iterable[str] = (),
    expires_us: int | None = None,
    plaintext: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its plaintext, by default `pg_<id>_<secret>`, which is shown once and never again."""
    key_id = secrets.token_hex(6)
    plaintext = plaintext or f"pg_{key_id}_{secrets.token_urlsafe(32)}"
    key = ApiKey(key_id, name, frozenset(roles), frozenset(actors), now_us, created_by, expires_us)
    stored = {"roles": stored_roles(key.roles), "actors": stored_actors(key.actors)}
    tx.insert(api_keys, {**asdict(key), **stored, "secret_sha256": fingerprint(plaintext)})
    touch_plane(tx)
    return key, plaintext


def ensure_admin(tx: Transaction, preset: str | None, *, now_us: int) -> tuple[ApiKey, str] | None:
    """The first admin key and its plaintext: the preset one or a generated one; None where one is active.

    Raises `SettingsError` for a preset that was revoked.
    """
    # Locked, so that of two instances that start at once only one makes a key.
    tx.connection.execute(select(plane.c.id).with_for_update()).all()
    if any(Role.ADMIN in key.roles and key.is_active(now_us) for key in everyone(tx.connection)):
        return None
    if preset is not None:
        known = select(api_keys.c.id).where(api_keys.c.secret_sha256 == fingerprint(preset))
        if tx.connection.execute(known).first():
            raise SettingsError(ADMIN_PRESET, "was revoked or has expired: choose another")
    by = "preflight" if preset is None else "preset"
    return create(tx, name="admin", roles=[Role.ADMIN], created_by=by, now_us=now_us, plaintext=preset)


def revoke(tx: Transaction, key_id: str, *, now_us: int) -> ApiKey:
    """End a key at once; a key that has ended stays as it is. Raises `NotFound`."""
    this = api_keys.c.id == key_id
    tx.connection.execute(
        update(api_keys).where(this, api_keys.c.revoked_us.is_(None)).values(revoked_us=now_us)
    )
    row = tx.connection.execute(select(api_keys).where(this)).mappings().first()
    if row is None:
        raise NotFound("key", key_id)
    touch_plane(tx)
    return _record(row)


def everyone(connection: Connection) -> list[ApiKey]:
    """All keys, oldest first, ended ones included."""
    rows = connection.execute(select(api_keys).order_by(api_keys.c.created_us, api_keys.c.id))
    return [_record(row) for row in rows.mappings()]


def active(connection: Connection) -> dict[str, ApiKey]:
    """Keys that are not revoked, by `fingerprint`; ask `is_active` for the expiry at each use."""
    rows = connection.execute(select(api_keys).where(api_keys.c.revoked_us.is_(None)))
    return {row["secret_sha256"]: _record(row) for row in rows.mappings()}


def _record(row: RowMapping) -> ApiKey:
    parsed = {"roles": roles_in(row["roles"]), "actors": names_in(row["actors"])}
    return ApiKey(**{field.name: row[field.name] for field in fields(ApiKey)} | parsed)
