"""Who is signed in, and until when?"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from app.domain.role import Principal
from app.store.people import fingerprint, principal_of
from app.store.tables import sessions as t
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is the hash of the token, which the browser alone holds."""

    id: str
    principal: Principal
    created_us: int
    seen_us: int
    expires_us: int


def begin(tx: Transaction, principal_id: str, *, now_us: int, expires_us: int) -> str:
    """Sign somebody in; returns the token of 256 bits for their browser."""
    token = secrets.token_urlsafe(32)
    row = {
        "token_sha256": fingerprint(token),
        "principal_id": principal_id,
        "created_us": now_us,
        "seen_us": now_us,
        "expires_us": expires_us,
    }
    tx.insert(t, row)
    return token


def find(connection: Connection, session_id: str, *, now_us: int, idle_us: int) -> Session | None:
    """The session, with its principal as of now; None where it, the key or the user has ended."""
    row = connection.execute(select(t).where(t.c.token_sha256 == session_id)).mappings().first()
    if row is None or row["expires_us"] <= now_us or row["seen_us"] + idle_us <= now_us:
        return None
    found = principal_of(connection, row["principal_id"], now_us=now_us)
    return None if found is None else _record(row, found[0])


def of(connection: Connection, principal: Principal, *, now_us: int, idle_us: int) -> list[Session]:
    """The open sessions of one principal, the latest seen first."""
    rows = connection.execute(
        select(t)
        .where(t.c.principal_id == principal.key_id, t.c.expires_us > now_us, t.c.seen_us + idle_us > now_us)
        .order_by(t.c.seen_us.desc(), t.c.token_sha256)
    )
    return [_record(row, principal) for row in rows.mappings()]


def touch(tx: Transaction, session_id: str, *, now_us: int) -> None:
    """The session was used."""
    tx.connection.execute(update(t).where(t.c.token_sha256 == session_id).values(seen_us=now_us))


def end(tx: Transaction, session_id: str) -> None:
    tx.connection.execute(delete(t).where(t.c.token_sha256 == session_id))


def end_all(tx: Transaction, principal_id: str, *, but: str | None = None) -> int:
    """Sign somebody out everywhere, or everywhere but in one session; returns from how many."""
    these = delete(t).where(t.c.principal_id == principal_id, t.c.token_sha256 != (but or ""))
    return tx.connection.execute(these).rowcount


def forget(tx: Transaction, *, now_us: int, idle_us: int) -> int:
    """Delete sessions that have run out; returns how many."""
    over = or_(t.c.expires_us <= now_us, t.c.seen_us + idle_us <= now_us)
    return tx.connection.execute(delete(t).where(over)).rowcount


def _record(row: Mapping[Any, Any], principal: Principal) -> Session:
    return Session(row["token_sha256"], principal, row["created_us"], row["seen_us"], row["expires_us"])
