"""Does the model say the same when it is asked the same again?"""

import asyncio
from collections import deque

import structlog

from app.domain.advisory import Advisory
from app.domain.counters import self_counts
from app.domain.decision import LegacyAnswer
from app.domain.sampling import asked_again
from app.engines.model.wire import Priority
from app.errors import PhasegateError
from app.observability import Event
from app.services.ports import Models
from app.services.records import Placed
from app.store.ledger import Ledger
from app.store.transaction import Transaction

log = structlog.get_logger()

_SEATS = 64


class AskedAgain:
    """Asks a sample a second time, after all answers and at the lowest priority; the oldest wait is given up first.

    A second time that fails is the error guardrail's matter no more than its cause is: it counts nothing.
    """

    def __init__(self, models: Models, ledger: Ledger) -> None:
        self._models = models
        self._ledger = ledger
        self._waiting: deque[tuple[Placed, LegacyAnswer, Advisory]] = deque(maxlen=_SEATS)
        self._work = asyncio.Event()

    def offer(self, decision_id: str, placed: Placed, legacy: LegacyAnswer, advisory: Advisory) -> None:
        """Ask again, if the decision is of the sample and its answer is evidence."""
        is_drawn = asked_again(decision_id, placed.policy.ask_twice_rate)
        if is_drawn and advisory.decision is not None and placed.is_evidence(advisory):
            self._waiting.append((placed, legacy, advisory))
            self._work.set()

    async def run_for_ever(self) -> None:
        while True:
            await self._work.wait()
            while self._waiting:
                try:
                    await self._ask(*self._waiting.popleft())
                except PhasegateError:
                    continue  # not counted: there will be others
                except Exception:
                    log.exception(Event.OBSERVATION_LOST)
            self._work.clear()

    async def _ask(self, placed: Placed, legacy: LegacyAnswer, first: Advisory) -> None:
        again = await self._models.of(first.version).advise(
            placed.question.situation,
            priority=Priority.REASONING,
            deadline_s=placed.policy.deadline_ms / 1000,
            legacy=legacy.decision,
        )
        counts = placed.counts(self_counts(first, again))

        def work(tx: Transaction) -> None:
            for key, n in counts:
                tx.count(key, n)

        if counts:
            await self._ledger.run(work)
