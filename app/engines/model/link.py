"""How is a worker kept alive with the versions that it holds, and how does each request get its answer?"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import msgspec
import structlog

from app.domain.advisory import Outcome
from app.engines.model.engine import ModelState
from app.engines.model.pending import Requests
from app.engines.model.process import WorkerProcess
from app.engines.model.roster import Roster
from app.engines.model.version import ModelVersion
from app.engines.model.wire import (
    HEADER,
    MAX_BODY,
    NO_REQUEST,
    Answer,
    Ask,
    Cancel,
    Drop,
    Explain,
    Explained,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Misbehave,
    Prepare,
    Prepared,
    Progress,
    ToWorker,
    frame,
)
from app.observability import Event

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long what is waited for, in seconds.

    `grace_s`: a worker silent for so long past a deadline hangs. `prepare_s`: as long as it takes a version
    in, it may be silent so long. `backoff_s`: pauses before the next start after so many deaths without
    an answer between; one that cannot load waits the longest.
    """

    grace_s: float = 2.0
    load_s: float = 900.0
    prepare_s: float = 60.0
    backoff_s: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and for how long the worker computed it (0 when it never started)."""

    answer: Answer | Explained
    computed_s: float


class WorkerLink:
    """One worker process after another, for versions that share one loaded model. Belongs to one event loop.

    `load` is the first message of each life, without its versions. The fault in it can be changed, so that
    a restarted worker gets the one in force.
    """

    def __init__(self, load: Load, patience: Patience) -> None:
        self._load = load
        self._patience = patience
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
        self._requests = Requests()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: WorkerProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._lives = self._deaths = 0
        self._heard_at = 0.0
        self._roster = Roster()
        self._state = ModelState.DOWN
        self._cannot_load = False
        self.loaded: Loaded | None = None
        self._error: str | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def restarts(self) -> int:
        return max(self._lives - 1, 0)

    @property
    def depth(self) -> int:
        """Requests that the worker still has to answer."""
        return len(self._requests)

    @property
    def fault(self) -> str | None:
        return self._load.fault

    def state_of(self, version_id: str) -> ModelState:
        if self._state is not ModelState.READY:
            return self._state
        if version_id not in self._roster:
            return ModelState.DOWN
        if not self._roster.has_settled(version_id):
            return ModelState.STARTING
        return ModelState.DOWN if self._roster.error_of(version_id) else ModelState.READY

    def error_of(self, version_id: str) -> str | None:
        return self._error or self._roster.error_of(version_id)

    def has_loaded(self, version_id: str) -> bool:
        """Whether the version could be asked at any time, in this life or before."""
        return self._roster.has_served(version_id)

    def take_in(self, version: ModelVersion) -> None:
        """Keep a worker alive in the background from now on, and the version in it."""
        self._roster.add(version)
        if self._task is None:
            self._state = ModelState.STARTING
            self._task = asyncio.get_running_loop().create_task(self._live(), name="model worker")
        elif self._state is ModelState.READY and not self._roster.has_settled(version.id):
            self.send(NO_REQUEST, Prepare(version))

    async def let_go(self, version_id: str) -> None:
        """Forget a version; with the last one the worker ends. What is still asked is `unavailable`."""
        if not self._roster.remove(version_id):
            return
        if self._roster:
            self.send(NO_REQUEST, Drop(version_id))
            return
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def settle(self, version_id: str, timeout_s: float) -> None:
        """Wait until a version can be asked or could not be taken in. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            while not (self._cannot_load or self._roster.has_settled(version_id)):
                await self._news.wait()

    def misbehave(self, fault: str | None) -> None:
        """Drills: from now on, in this life and the next ones."""
        self._load = msgspec.structs.replace(self._load, fault=fault)
        self.send(NO_REQUEST, Misbehave(fault))

    def send(self, request: int, message: ToWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(request, message))

    async def exchange(self, message: Ask | Explain, *, until: float) -> Reply:
        """Send a request and wait for its answer until a monotonic time. Raises only `CancelledError`."""
        request, pending = self._requests.add(until)
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
            self._state = ModelState.STARTING
            self._lives += 1
            try:
                await self._one_life()
            except OSError as error:
                self._error, self._cannot_load = f"the worker cannot be started: {error}", True
                self._tell()
            finally:
                self._state = ModelState.DOWN
            pauses = self._patience.backoff_s
            pause = pauses[min(self._deaths, len(pauses) - 1)]
            self._deaths += 1
            await asyncio.sleep(pause)

    async def _one_life(self) -> None:
        process = self._process = WorkerProcess.spawn()
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=process.connection)
        except BaseException:  # stopped before it began
            self._process = None
            await process.end()
            raise
        self._heard_at = time.monotonic()
        first = self._roster.first()
        self.send(NO_REQUEST, msgspec.structs.replace(self._load, versions=first))
        watch = asyncio.create_task(self._watch(process), name="model watch")
        failed = False
        try:
            failed = await self._listen(reader, first)
        finally:
            watch.cancel()
            had_loaded = self._state is ModelState.READY
            self._state, self._process = ModelState.DOWN, None
            self._roster.died()
            self._writer.close()
            ending = await process.end()
            self._requests.bury()
        if failed:
            self._deaths = len(self._patience.backoff_s)
            self._roster.blame(first)
        else:
            self._error = ending
        self._cannot_load = not had_loaded
        self._tell()
        log.warning(Event.WORKER_LOST, pid=process.pid, error=self._error)

    async def _listen(self, reader: asyncio.StreamReader, first: tuple[ModelVersion, ...]) -> bool:
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
                self._requests.answered(request, Answer(Outcome.MALFORMED, started=True))
                continue
            if isinstance(message, Failed):
                self._error = message.error
                return True
            if isinstance(message, Loaded):
                self._begin(message, first)
            else:
                self._hear(request, message)

    def _begin(self, loaded: Loaded, first: tuple[ModelVersion, ...]) -> None:
        """The model has loaded: take in whoever was not among the first."""
        self.loaded, self._error, self._state = loaded, None, ModelState.READY
        self._cannot_load = False
        log.info(Event.WORKER_READY, pid=self.pid, load_s=loaded.load_s, sha256=loaded.sha256)
        for version in first:
            self._took(version.id, None)
        for version in self._roster.missing():
            self.send(NO_REQUEST, Prepare(version))

    def _took(self, version_id: str, error: str | None) -> None:
        if version_id in self._roster:
            self._roster.took(version_id, error)
            self._tell()
        else:
            self.send(NO_REQUEST, Drop(version_id))  # let go while it was taken in

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()

    def _hear(self, request: int, message: Prepared | Progress | Answer | Explained) -> None:
        match message:
            case Prepared(version_id, error):
                self._took(version_id, error)
            case Progress(started):
                self._requests.progress(request, self._heard_at if started else None)
            case Answer() | Explained():
                self._deaths = 0
                self._requests.answered(request, message)

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill a worker that hangs: silent, with an answer overdue or a model not loaded in time."""
        grace_s = self._patience.grace_s
        while True:
            await asyncio.sleep(grace_s / 4)
            if time.monotonic() > max(self._due(), self._heard_at) + grace_s:
                process.kill()
                return

    def _due(self) -> float:
        """When the worker has to speak at the latest."""
        if self._state is ModelState.STARTING:
            return self._heard_at + self._patience.load_s
        if any(self._roster.missing()):
            return self._heard_at + self._patience.prepare_s
        return self._requests.due()
