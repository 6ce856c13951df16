"""Has this very request been answered already?"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from app.domain.clock import to_us
from app.domain.decision import AnsweredBy, Decision
from app.errors import InvalidInput, StoreUnavailable
from app.services.documents import remembered_decision
from app.services.plane import Plane
from app.services.records import Token
from app.store import tables as t
from app.store.decisions import find
from app.store.ledger import Ledger, LedgerState

LIFETIME_US = 600 * 1_000_000
MAX_TOKEN = 255
_REMEMBERED = 4_096  # answers given while the database was away

Ask = Callable[[Token], Awaitable[dict[str, Any]]]
Slot = tuple[str, str]  # key id and token


class Replays:
    """Answers a repeated idempotency key with its first decision, for ten minutes.

    A model's allow of an older revision is asked again: what was right then may have been rolled back.
    """

    def __init__(self, plane: Plane, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._plane = plane
        self._ledger = ledger
        self._now = now
        self._running: dict[Slot, tuple[str, asyncio.Task[dict[str, Any]]]] = {}
        self._remembered: dict[Slot, tuple[Token, dict[str, Any]]] = {}

    async def once(self, key_id: str, value: str, body_sha256: str, ask: Ask) -> dict[str, Any]:
        """The decision of this key and body, asked for at most once at a time.

        Raises `InvalidInput` where the key came with another body before.
        """
        if not (0 < len(value) <= MAX_TOKEN and value.isprintable()):
            raise InvalidInput([("Idempotency-Key", f"must be 1 to {MAX_TOKEN} printable characters")])
        slot = (key_id, value)
        if slot not in self._running:
            token = Token(key_id, value, body_sha256, to_us(self._now()) + LIFETIME_US)
            self._running[slot] = body_sha256, self._started(slot, self._answer(token, ask))
        known, running = self._running[slot]
        _check_same(known, body_sha256)
        # Shielded: one caller that hangs up must not take the answer from the others.
        return await asyncio.shield(running)

    def _started(
        self, slot: Slot, answering: Coroutine[Any, Any, dict[str, Any]]
    ) -> asyncio.Task[dict[str, Any]]:
        def ended(task: asyncio.Task[dict[str, Any]]) -> None:
            del self._running[slot]
            if not task.cancelled():
                task.exception()  # seen, even where nobody waits any longer

        task = asyncio.create_task(answering)
        task.add_done_callback(ended)
        return task

    async def _answer(self, token: Token, ask: Ask) -> dict[str, Any]:
        slot = token.key_id, token.token
        found = self._remembered.get(slot)
        if found is not None and found[0].expires_us > to_us(self._now()):
            _check_same(found[0].body_sha256, token.body_sha256)
            return found[1]
        if self._ledger.state is LedgerState.OK:
            try:
                return await asyncio.to_thread(self._known, token) or await ask(token)
            except StoreUnavailable:
                pass
        # Nobody can look into the database now, and a caller that repeats itself must not be left without
        # an answer. What is answered meanwhile is not the model's (law 8), so it stays right.
        document = await ask(token)
        while len(self._remembered) >= _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[slot] = token, document
        return document

    def _known(self, token: Token) -> dict[str, Any] | None:
        now_us = to_us(self._now())
        with self._plane.database.read() as connection:
            found = _latest(connection, token, now_us)
            if found is None:
                return None
            _check_same(found[1], token.body_sha256)
            row = find(connection, found[0])
        if row is None:
            return None
        state = self._plane.view.states[row["rollout"]]
        by_model = row["answered_by"] == AnsweredBy.MODEL and row["decision"] == Decision.ALLOW
        if by_model and (row["revision"] != state.revision or self._plane.view.kill_switch):
            return None
        return remembered_decision(row, now_us=now_us)


def _latest(connection: Connection, token: Token, now_us: int) -> tuple[str, str] | None:
    """Decision and body hash of the newest living use of a key."""
    i = t.idempotency
    query = (
        select(i.c.decision_id, i.c.body_sha256)
        .where(i.c.key_id == token.key_id, i.c.token == token.token, i.c.expires_us > now_us)
        .order_by(i.c.decision_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.decision_id, row.body_sha256)


def _check_same(known: str, body_sha256: str) -> None:
    if known != body_sha256:
        raise InvalidInput([("Idempotency-Key", "was used with another body")])
