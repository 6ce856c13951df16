"""Which questions has a version answered before, so that it need not compute them again?"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.domain.situation import Situation, canonical
from app.engines.model.wire import Priority

_ENTRIES = 4096
_KEPT = (Outcome.OK, Outcome.UNSURE)
_TROUBLE = (Outcome.UNAVAILABLE, Outcome.TIMEOUT, Outcome.MALFORMED)


def question_of(situation: Situation, legacy: Decision | None) -> bytes:
    """One value for everything that the model reads: the whole situation but its actor, and the legacy
    answer where it is shown (else None).

    Two situations that a prompt writes differently never share one (SHA-256 of the canonical JSON).
    """
    text = canonical(replace(situation, actor_id=""))
    return hashlib.sha256(f"{legacy} {text}".encode("utf-8", "surrogatepass")).digest()


class Remembering(ABC):
    """A model with a memory of its last `entries` answers.

    Memory does not stand in for a model in trouble: after a failure it is the model's answer that tells
    whether it is well again. And it lasts as long as the worker that filled it: a restarted one may have
    found other files.
    """

    shows_legacy: bool

    def __init__(self, *, entries: int = _ENTRIES) -> None:
        self._entries = entries
        self._answers: OrderedDict[Hashable, Advisory] = OrderedDict()  # the longest unused first
        self._remembered_life: Hashable = None
        self._in_trouble = False

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether a question asked now would be taken up."""

    @property
    @abstractmethod
    def _life(self) -> Hashable:
        """Another value with every worker that may answer differently."""

    @abstractmethod
    async def _compute(
        self, situation: Situation, priority: Priority, deadline_s: float, legacy: Decision | None
    ) -> Advisory: ...

    async def advise(
        self,
        situation: Situation,
        *,
        priority: Priority,
        deadline_s: float,
        legacy: Decision | None = None,
        scope: Hashable = None,
    ) -> Advisory:
        """Ask the model. Whatever goes wrong is an outcome; only cancellation is raised.

        `legacy` reaches the prompt only where the version shows it. With a `scope`, a question asked in it
        before is answered from memory.
        """
        began = time.monotonic()
        if scope is None or not self.is_ready:
            return await self._answer(situation, priority, deadline_s, legacy)
        if self._life != self._remembered_life:
            self._remembered_life = self._life
            self._answers.clear()
        question = (scope, question_of(situation, legacy if self.shows_legacy else None))
        known = None if self._in_trouble else self._answers.get(question)
        if known is not None:
            self._answers.move_to_end(question)
            return replace(known, cached=True, latency_ms=(time.monotonic() - began) * 1000)
        answer = await self._answer(situation, priority, deadline_s, legacy)
        if answer.outcome not in _KEPT:
            return answer
        if question in self._answers:
            # Asked twice at once, or again after trouble: computed, but no news.
            return replace(answer, cached=True)
        self._answers[question] = answer
        if len(self._answers) > self._entries:
            self._answers.popitem(last=False)
        return answer

    async def _answer(
        self, situation: Situation, priority: Priority, deadline_s: float, legacy: Decision | None
    ) -> Advisory:
        answer = await self._compute(situation, priority, deadline_s, legacy)
        if answer.outcome in _KEPT:
            self._in_trouble = False
        elif answer.started and answer.outcome in _TROUBLE:
            self._in_trouble = True
        return answer
