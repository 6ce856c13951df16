"""Who waits for something to happen, and how do they hear of it?"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from app.observability import TRANSITIONS, Event

log = structlog.get_logger()

FOR_PAGES = frozenset({"review", "plane"})  # kinds that only say to look again

_BACKLOG = 256
_QUIET_S = 15.0
_REMEMBERED = 512  # transitions


class Notices:
    """In-process news: decisions that came into force, and events for whoever follows the plane.

    Lives on one event loop. A follower that does not keep up loses the oldest events.
    """

    def __init__(self) -> None:
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._followers: set[asyncio.Queue[tuple[str, dict[str, Any]]]] = set()
        self._heard: deque[str] = deque(maxlen=_REMEMBERED)
        self.closed = False

    def close(self) -> None:
        """The server ends: let go of whoever waits or follows."""
        self.closed = True
        for waiting in self._waiters.values():
            for event in waiting:
                event.set()
        self.publish("", {})

    def decided(self, decision_id: str) -> None:
        for event in self._waiters.get(decision_id, ()):
            event.set()

    @contextmanager
    def waiting_for(self, decision_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the decision in force changes."""
        event = asyncio.Event()
        self._waiters[decision_id].add(event)
        try:
            yield event
        finally:
            self._waiters[decision_id].discard(event)
            if not self._waiters[decision_id]:
                del self._waiters[decision_id]

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((kind, body))

    def moved(self, transition: dict[str, Any]) -> None:
        """Count, log and publish a transition."""
        kind, automatic = transition["kind"], transition["automatic"]
        TRANSITIONS.labels(transition["rollout"], kind, str(automatic).lower()).inc()
        event = Event.ROLLBACK if kind == "rollback" else Event.TRANSITION
        facts = {name: transition[name] for name in ("rollout", "kind", "actor", "reason")}
        log.log(logging.WARNING if automatic else logging.INFO, event, **facts)
        self.heard(transition)

    def heard(self, transition: dict[str, Any]) -> None:
        """Publish a transition, once, whichever instance made it."""
        if self.remember(transition["id"]):
            self.publish("transition", transition)

    def remember(self, transition_id: str) -> bool:
        """Whether a transition is news; from now on it is none."""
        if transition_id in self._heard:
            return False
        self._heard.append(transition_id)
        return True

    @property
    def followers(self) -> int:
        return len(self._followers)

    async def follow(self, *, quiet_s: float = _QUIET_S) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        """Every event until the server ends, as kind and body; an empty kind after each quiet while."""
        queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(_BACKLOG)
        self._followers.add(queue)
        try:
            while not self.closed:
                yield await _next(queue, quiet_s)
        finally:
            self._followers.discard(queue)


async def _next(
    queue: asyncio.Queue[tuple[str, dict[str, Any]]], quiet_s: float
) -> tuple[str, dict[str, Any]]:
    try:
        return await asyncio.wait_for(queue.get(), quiet_s)
    except TimeoutError:
        return "", {}
