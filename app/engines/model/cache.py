"""Which questions has a version answered before, so that it need not compute them again?"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import Protocol

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation, canonical
from app.engines.model.supervisor import ModelStatus
from app.engines.model.wire import Priority

ENTRIES = 4096
_KEPT = (Outcome.OK, Outcome.UNSURE)
_TROUBLE = (Outcome.UNAVAILABLE, Outcome.TIMEOUT, Outcome.MALFORMED)


class Asked(Protocol):
    """One version, whichever way it runs and whether or not its answers are remembered."""

    @property
    def version_id(self) -> str: ...

    @property
    def shows_legacy(self) -> bool: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def circuit_open(self) -> bool: ...

    @property
    def status(self) -> ModelStatus: ...

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning: ...

    async def inject(self, fault: str | None) -> None: ...


class Engine(Asked, Protocol):
    """What computes: `ModelSupervisor` or `RemoteModel`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait_ready(self, timeout_s: float) -> bool: ...

    async def advise(
        self, situation: Situation, *, priority: Priority, deadline_s: float, legacy: Decision | None = None
    ) -> Advisory: ...


def question_of(situation: Situation, legacy: Decision | None) -> bytes:
    """One value for everything that the model reads: the whole situation but its actor, and the legacy
    answer where it is shown (else None).

    Two situations that a prompt writes differently never share one (SHA-256 of the canonical JSON).
    """
    text = canonical(replace(situation, actor_id=""))
    return hashlib.sha256(f"{legacy} {text}".encode("utf-8", "surrogatepass")).digest()


class Remembering:
    """An engine with a memory of its last answers: the surface that the use cases ask.

    Memory does not stand in for an engine in trouble: after a failure it is the engine's answer that tells
    whether it is well again. And it lasts as long as the worker that filled it: a restarted one may have
    found other files.
    """

    def __init__(self, engine: Engine, *, limit: int = ENTRIES) -> None:
        self.engine = engine
        self._limit = limit
        self._answers: OrderedDict[Hashable, Advisory] = OrderedDict()  # the longest unused first
        self._life: tuple[str | None, int] | None = None
        self._in_trouble = False

    @property
    def version_id(self) -> str:
        return self.engine.version_id

    @property
    def shows_legacy(self) -> bool:
        return self.engine.shows_legacy

    @property
    def is_ready(self) -> bool:
        return self.engine.is_ready

    @property
    def circuit_open(self) -> bool:
        return self.engine.circuit_open

    @property
    def status(self) -> ModelStatus:
        return self.engine.status

    async def advise(
        self,
        situation: Situation,
        *,
        priority: Priority,
        deadline_s: float,
        legacy: Decision | None = None,
        scope: Hashable = None,
    ) -> Advisory:
        """As the engine does. With a `scope`, a question asked in it before is answered from memory."""
        began = time.monotonic()
        if scope is None or not self.engine.is_ready:
            return await self._compute(situation, priority, deadline_s, legacy)
        self._forget_earlier_lives()
        question = (scope, question_of(situation, legacy if self.engine.shows_legacy else None))
        known = None if self._in_trouble else self._answers.get(question)
        if known is not None:
            self._answers.move_to_end(question)
            return replace(known, cached=True, latency_ms=(time.monotonic() - began) * 1000)
        answer = await self._compute(situation, priority, deadline_s, legacy)
        if answer.outcome not in _KEPT:
            return answer
        if question in self._answers:
            # Asked twice at once, or again after trouble: computed, but no news.
            return replace(answer, cached=True)
        self._answers[question] = answer
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)
        return answer

    async def _compute(
        self, situation: Situation, priority: Priority, deadline_s: float, legacy: Decision | None
    ) -> Advisory:
        answer = await self.engine.advise(situation, priority=priority, deadline_s=deadline_s, legacy=legacy)
        if answer.outcome in _KEPT:
            self._in_trouble = False
        elif answer.started and answer.outcome in _TROUBLE:
            self._in_trouble = True
        return answer

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        return await self.engine.explain(situation, advisory, legacy=legacy)

    async def inject(self, fault: str | None) -> None:
        await self.engine.inject(fault)

    def _forget_earlier_lives(self) -> None:
        status = self.engine.status
        life = (status.sha256, status.restarts)
        if life != self._life:
            self._life = life
            self._answers.clear()
