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
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.domain.advisory import Outcome
from app.engines.model.backlog import Backlog, Job
from app.engines.model.cores import leave_the_first_core
from app.engines.model.drill import Drill, parse_fault
from app.engines.model.explaining import Reasoner
from app.engines.model.residents import Residents
from app.engines.model.runtime import Aborted, ModelError
from app.engines.model.scoring import Oversize, Scorer
from app.engines.model.version import ModelVersion
from app.engines.model.wire import (
    HEADER,
    NO_REQUEST,
    Answer,
    Ask,
    Cancel,
    Drop,
    Explain,
    Explained,
    Failed,
    Load,
    Loaded,
    Misbehave,
    Prepare,
    Prepared,
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
        self._reader = connection.makefile("rb")
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
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data


class Worker:
    """Computes one job after the other; every request gets exactly one answer."""

    def __init__(self, channel: Channel, residents: Residents, drill: Drill) -> None:
        self._channel = channel
        self._residents = residents
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
            match job.ask:
                case Prepare(version):
                    self._prepare(job, version)
                case Drop(version_id):
                    self._residents.drop(version_id)
                case Ask() | Explain() as ask:
                    self._compute(job, ask)

    def _accept(self, request: int, message: ToWorker) -> None:
        match message:
            case Ask() | Explain() | Prepare() | Drop():
                if not self._backlog.put(Job(request, message)):
                    self._channel.send(request, Answer(Outcome.OVERLOADED, started=False))
            case Cancel():
                self._backlog.cancel(request)
            case Misbehave(fault):
                self._drill.set(parse_fault(fault))
            case Load():
                pass  # only ever the first message

    def _prepare(self, job: Job, version: ModelVersion) -> None:
        """Take a version in, an ubatch of its prefix at a time, so that the waiting are not kept."""
        try:
            scorer = self._residents.get(version.id)
            if scorer is None or scorer.version != version:
                scorer = self._residents.admit(version)
            if not scorer.prepare(abort=lambda: self._backlog.must_stop([job])):
                self._backlog.put(job)
                return
        except Aborted:
            self._backlog.put(job)
            return
        except (PhasegateError, OSError) as error:
            self._residents.drop(version.id)
            self._channel.send(NO_REQUEST, Prepared(version.id, str(error)))
            return
        self._channel.send(NO_REQUEST, Prepared(version.id))

    def _compute(self, job: Job, ask: Ask | Explain) -> None:
        if job.is_over():
            self._give_up(job, started=False)
            return
        scorer = self._residents.get(ask.version)
        if scorer is None or not scorer.is_ready:
            self._answer(job, Answer(Outcome.UNAVAILABLE, started=False))
            return
        jobs = [job, *self._backlog.take_alike(job, scorer.version.decoding.shadow_batch - 1)]
        for one in jobs:
            self._channel.send(one.request, Progress(started=True))
        answers: Sequence[Answer | Explained | None]
        try:
            self._drill.suffer(lambda: self._backlog.must_stop(jobs))
            answers = self._answers(scorer, jobs)
        except Aborted:
            answers = [None] * len(jobs)
        except ModelError:
            answers = [Answer(Outcome.MALFORMED, started=True)] * len(jobs)
        for one, answer in zip(jobs, answers, strict=True):
            if answer is not None:
                self._answer(one, answer)
            elif one.is_over():
                self._give_up(one, started=True)
            else:
                self._put_back(one)

    def _answers(self, scorer: Scorer, jobs: list[Job]) -> Sequence[Answer | Explained | None]:
        """One a job; None for what steps aside for more urgent work."""
        ask = jobs[0].ask
        if isinstance(ask, Explain):
            return [self._explain(scorer, jobs[0], ask)]
        # Only observations come in company; whatever is scored alone gives the bits of `Scorer.score`.
        asked = [job.ask.lines for job in jobs if isinstance(job.ask, Ask)]
        found = scorer.score_many(asked, abort=lambda: self._backlog.must_stop(jobs))
        return [scorer.answer(scores) for scores in found]

    def _explain(self, scorer: Scorer, job: Job, ask: Explain) -> Explained | Answer | None:
        """All the reasons, or None when more urgent work is waiting: what was found is kept."""
        if job.reasoner is None:
            reasoning = scorer.version.reasoning
            job.reasoner = Reasoner(ask.lines, ask.decision, ask.confidence, reasoning)
        while not job.reasoner.done:
            if self._backlog.has_more_urgent(job):
                return None
            try:
                job.reasoner.advance(scorer, lambda: self._backlog.must_stop([job]))
            except Oversize:
                return Answer(Outcome.OVERSIZE, started=False)
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
        residents = Residents(
            load.versions,
            policies_dir=Path(load.policies_dir),
            cache_dir=Path(load.cache_dir),
            model_path=Path(load.model_path) if load.model_path else None,
        )
    except (PhasegateError, OSError) as error:
        channel.send(NO_REQUEST, Failed(str(error)))
        return 1
    device, load_s = residents.device, time.monotonic() - began
    loaded = Loaded(residents.weights.sha256, load_s, device.offloaded_layers, device.words)
    worker = Worker(channel, residents, Drill(parse_fault(load.fault)))
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
