"""Which observations become evidence, decided by their arrival alone?"""

import asyncio
from collections import OrderedDict
from datetime import datetime
from functools import partial
from hashlib import blake2b

import structlog

from app.domain.admission import Claim
from app.domain.clock import to_us
from app.engines.model.cache import question_of
from app.errors import PhasegateError
from app.observability import Event
from app.services.plane import Plane
from app.services.records import Placed
from app.store.counters import minute_of
from app.store.ledger import Ledger
from app.store.observed import WHOLE_EPOCH, Asked, Window, claim_all, forget, windows

log = structlog.get_logger()

_REMEMBERED = 8_192
_US_PER_HOUR = 3_600_000_000


class Admissions:
    """Claims what observations ask for, many in one transaction; a claim is made before the model answers.

    A situation is known again without its actor, as the model's memory knows it (`engines/model/cache.py`):
    the model does not read who asks, so an invented actor makes no new question of an old one. The price is
    that two people's identical questions are one observation, even where the rules name people.
    """

    def __init__(self, plane: Plane, ledger: Ledger) -> None:
        self._plane = plane
        self._ledger = ledger
        self._waiting: list[tuple[Asked, asyncio.Future[Claim]]] = []
        self._claiming: asyncio.Task[None] | None = None
        # What is known to be repeated costs no transaction: the longest unasked first.
        self._known: OrderedDict[tuple[Window, bytes], None] = OrderedDict()

    def claim(self, placed: Placed, *, within_s: float | None = None) -> asyncio.Future[Claim]:
        """Begin to claim; the future has a result in the end, and never an exception.

        After `within_s` it is `UNCLAIMED`, counted from now and not from what the model does: whoever answers
        fast must be no likelier to go uncounted than whoever times out.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Claim] = loop.create_future()
        if not placed.plan.exposed:
            result.set_result(Claim.UNCLAIMED)
            return result
        asked = self._asked(placed)
        if (asked.window, asked.situation) in self._known:
            self._known.move_to_end((asked.window, asked.situation))
            result.set_result(Claim.REPEATED)
            return result
        self._waiting.append((asked, result))
        if within_s is not None:
            loop.call_later(within_s, _settle, result, Claim.UNCLAIMED)
        if self._claiming is None or self._claiming.done():
            self._claiming = asyncio.create_task(self._claim_waiting())
        return result

    async def tidy(self, now: datetime) -> None:
        """Delete what is known of windows and epochs that are over, in steps that hold nobody up."""
        view, now_us = self._plane.view, to_us(now)
        # The window before is kept, too: a question that was on its way when it ended still claims in it.
        current = {
            policy.name: (view.states[policy.name].epoch, _number(policy.window_hours, now_us))
            for policy in view.policy.book.policies
        }
        for window in await asyncio.to_thread(self._windows):
            epoch, number = current.get(window.rollout, (window.epoch + 1, 0))
            if window.epoch < epoch or window.number not in (WHOLE_EPOCH, number - 1, number):
                while await self._ledger.run(partial(forget, window=window)):
                    pass

    def _windows(self) -> list[Window]:
        with self._plane.database.read() as connection:
            return windows(connection)

    async def _claim_waiting(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            asked = [each for each, _ in waiting]
            claims = await self._claims(asked)
            for (each, result), claim in zip(waiting, claims, strict=True):
                if claim in (Claim.ADMITTED, Claim.REPEATED):
                    self._remember(each)
                _settle(result, claim)

    async def _claims(self, asked: list[Asked]) -> list[Claim]:
        try:
            return await self._ledger.run(lambda tx: claim_all(tx, asked))
        except PhasegateError as error:
            log.warning(Event.OBSERVATION_LOST, error=str(error))
        except Exception:
            # No caller is to feel that their question could not become evidence.
            log.exception(Event.OBSERVATION_LOST)
        return [Claim.UNCLAIMED] * len(asked)

    def _remember(self, asked: Asked) -> None:
        self._known[asked.window, asked.situation] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _asked(self, placed: Placed) -> Asked:
        question, state, policy = placed.question, placed.state, placed.policy
        situation, secret = question.situation, self._plane.view.actor_secret
        actor_id = situation.actor_id.encode("utf-8", "surrogatepass")
        return Asked(
            Window(state.name, state.version, state.epoch, _number(policy.window_hours, question.now_us)),
            _hashed(question_of(situation, None), secret, b"situation"),
            _hashed(actor_id, secret, b"actor").hex(),
            question.principal.key_id,
            policy.actor_share,
            minute_of(question.now_us),
        )


def _settle(result: asyncio.Future[Claim], claim: Claim) -> None:
    if not result.done():
        result.set_result(claim)


def _number(window_hours: float, now_us: int) -> int:
    return int(now_us // (window_hours * _US_PER_HOUR))


def _hashed(what: bytes, secret: bytes, purpose: bytes) -> bytes:
    """Of no use to whoever reads the table without the plane's secret."""
    return blake2b(what, digest_size=16, key=secret, person=purpose).digest()
