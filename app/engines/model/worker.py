"""What does the model's own process do? Run as `python -m app.engines.model.worker FD PARENT_PID`."""

import ctypes
import os
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from app.domain.advisory import Outcome
from app.engines.model.backlog import Backlog, Job
from app.engines.model.cores import leave_the_first_core
from app.engines.model.drill import Drill, parse_fault
from app.engines.model.runtime import Aborted, ModelError
from app.engines.model.scoring import Oversize, Reasoner, Scorer, judge, open_scorer
from app.engines.model.wire import (
    HEADER,
    NO_REQUEST,
    Answer,
    Ask,
    Cancel,
    Explain,
    Explained,
    Failed,
    Load,
    Loaded,
    Misbehave,
    Progress,
    ToWorker,
    frame,
)
from app.errors import PhasegateError

_BACKLOG = 256
_NICENESS = 5
_PR_SET_PDEATHSIG = 1


class Channel:
    """The one socket. Two threads write to it, one reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self._decoder = msgspec.msgpack.Decoder(ToWorker)

    def send(self, request: int, message: msgspec.Struct) -> None:
        self.send_bytes(frame(request, message))

    def send_bytes(self, data: bytes) -> None:
        with self._writing:
            self._connection.sendall(data)

    def receive(self) -> tuple[int, ToWorker]:
        """The next message. Raises `EOFError` when the other end is gone."""
        length, request = HEADER.unpack(self._exactly(HEADER.size))
        return request, self._decoder.decode(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


class Worker:
    """Computes one job after the other; every request gets exactly one answer."""

    def __init__(self, channel: Channel, scorer: Scorer, drill: Drill) -> None:
        self._channel = channel
        self._scorer = scorer
        self._drill = drill
        self._backlog = Backlog(_BACKLOG)

    def listen(self) -> None:
        """Feed the backlog until the other end is gone; then the process ends: there is nothing to save."""
        try:
            while True:
                request, message = self._channel.receive()
                self._accept(request, message)
        except (EOFError, OSError):
            os._exit(0)

    def work(self) -> None:
        """Compute for as long as the process lives."""
        while True:
            job = self._backlog.take()
            for late in self._backlog.sweep():
                self._give_up(late, started=False)
            self._compute(job)

    def _accept(self, request: int, message: ToWorker) -> None:
        match message:
            case Ask() | Explain():
                if not self._backlog.put(Job(request, message)):
                    self._channel.send(request, Answer(Outcome.OVERLOADED, started=False))
            case Cancel():
                self._backlog.cancel(request)
            case Misbehave(fault):
                self._drill.set(parse_fault(fault))
            case Load():
                pass  # only ever the first message

    def _compute(self, job: Job) -> None:
        if job.is_over():
            self._give_up(job, started=False)
            return
        self._channel.send(job.request, Progress(started=True))
        try:
            self._drill.suffer(lambda: self._backlog.must_stop(job))
            answer = (
                self._explain(job, job.ask) if isinstance(job.ask, Explain) else self._decide(job, job.ask)
            )
        except Aborted:
            if job.is_over():
                self._give_up(job, started=True)
            else:
                self._put_back(job)
        except Oversize:
            self._answer(job, Answer(Outcome.OVERSIZE, started=False))
        except ModelError:
            self._answer(job, Answer(Outcome.MALFORMED, started=True))
        else:
            if answer is None:
                self._put_back(job)
            else:
                self._answer(job, answer)

    def _decide(self, job: Job, ask: Ask) -> Answer:
        scores = self._scorer.score(ask.lines, abort=lambda: self._backlog.must_stop(job))
        if not scores.is_finite:
            return Answer(Outcome.MALFORMED, started=True)
        outcome = judge(scores, self._scorer.version.limits)
        return Answer(outcome, True, scores.probabilities, scores.coverage, scores.prompt_tokens)

    def _explain(self, job: Job, ask: Explain) -> Explained | None:
        """All the reasons, or None when more urgent work is waiting: what was found is kept."""
        if job.reasoner is None:
            reasoning = self._scorer.version.reasoning
            job.reasoner = Reasoner(ask.lines, ask.decision, ask.confidence, reasoning)
        while not job.reasoner.done:
            if self._backlog.has_more_urgent(job):
                return None
            job.reasoner.advance(self._scorer, lambda: self._backlog.must_stop(job))
        return _explained(job.reasoner, complete=True)

    def _put_back(self, job: Job) -> None:
        self._channel.send(job.request, Progress(started=False))
        if not self._backlog.put(job):
            self._answer(job, Answer(Outcome.OVERLOADED, started=False))

    def _give_up(self, job: Job, *, started: bool) -> None:
        if job.reasoner is not None:
            self._answer(job, _explained(job.reasoner, complete=False))
        else:
            self._answer(job, Answer(Outcome.TIMEOUT, started))

    def _answer(self, job: Job, answer: Answer | Explained) -> None:
        if self._drill.garbles:
            noise = secrets.token_bytes(24)
            self._channel.send_bytes(HEADER.pack(len(noise), job.request) + noise)
        else:
            self._channel.send(job.request, answer)


def main(arguments: list[str]) -> int:
    """Serve the socket that was inherited, until its other end is gone."""
    descriptor, parent = (int(argument) for argument in arguments)
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the web process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    leave_the_first_core()
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        return _serve(channel)
    except (EOFError, OSError):
        return 0


def _serve(channel: Channel) -> int:
    _, load = channel.receive()
    if not isinstance(load, Load):
        return 2
    began = time.monotonic()
    try:
        scorer, weights = open_scorer(
            load.version,
            policies_dir=Path(load.policies_dir),
            cache_dir=Path(load.cache_dir),
            model_path=Path(load.model_path) if load.model_path else None,
        )
    except (PhasegateError, OSError) as error:
        channel.send(NO_REQUEST, Failed(str(error)))
        return 1
    loaded = Loaded(weights.sha256, time.monotonic() - began, scorer.offloaded_layers)
    worker = Worker(channel, scorer, Drill(parse_fault(load.fault)))
    channel.send(NO_REQUEST, loaded)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.work()
    return 0


def _explained(reasoner: Reasoner, *, complete: bool) -> Explained:
    return Explained(complete, tuple(reasoner.effects), reasoner.generated)


def _end_with(parent: int) -> None:
    """Die when the parent does, even if it is killed and the socket lives on in a third process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
