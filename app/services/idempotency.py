"""Has this very request been answered already?"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from app.domain.clock import to_us
from app.domain.decision import AnsweredBy, Decision
from app.errors import InvalidInput
from app.services.documents import remembered_decision
from app.services.plane import Plane
from app.services.records import Token
from app.store import tables as t
from app.store.decisions import find

LIFETIME_US = 600 * 1_000_000
MAX_TOKEN = 255


class Replays:
    """Answers a repeated idempotency key with its first decision, for ten minutes.

    A model's allow of an older revision is asked again: what was right then may have been rolled back.
    """

    def __init__(self, plane: Plane, *, now: Callable[[], datetime]) -> None:
        self._plane = plane
        self._now = now
        self._running: dict[tuple[str, str], tuple[str, asyncio.Future[dict[str, Any]]]] = {}

    async def once(
        self, key_id: str, value: str, body_sha256: str, ask: Callable[[Token], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """The decision of this key and body, asked for at most once at a time.

        Raises `InvalidInput` where the key came with another body before.
        """
        if not 0 < len(value) <= MAX_TOKEN:
            raise InvalidInput([("Idempotency-Key", f"must be 1 to {MAX_TOKEN} characters")])
        slot = (key_id, value)
        running = self._running.get(slot)
        if running is not None:
            _check_same(running[0], body_sha256)
            return await asyncio.shield(running[1])
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._running[slot] = (body_sha256, answer)
        try:
            token = Token(key_id, value, body_sha256, to_us(self._now()) + LIFETIME_US)
            known = await asyncio.to_thread(self._known, token)
            answer.set_result(known or await ask(token))
        except BaseException as error:
            answer.set_exception(error)
            answer.exception()  # seen, even where nobody else waits for it
            raise
        finally:
            del self._running[slot]
        return answer.result()

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
        .where(i.c.key_id == token.key_id, i.c.token == token.value, i.c.expires_us > now_us)
        .order_by(i.c.decision_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.decision_id, row.body_sha256)


def _check_same(known: str, body_sha256: str) -> None:
    if known != body_sha256:
        raise InvalidInput([("Idempotency-Key", "was used with another body")])
