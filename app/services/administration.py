"""Who holds keys, and does the history hold together?"""

import math
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import structlog

from app.domain.clock import rfc3339, rfc3339_or_none, to_us
from app.domain.role import Principal, Role
from app.errors import InvalidInput
from app.observability import Event
from app.services.plane import Plane
from app.services.users import actor_errors, role_errors
from app.store import keys, people
from app.store.chain import Verification, verify
from app.store.history import TransitionFilters, find_transitions
from app.store.inclusion import inclusion
from app.store.ledger import Ledger

__all__ = ["Administration", "TransitionFilters", "key_document"]

log = structlog.get_logger()


class Administration:
    def __init__(self, plane: Plane, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._plane = plane
        self._ledger = ledger
        self._now = now

    def keys(self) -> list[dict[str, Any]]:
        with self._plane.database.read() as connection:
            return [key_document(key) for key in keys.everyone(connection)]

    def keys_in_use(self) -> frozenset[str]:
        """The ids of keys that open something now."""
        now_us = to_us(self._now())
        with self._plane.database.read() as connection:
            return frozenset(key.id for key in keys.everyone(connection) if key.is_active(now_us))

    def names(self) -> dict[str, str]:
        """Whose ids stand in the records: keys and users, ended ones too."""
        with self._plane.database.read() as connection:
            return people.names(connection)

    async def create_key(
        self, *, name: str, roles: list[str], actors: list[str], expires_us: int | None, by: Principal
    ) -> dict[str, Any]:
        """A new key; its plaintext is in the answer and nowhere else. Raises `InvalidInput`."""
        now_us = to_us(self._now())
        errors = [] if name.strip() and "\x00" not in name else [("name", "must be a non-empty text")]
        errors += [*role_errors(roles), *actor_errors(actors)]
        if expires_us is not None and expires_us <= now_us:
            errors.append(("expires_at", "must lie in the future"))
        if errors:
            raise InvalidInput(errors)
        key, plaintext = await self._ledger.run(
            lambda tx: keys.create(
                tx,
                name=name,
                roles=[Role(role) for role in roles],
                created_by=by.key_id,
                now_us=now_us,
                actors=actors,
                expires_us=expires_us,
            )
        )
        await self._plane.refresh_soon()
        log.info(Event.KEY_CREATED, id=key.id, roles=sorted(key.roles), by=by.key_id)
        return {**key_document(key), "key": plaintext}

    async def revoke_key(self, key_id: str, *, by: Principal) -> dict[str, Any]:
        now_us = to_us(self._now())
        key = await self._ledger.run(lambda tx: keys.revoke(tx, key_id, now_us=now_us))
        await self._plane.refresh_soon()
        log.info(Event.KEY_REVOKED, id=key_id, by=by.key_id)
        return key_document(key)

    def verify(self) -> dict[str, Any]:
        """Walk the hash chain from its beginning; reads the whole history."""
        with self._plane.database.read(at_most_s=math.inf) as connection:
            found: Verification = verify(connection)
        return {"ok": found.ok, **asdict(found)}

    def place_in_chain(self, decision_id: str) -> dict[str, Any] | None:
        """The batch that committed a decision, verified; None where none near its time did."""
        with self._plane.database.read() as connection:
            there = inclusion(connection, decision_id)
        if there is None:
            return None
        at = rfc3339(there.created_us)
        named = {"instance": there.instance, "seq": there.seq, "at": at, "hash": there.hash}
        return {**named, "ok": there.found.ok, "rows": there.found.rows, "problems": there.found.problems}

    def audit(self, filters: TransitionFilters, *, cursor: str | None, limit: int) -> dict[str, Any]:
        """Transitions of all rollouts, newest first, and the cursor of the next page where there is one."""
        with self._plane.database.read() as connection:
            found = find_transitions(connection, filters, cursor=cursor, limit=limit + 1)
        shown = found[:limit]
        return {"transitions": shown, "next_cursor": shown[-1]["id"] if len(found) > limit else None}


def key_document(key: keys.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "roles": sorted(key.roles),
        "actors": sorted(key.actors),
        "created_at": rfc3339(key.created_us),
        "created_by": key.created_by,
        "expires_at": rfc3339_or_none(key.expires_us),
        "revoked_at": rfc3339_or_none(key.revoked_us),
    }
