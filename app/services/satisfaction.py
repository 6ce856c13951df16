"""Does the model's help content those who judge?"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from app.domain.clock import to_us
from app.domain.role import Principal
from app.errors import InvalidInput
from app.services.plane import Plane
from app.store.ledger import Ledger
from app.store.satisfaction import answer, answers

MAX_COMMENT = 2_000  # characters

_DAY_US = 86_400_000_000
_SCORES = range(1, 6)


class Satisfaction:
    def __init__(self, plane: Plane, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._plane = plane
        self._ledger = ledger
        self._now = now

    async def tell(self, score: int, comment: str | None, principal: Principal) -> dict[str, Any]:
        """Keep a reviewer's answer, 1 (not at all) to 5. Raises `Conflict` where they answered today."""
        errors = []
        if score not in _SCORES:
            errors.append(("score", "must be a whole number from 1 to 5"))
        if comment is not None and (len(comment) > MAX_COMMENT or "\x00" in comment):
            errors.append(("comment", f"must have at most {MAX_COMMENT} characters, none of them NUL"))
        if errors:
            raise InvalidInput(errors)
        now_us = to_us(self._now())
        await self._ledger.run(
            partial(answer, key_id=principal.key_id, score=score, comment=comment, now_us=now_us)
        )
        return {"score": score, "comment": comment}

    def of(self, *, days: int) -> dict[str, Any]:
        """`{n, mean, by_score, latest}` of so many days back from now; nobody is named."""
        until_us = to_us(self._now()) + 1
        with self._plane.database.read() as connection:
            return answers(connection, since_us=until_us - days * _DAY_US, until_us=until_us)
