"""What have all engines in common, in a worker here or on another server?"""

import time
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.cache import Remembering
from app.engines.model.prompt import Line, write
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Answer, Priority
from app.observability import Event

log = structlog.get_logger(__name__)

# A text with more characters a token than this is no language: it is not even tokenised.
_CHARACTERS_A_TOKEN = 8
# How full each priority may find the queue and still enter: binding work always finds room.
_SHARE = {Priority.BINDING: 1.0, Priority.ADVISORY: 0.75, Priority.SHADOW: 0.5, Priority.REASONING: 0.25}


class ModelState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """`model` is the file's name, `sha256` the hash of that file, known once it has loaded.

    `device` says in words what computes, as in `CPU, 2 threads` or `NVIDIA H100, 31 of 31 layers`.
    """

    state: ModelState
    version: str
    model: str
    pid: int | None = None
    sha256: str | None = None
    restarts: int = 0
    queue_depth: int = 0
    circuit_open: bool = False
    loaded_once: bool = False
    load_s: float | None = None
    offloaded_layers: int | None = None
    fault: str | None = None
    error: str | None = None
    device: str | None = None


class Engine(Remembering):
    """One version that is kept ready, with a circuit breaker of its own."""

    def __init__(
        self,
        version: ModelVersion,
        *,
        queue_limit: int,
        explain_deadline_s: float,
        breaker: CircuitBreaker | None,
    ) -> None:
        super().__init__()
        self.version, self.version_id = version, version.id
        self.shows_legacy = version.show_legacy
        self._queue_limit, self._explain_deadline_s = queue_limit, explain_deadline_s
        self._breaker = breaker or CircuitBreaker()

    @abstractmethod
    async def start(self) -> None:
        """Begin in the background, and return at once."""

    @abstractmethod
    async def stop(self) -> None:
        """Ask nothing any more; what is still asked is `unavailable`."""

    @abstractmethod
    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        """Find the reasons for an advisory, after everything more urgent.

        Never empty; what cannot be found out is said in the text. Only cancellation is raised.
        """

    @abstractmethod
    async def inject(self, fault: str | None) -> None:
        """Make the worker misbehave from now on, or stop. Raises `Forbidden`, `SettingsError`."""

    @property
    @abstractmethod
    def status(self) -> ModelStatus: ...

    @property
    @abstractmethod
    def _state(self) -> ModelState: ...

    @property
    @abstractmethod
    def _depth(self) -> int:
        """Questions that are asked and not answered."""

    @abstractmethod
    async def _settle(self, timeout_s: float) -> None:
        """Wait until the version can be asked or turned out not to be there. Raises `TimeoutError`."""

    @abstractmethod
    async def _decide(self, lines: tuple[Line, ...], priority: Priority, deadline_s: float) -> Answer:
        """Ask what was admitted, and report to the circuit breaker."""

    async def wait_ready(self, timeout_s: float) -> bool:
        """True once the model answers; False when it cannot or the time is over."""
        try:
            await self._settle(timeout_s)
        except TimeoutError:
            return False
        return self._state is ModelState.READY

    @property
    def is_ready(self) -> bool:
        return self._state is ModelState.READY and not self.circuit_open

    @property
    def circuit_open(self) -> bool:
        return self._breaker.is_open(time.monotonic())

    @property
    def _life(self) -> Hashable:
        status = self.status
        return status.sha256, status.restarts

    async def _compute(
        self, situation: Situation, priority: Priority, deadline_s: float, legacy: Decision | None
    ) -> Advisory:
        began = time.monotonic()
        lines = self._lines(situation, legacy)
        refusal = self._refusal(priority) or self._not_tried(lines)
        if refusal is not None:
            answer = Answer(refusal, started=False)
        else:
            answer = await self._decide(lines, priority, deadline_s)
        return answer.advisory(self.version_id, latency_ms=(time.monotonic() - began) * 1000)

    def _lines(self, situation: Situation, legacy: Decision | None) -> tuple[Line, ...]:
        return write(situation, legacy=legacy if self.shows_legacy else None)

    def _refusal(self, priority: Priority) -> Outcome | None:
        if self._state is not ModelState.READY:
            return Outcome.UNAVAILABLE
        if self._depth >= self._queue_limit * _SHARE[priority]:
            return Outcome.OVERLOADED
        return None

    def _not_tried(self, lines: Sequence[Line]) -> Outcome | None:
        most = self.version.limits.max_situation_tokens * _CHARACTERS_A_TOKEN
        if sum(len(line.text) for line in lines) > most:
            return Outcome.OVERSIZE
        # Last, because whoever is admitted while the circuit is open is the one trial.
        return None if self._breaker.admit(time.monotonic()) else Outcome.UNAVAILABLE

    def _report(self, is_well: bool | None, why: str) -> None:  # noqa: FBT001
        """Tell the circuit breaker what an answer says of the machine; None says nothing.

        It counts only what is the machine's fault. A caller can make the model malformed by what they
        write, or late by how much they ask; neither may open the circuit for everyone.
        """
        had_tripped = self._breaker.has_tripped
        if is_well is None:
            self._breaker.pass_over()
        elif is_well:
            self._breaker.succeed()
        else:
            self._breaker.fail(time.monotonic())
        if self._breaker.has_tripped != had_tripped:
            event = Event.CIRCUIT_CLOSED if had_tripped else Event.CIRCUIT_OPENED
            log.warning(event, version=self.version_id, why=why)
