"""What did another instance do, so that whoever follows this one hears of it too?"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from app.services.notices import Notices
from app.services.plane import Plane
from app.store.history import list_transitions
from app.store.reviews import QueueMark, queue_mark

_LATEST = 20  # transitions: more than all instances make between two looks


@dataclass(slots=True)
class Watch:
    """Looks as often as the plane's snapshot is read."""

    plane: Plane
    notices: Notices
    _revision: int | None = field(default=None, init=False)
    _policy: str | None = field(default=None, init=False)
    _queue: QueueMark | None = field(default=None, init=False)

    async def look(self) -> None:
        """Publish transitions that nobody told here, and that the policy or the queue of reviews has changed.

        The first look publishes nothing: what was before it is no news.
        """
        view, first = self.plane.view, self._revision is None
        moved = view.revision != self._revision
        if not moved and not self.notices.followers:
            self._queue = None
            return
        queue, transitions = await asyncio.to_thread(self._read, moved=moved)
        for transition in reversed(transitions):  # oldest first
            if first:
                self.notices.remember(transition["id"])
            else:
                self.notices.heard(transition)
        if self._policy not in (None, view.policy.sha256):
            self.notices.publish("plane", {})
        if self._queue not in (None, queue):
            self.notices.publish("review", {})
        self._revision, self._policy, self._queue = view.revision, view.policy.sha256, queue

    def _read(self, *, moved: bool) -> tuple[QueueMark, list[dict[str, Any]]]:
        with self.plane.database.read() as connection:
            transitions = list_transitions(connection, None, limit=_LATEST) if moved else []
            return queue_mark(connection), transitions
