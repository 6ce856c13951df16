"""Is the server that holds a version there, and does it serve that version?"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.domain.advisory import Outcome
from app.engines.model.completions import CompletionServer, Failure
from app.engines.model.engine import ModelState
from app.observability import Event

log = structlog.get_logger(__name__)

_LOOK_S = 5.0  # for how long a server that was seen is believed to be there
_LOOK_DEADLINE_S = 10.0
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class ServerWatch:
    """Looks again and again: now and then while the server is there, with growing pauses while not.

    `load_s` is how long its first answer took. `error` says what is wrong, for a person.
    """

    def __init__(self, version: str, *, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._version, self._pauses_s = version, pauses_s
        self._settled, self._doubted = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state, self.error = ModelState.DOWN, ""
        self.times_up = 0
        self.load_s: float | None = None

    def start(self, server: CompletionServer, try_out: Callable[[], Awaitable[None]]) -> None:
        """Begin; `try_out` asks a server that was away a first question. It raises `Failure`."""
        if self._task is None:
            self.state = ModelState.STARTING
            self._task = asyncio.create_task(self._watch(server, try_out), name="remote model watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self.state, self._task = ModelState.DOWN, None

    async def settle(self, timeout_s: float) -> None:
        """Wait until the server has answered or turned out not to serve. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await self._settled.wait()

    def doubt(self, failure: Failure) -> None:
        """A question found nobody there: ask nothing more before looking again, at once."""
        self._went_down(failure)
        self._doubted.set()

    async def _watch(self, server: CompletionServer, try_out: Callable[[], Awaitable[None]]) -> None:
        pauses = iter(self._pauses_s)
        while True:
            try:
                async with asyncio.timeout(_LOOK_DEADLINE_S):
                    await server.look()
                    if self.state is not ModelState.READY:
                        await self._come_up(try_out)
            except (Failure, TimeoutError) as error:
                failure = error if isinstance(error, Failure) else Failure(Outcome.TIMEOUT, "does not answer")
                self._went_down(failure)
                pause = next(pauses, self._pauses_s[-1])
            else:
                pauses, pause = iter(self._pauses_s), _LOOK_S
            self._doubted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._doubted.wait()

    async def _come_up(self, try_out: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        await try_out()
        self.load_s = time.monotonic() - began
        self.state, self.error, self.times_up = ModelState.READY, "", self.times_up + 1
        self._settled.set()
        log.info(Event.WORKER_READY, version=self._version, load_s=self.load_s)

    def _went_down(self, failure: Failure) -> None:
        self.error = str(failure)
        if self.state is ModelState.READY:
            log.warning(Event.WORKER_LOST, version=self._version, error=self.error)
        # A server that still loads its model is busy, too: it settles when that is over.
        if failure.outcome is Outcome.OVERLOADED and self.state is ModelState.STARTING:
            return
        self.state = ModelState.DOWN
        self._settled.set()
