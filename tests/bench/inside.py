"""How much of the worker's time is the model's, and what does it cost beside that?"""

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp

from app.engines.model import worker
from app.engines.model.prompt import Line
from app.engines.model.version import ModelVersion
from app.engines.model.wire import NO_REQUEST, Ask, Cancel, Load, Loaded, Priority, Progress
from tests.engines.model.peer import Peer

_WAITING = 4  # requests in the worker's queue, so that it never waits for us
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a stretch of decisions, one behind the other, took."""

    decisions: int
    tokens: int
    wall_s: float
    decode_s: float

    @property
    def share_in_decode(self) -> float:
        return self.decode_s / self.wall_s

    @property
    def overhead_ms(self) -> float:
        return (self.wall_s - self.decode_s) * 1000 / self.decisions


class Inside:
    """The real worker, whose calls of `llama_decode` are timed."""

    def __init__(self, peer: Peer, pid: int, decode_s: "Synchronized[float]", version: ModelVersion) -> None:
        self._peer, self._pid, self._decode_s, self._version = peer, pid, decode_s, version
        self._ids = itertools.count(NO_REQUEST + 1)

    def under_load(self, asked: Sequence[Sequence[Line]]) -> Stretch:
        decoded, began, tokens = self._decode_s.value, time.perf_counter(), 0
        waiting = iter(asked)
        for lines in itertools.islice(waiting, _WAITING):
            self._ask(lines)
        for _ in asked:
            ((_, answer),) = self._peer.answers(1)
            tokens += answer.prompt_tokens or 0
            for lines in itertools.islice(waiting, 1):
                self._ask(lines)
        return Stretch(len(asked), tokens, time.perf_counter() - began, self._decode_s.value - decoded)

    def cancelled(self, lines: Sequence[Line]) -> float:
        """How long a request still computes after it was cancelled, over what its ubatch takes."""
        whole = self.under_load([lines]).decode_s
        request = self._ask(lines)
        while not isinstance(self._peer.hear()[1], Progress):
            pass
        self._peer.say(request, Cancel())
        began = time.perf_counter()
        self._peer.answers(1)
        return (time.perf_counter() - began) / whole

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def _ask(self, lines: Sequence[Line]) -> int:
        request = next(self._ids)
        deadline = time.monotonic() + _PATIENCE_S
        self._peer.say(request, Ask(Priority.BINDING, deadline, tuple(lines), self._version.id))
        return request


@contextmanager
def inside(version: ModelVersion, *, policies_dir: Path, cache_dir: Path) -> Iterator[Inside]:
    """A worker of its own, loaded."""
    context = get_context("spawn")
    decode_s = context.Value("d", 0.0)
    ours, theirs = socket.socketpair()
    process = context.Process(target=_serve, args=(theirs, decode_s))
    process.start()
    theirs.close()
    peer = Peer(ours)
    try:
        peer.say(NO_REQUEST, Load((version,), str(policies_dir), str(cache_dir), None, None))
        _, loaded = peer.hear()
        if not isinstance(loaded, Loaded):
            raise SystemExit(f"the model does not load: {loaded}")
        yield Inside(peer, process.pid or 0, decode_s, version)
    finally:
        peer.close()
        process.join()


def _serve(connection: socket.socket, decode_s: "Synchronized[float]") -> None:
    llama_cpp.llama_decode = _timed(llama_cpp.llama_decode, decode_s)
    worker.main([str(connection.detach()), str(os.getppid())])


def _timed(decode: Callable[[Any, Any], int], decode_s: "Synchronized[float]") -> Callable[[Any, Any], int]:
    def timed(context: Any, batch: Any) -> int:
        began = time.perf_counter()
        code = decode(context, batch)
        decode_s.value += time.perf_counter() - began
        return code

    return timed
