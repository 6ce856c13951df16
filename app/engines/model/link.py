"""How is a worker kept alive, and how does each request get its answer?"""

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import structlog

from app.domain.advisory import Outcome, Probabilities
from app.engines.model.process import WorkerProcess
from app.engines.model.wire import (
    HEADER,
    MAX_BODY,
    NO_REQUEST,
    Answer,
    Ask,
    Cancel,
    Explain,
    Explained,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Progress,
    ToWorker,
    frame,
)
from app.observability import Event

log = structlog.get_logger(__name__)


class ModelState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long what is waited for, in seconds.

    `grace_s`: a worker silent for so long past a deadline hangs. `backoff_s`: pauses before the next
    start after so many deaths without an answer between; one that cannot load waits the longest.
    """

    grace_s: float = 2.0
    load_s: float = 900.0
    backoff_s: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and for how long the worker computed it (0 when it never started)."""

    answer: Answer | Explained
    computed_s: float


@dataclass(slots=True, eq=False)
class _Pending:
    """A request that the worker has not answered yet, though its caller may have gone."""

    answer: asyncio.Future[Answer | Explained]
    deadline: float
    started_at: float | None = None

    @property
    def computed_s(self) -> float:
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    def resolve(self, answer: Answer | Explained) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class WorkerLink:
    """One worker process after another. Belongs to one event loop.

    `load` gives the first message of each life, so that a restarted worker gets the fault in force.
    """

    def __init__(self, load: Callable[[], Load], patience: Patience) -> None:
        self._load = load
        self._patience = patience
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
        self._ids = itertools.count(NO_REQUEST + 1)
        self._pending: dict[int, _Pending] = {}
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: WorkerProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._lives = self._deaths = 0
        self._heard_at = 0.0
        self.state = ModelState.DOWN
        self.loaded: Loaded | None = None
        self.error: str | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def restarts(self) -> int:
        return max(self._lives - 1, 0)

    @property
    def depth(self) -> int:
        """Requests that the worker still has to answer."""
        return len(self._pending)

    def start(self) -> None:
        """Keep a worker alive in the background from now on."""
        if self._task is None:
            self.state = ModelState.STARTING
            self._task = asyncio.get_running_loop().create_task(self._live(), name="model worker")

    async def stop(self) -> None:
        """End the worker; what is still asked is `unavailable`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def settle(self, timeout_s: float) -> None:
        """Wait until the model has loaded or could not. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await self._settled.wait()

    def send(self, request: int, message: ToWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(request, message))

    async def exchange(self, message: Ask | Explain, *, until: float) -> Reply:
        """Send a request and wait for its answer until a monotonic time. Raises only `CancelledError`."""
        request = next(self._ids)
        pending = _Pending(asyncio.get_running_loop().create_future(), until)
        self._pending[request] = pending
        self.send(request, message)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                answer = await pending.answer
        except TimeoutError:
            answer = Answer(Outcome.TIMEOUT, started=pending.started_at is not None)
        except asyncio.CancelledError:
            self.send(request, Cancel())
            raise
        return Reply(answer, pending.computed_s)

    async def _live(self) -> None:
        """One worker's life after the other, with a pause between that grows with every useless one."""
        while True:
            self.state = ModelState.STARTING
            self._lives += 1
            try:
                await self._one_life()
            except OSError as error:
                self.error = f"the worker cannot be started: {error}"
            finally:
                self.state = ModelState.DOWN
            pauses = self._patience.backoff_s
            pause = pauses[min(self._deaths, len(pauses) - 1)]
            self._deaths += 1
            await asyncio.sleep(pause)

    async def _one_life(self) -> None:
        process = self._process = WorkerProcess.spawn()
        reader, self._writer = await asyncio.open_unix_connection(sock=process.connection)
        self._heard_at = time.monotonic()
        self.send(NO_REQUEST, self._load())
        watch = asyncio.create_task(self._watch(process), name="model watch")
        failed = False
        try:
            failed = await self._listen(reader)
        finally:
            watch.cancel()
            self.state, self._process = ModelState.DOWN, None
            self._settled.clear()
            self._writer.close()
            ending = await process.end()
            self._bury()
        if failed:
            self._deaths = len(self._patience.backoff_s)
            self._settled.set()
        else:
            self.error = ending
        log.warning(Event.WORKER_LOST, pid=process.pid, error=self.error)

    async def _listen(self, reader: asyncio.StreamReader) -> bool:
        """Hear the worker until it is gone; True when it said that it cannot load."""
        while True:
            try:
                length, request = HEADER.unpack(await reader.readexactly(HEADER.size))
                if length > MAX_BODY:
                    return False  # out of step: nothing after this can be trusted
                body = await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return False
            self._heard_at = time.monotonic()
            try:
                message = self._decoder.decode(body)
            except msgspec.MsgspecError:
                self._answered(request, Answer(Outcome.MALFORMED, started=True))
                continue
            if isinstance(message, Failed):
                self.error = message.error
                return True
            self._hear(request, message)

    def _hear(self, request: int, message: Loaded | Progress | Answer | Explained) -> None:
        match message:
            case Loaded():
                self.loaded, self.error, self.state = message, None, ModelState.READY
                self._settled.set()
                log.info(Event.WORKER_READY, pid=self.pid, load_s=message.load_s, sha256=message.sha256)
            case Progress(started):
                if pending := self._pending.get(request):
                    pending.started_at = self._heard_at if started else None
            case Answer() if _is_nonsense(message):
                self._answered(request, Answer(Outcome.MALFORMED, started=True))
            case Answer() | Explained():
                self._deaths = 0
                self._answered(request, message)

    def _answered(self, request: int, answer: Answer | Explained) -> None:
        if pending := self._pending.pop(request, None):
            pending.resolve(answer)

    def _bury(self) -> None:
        """The worker is dead: nobody will answer what it was asked."""
        for pending in self._pending.values():
            pending.resolve(Answer(Outcome.UNAVAILABLE, started=pending.started_at is not None))
        self._pending.clear()

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill a worker that hangs: silent, with an answer overdue or a model not loaded in time."""
        grace_s = self._patience.grace_s
        while True:
            await asyncio.sleep(grace_s / 4)
            if time.monotonic() > max(self._due(), self._heard_at) + grace_s:
                process.kill()
                return

    def _due(self) -> float:
        """When the worker has to speak at the latest.

        While it computes, that is the deadline of what it computes: others may expire in its queue
        meanwhile without its fault.
        """
        if self.state is ModelState.STARTING:
            return self._heard_at + self._patience.load_s
        computing = [one.deadline for one in self._pending.values() if one.started_at is not None]
        waiting = [one.deadline for one in self._pending.values()]
        return min(computing or waiting, default=math.inf)


def _is_nonsense(answer: Answer) -> bool:
    if answer.outcome not in (Outcome.OK, Outcome.UNSURE):
        return False
    return answer.probabilities is None or not _is_distribution(answer.probabilities)


def _is_distribution(shares: Probabilities) -> bool:
    parts = (shares.allow, shares.require_attestation, shares.deny)
    return all(0 <= part <= 1 for part in parts) and abs(sum(parts) - 1) < 1e-3
