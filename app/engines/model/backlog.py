"""What does the worker compute next, and when must it stop what it is computing?"""

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.engines.model.explaining import Reasoner
from app.engines.model.wire import Ask, Drop, Explain, Prepare, Priority

_NOBODY = max(Priority) + 1


@dataclass(slots=True, eq=False)
class Job:
    """One request, or a change of the versions that are held.

    `reasoner` keeps an explanation's progress while more urgent work goes first.
    """

    request: int
    ask: Ask | Explain | Prepare | Drop
    reasoner: Reasoner | None = None
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def priority(self) -> Priority:
        match self.ask:
            case Ask(priority):
                return priority
            case Explain():
                return Priority.REASONING
            case Prepare() | Drop():
                return Priority.SHADOW

    @property
    def due(self) -> float:
        """By which time it is wanted; a change of versions at once, so before what else is of its priority."""
        return self.ask.deadline if isinstance(self.ask, Ask | Explain) else self.arrived

    def is_over(self) -> bool:
        """Nobody waits for it any more."""
        return isinstance(self.ask, Ask | Explain) and (self.cancelled or time.monotonic() >= self.due)


class Backlog:
    """Jobs by priority, then deadline. One thread puts, another takes and computes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrived = threading.Condition()
        self._order = itertools.count()
        self._waiting: list[tuple[Priority, float, int, Job]] = []
        self._running: list[Job] = []
        self._most_urgent: int = _NOBODY

    def put(self, job: Job) -> bool:
        """Queue a job; False when the backlog is full, which a change of versions does not heed."""
        with self._arrived:
            if len(self._waiting) >= self._limit and isinstance(job.ask, Ask | Explain):
                return False
            heapq.heappush(self._waiting, (job.priority, job.due, next(self._order), job))
            self._most_urgent = self._waiting[0][0]
            self._arrived.notify()
            return True

    def take(self) -> Job:
        """The most urgent job, as soon as there is one."""
        with self._arrived:
            self._running = []
            self._arrived.wait_for(lambda: self._waiting)
            job = heapq.heappop(self._waiting)[-1]
            self._running = [job]
            self._most_urgent = self._waiting[0][0] if self._waiting else _NOBODY
            return job

    def take_alike(self, job: Job, limit: int) -> list[Job]:
        """At once, up to so many more questions of shadow to the same version, the most urgent first."""
        with self._arrived:
            alike = [entry for entry in sorted(self._waiting) if _alike(entry[-1], job)][:limit]
            self._remove([entry[-1] for entry in alike])
            self._running += [entry[-1] for entry in alike]
            return [entry[-1] for entry in alike]

    def sweep(self) -> list[Job]:
        """Take out the jobs that nobody waits for any more, wherever they stand."""
        with self._arrived:
            over = [entry[-1] for entry in self._waiting if entry[-1].is_over()]
            self._remove(over)
            return over

    def cancel(self, request: int) -> None:
        with self._arrived:
            for job in (*self._running, *(entry[-1] for entry in self._waiting)):
                if job.request == request:
                    job.cancelled = True

    def must_stop(self, jobs: Sequence[Job]) -> bool:
        """Asked between any two steps of a computation of one or more jobs, so it takes no lock.

        Binding work stops shadow work and reasoning at once; what else is more urgent waits until the
        decode at hand is done. What is computed together stops when nobody waits for any of it.
        """
        binding_waits = self._most_urgent == Priority.BINDING and jobs[0].priority >= Priority.SHADOW
        return binding_waits or all(job.is_over() for job in jobs)

    def has_more_urgent(self, job: Job) -> bool:
        return self._most_urgent < job.priority

    def _remove(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self._waiting = [entry for entry in self._waiting if entry[-1] not in jobs]
            heapq.heapify(self._waiting)
            self._most_urgent = self._waiting[0][0] if self._waiting else _NOBODY


def _alike(one: Job, other: Job) -> bool:
    return (
        isinstance(one.ask, Ask)
        and isinstance(other.ask, Ask)
        and one.priority is other.priority is Priority.SHADOW
        and one.ask.version == other.ask.version
    )
