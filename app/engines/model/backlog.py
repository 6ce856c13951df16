"""What does the worker compute next, and when must it stop what it is computing?"""

import heapq
import itertools
import threading
import time
from dataclasses import dataclass

from app.engines.model.scoring import Reasoner
from app.engines.model.wire import Ask, Explain, Priority

_NOBODY = max(Priority) + 1


@dataclass(slots=True, eq=False)
class Job:
    """One request. `reasoner` keeps an explanation's progress while more urgent work goes first."""

    request: int
    ask: Ask | Explain
    reasoner: Reasoner | None = None
    cancelled: bool = False

    @property
    def priority(self) -> Priority:
        return self.ask.priority if isinstance(self.ask, Ask) else Priority.REASONING

    def is_over(self) -> bool:
        """Nobody waits for it any more."""
        return self.cancelled or time.monotonic() >= self.ask.deadline


class Backlog:
    """Jobs by priority, then deadline. One thread puts, another takes and computes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrived = threading.Condition()
        self._order = itertools.count()
        self._waiting: list[tuple[Priority, float, int, Job]] = []
        self._running: Job | None = None
        self._most_urgent: int = _NOBODY

    def put(self, job: Job) -> bool:
        """Queue a job; False when the backlog is full."""
        with self._arrived:
            if len(self._waiting) >= self._limit:
                return False
            heapq.heappush(self._waiting, (job.priority, job.ask.deadline, next(self._order), job))
            self._most_urgent = self._waiting[0][0]
            self._arrived.notify()
            return True

    def take(self) -> Job:
        """The most urgent job, as soon as there is one."""
        with self._arrived:
            self._running = None
            self._arrived.wait_for(lambda: self._waiting)
            self._running = heapq.heappop(self._waiting)[-1]
            self._most_urgent = self._waiting[0][0] if self._waiting else _NOBODY
            return self._running

    def sweep(self) -> list[Job]:
        """Take out the jobs that nobody waits for any more, wherever they stand."""
        with self._arrived:
            over = [entry[-1] for entry in self._waiting if entry[-1].is_over()]
            if over:
                self._waiting = [entry for entry in self._waiting if entry[-1] not in over]
                heapq.heapify(self._waiting)
                self._most_urgent = self._waiting[0][0] if self._waiting else _NOBODY
            return over

    def cancel(self, request: int) -> None:
        with self._arrived:
            running = [self._running] if self._running else []
            for job in (*running, *(entry[-1] for entry in self._waiting)):
                if job.request == request:
                    job.cancelled = True

    def must_stop(self, job: Job) -> bool:
        """Asked between any two steps of a computation, so it takes no lock.

        Binding work stops shadow work and reasoning at once; what else is more urgent waits until the
        decode at hand is done.
        """
        binding_waits = self._most_urgent == Priority.BINDING and job.priority >= Priority.SHADOW
        return binding_waits or job.is_over()

    def has_more_urgent(self, job: Job) -> bool:
        return self._most_urgent < job.priority
