"""What has the worker been asked that it has not answered yet?"""

import asyncio
import itertools
import math
import time
from dataclasses import dataclass

from app.domain.advisory import Outcome
from app.engines.model.wire import NO_REQUEST, Answer, Explained


@dataclass(slots=True, eq=False)
class Pending:
    """A request that is not answered, though its caller may have gone. Times are monotonic seconds."""

    answer: asyncio.Future[Answer | Explained]
    deadline: float
    started_at: float | None = None

    @property
    def computed_s(self) -> float:
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    def resolve(self, answer: Answer | Explained) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Requests:
    """The open requests of one worker, by their ids."""

    def __init__(self) -> None:
        self._ids = itertools.count(NO_REQUEST + 1)
        self._open: dict[int, Pending] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def started(self) -> int:
        """How many of them the worker is computing."""
        return sum(one.started_at is not None for one in self._open.values())

    def add(self, deadline: float) -> tuple[int, Pending]:
        request, pending = next(self._ids), Pending(asyncio.get_running_loop().create_future(), deadline)
        self._open[request] = pending
        return request, pending

    def progress(self, request: int, started_at: float | None) -> None:
        """The worker began with a request, or (None) put it back."""
        if pending := self._open.get(request):
            pending.started_at = started_at

    def answered(self, request: int, answer: Answer | Explained) -> None:
        """Give an answer to whoever waits; an unknown request counts as nothing."""
        if pending := self._open.pop(request, None):
            pending.resolve(answer)

    def bury(self) -> None:
        """The worker is dead: nobody will answer these."""
        for pending in self._open.values():
            pending.resolve(Answer(Outcome.UNAVAILABLE, started=pending.started_at is not None))
        self._open.clear()

    def due(self) -> float:
        """When the next answer is due at the latest.

        While the worker computes, that is the deadline of what it computes: others may expire in its
        queue meanwhile without its fault.
        """
        computing = [one.deadline for one in self._open.values() if one.started_at is not None]
        waiting = [one.deadline for one in self._open.values()]
        return min(computing or waiting, default=math.inf)
