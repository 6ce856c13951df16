"""How does the web process ask the model, and what does it get when the model fails?"""

import asyncio
import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.drill import parse_fault
from app.engines.model.link import ModelState, Patience, WorkerLink
from app.engines.model.prompt import Line, write
from app.engines.model.reasons import unexplained, worded
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Answer, Ask, Explain, Load, Priority
from app.errors import Forbidden, SettingsError
from app.observability import Event

log = structlog.get_logger(__name__)

# A text with more characters a token than this is no language: it is not even tokenised.
_CHARACTERS_A_TOKEN = 8
# How full each priority may find the queue and still enter: binding work always finds room.
_SHARE = {Priority.BINDING: 1.0, Priority.ADVISORY: 0.75, Priority.SHADOW: 0.5, Priority.REASONING: 0.25}


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


class ModelSupervisor:
    """One version's view of its worker, which is watched and restarted; `beside` makes views that share it.

    Each view has a circuit breaker of its own: trouble of the worker reaches all of them within a few
    requests, and a version whose head or prompt is broken must not take the others off the air.
    Create and use it inside one event loop.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        cache_dir: Path,
        policies_dir: Path,
        model_path: Path | None = None,
        drills: bool = False,
        fault: str | None = None,
        queue_limit: int = 64,
        explain_deadline_s: float = 20.0,
        patience: Patience | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Nothing is started yet. Raises `SettingsError` for a fault that is unknown or not allowed."""
        parse_fault(fault)
        if fault and not drills:
            raise SettingsError("PHASEGATE_MODEL_FAULT", "is refused unless PHASEGATE_DRILLS=1")
        self.version = version
        self._model_path, self._drills = model_path, drills
        self._queue_limit, self._explain_deadline_s = queue_limit, explain_deadline_s
        self._breaker = breaker or CircuitBreaker()
        path = str(model_path) if model_path else None
        load = Load((), str(policies_dir), str(cache_dir), path, fault or None)
        self._link = WorkerLink(load, patience or Patience())

    def beside(self, version: ModelVersion, *, breaker: CircuitBreaker | None = None) -> Self:
        """Another version in the same worker; the two must have one `runtime_key`."""
        other = copy.copy(self)
        vars(other).update(version=version, _breaker=breaker or CircuitBreaker())
        return other

    async def start(self) -> None:
        """Start the worker, or take the version into the running one; in the background."""
        self._link.take_in(self.version)

    async def stop(self) -> None:
        """Leave the worker, which ends with its last version; what is still asked is `unavailable`."""
        await self._link.let_go(self.version.id)

    async def wait_ready(self, timeout_s: float) -> bool:
        """True once the model answers; False when it cannot be loaded or the time is over."""
        try:
            await self._link.settle(self.version.id, timeout_s)
        except TimeoutError:
            return False
        return self._state is ModelState.READY

    @property
    def version_id(self) -> str:
        return self.version.id

    @property
    def shows_legacy(self) -> bool:
        """Whether the prompt holds the legacy answer: then agreement with it is not independent."""
        return self.version.show_legacy

    @property
    def is_ready(self) -> bool:
        """Whether a question asked now would be taken up."""
        return self._state is ModelState.READY and not self.circuit_open

    @property
    def circuit_open(self) -> bool:
        return self._breaker.is_open(time.monotonic())

    @property
    def status(self) -> ModelStatus:
        link, loaded = self._link, self._link.loaded
        return ModelStatus(
            state=self._state,
            pid=link.pid,
            version=self.version.id,
            model=self._model_path.name if self._model_path else self.version.model_name,
            sha256=loaded.sha256 if loaded else None,
            restarts=link.restarts,
            queue_depth=link.depth,
            circuit_open=self.circuit_open,
            loaded_once=link.has_loaded(self.version.id),
            load_s=loaded.load_s if loaded else None,
            offloaded_layers=loaded.offloaded_layers if loaded else None,
            fault=link.fault,
            error=link.error_of(self.version.id),
            device=loaded.device if loaded else None,
        )

    async def inject(self, fault: str | None) -> None:
        """Make the worker misbehave from now on, with all its versions, or stop.

        Raises `Forbidden`, `SettingsError`.
        """
        if not self._drills:
            raise Forbidden("drills", "faults are injected only where PHASEGATE_DRILLS=1")
        parse_fault(fault)
        self._link.misbehave(fault or None)

    async def advise(
        self, situation: Situation, *, priority: Priority, deadline_s: float, legacy: Decision | None = None
    ) -> Advisory:
        """Ask the model. Whatever goes wrong is an outcome; only cancellation is raised.

        `legacy` reaches the prompt only where the version shows it.
        """
        began = time.monotonic()
        answer = await self._decide(self._lines(situation, legacy), priority, deadline_s)
        return answer.advisory(self.version.id, latency_ms=(time.monotonic() - began) * 1000)

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        """Find the reasons for an advisory, after everything more urgent.

        Never empty; what cannot be found out is said in the text. Only cancellation is raised.
        """
        if advisory.decision is None or advisory.confidence is None:
            return unexplained(advisory, "there is no decision to explain")
        refusal = self._refusal(Priority.REASONING)
        if refusal is not None:
            return unexplained(advisory, f"the model is {refusal}")
        lines = self._lines(situation, legacy)
        deadline = time.monotonic() + self._explain_deadline_s
        question = Explain(deadline, lines, advisory.decision, advisory.confidence, self.version.id)
        # A second longer than the worker has: at its deadline it sends what it has found so far.
        found = (await self._link.exchange(question, until=deadline + 1.0)).answer
        if isinstance(found, Answer):
            return unexplained(advisory, f"the model's outcome was {found.outcome}")
        return worded(advisory, found.effects, generated=found.generated, lines=lines)

    @property
    def _state(self) -> ModelState:
        return self._link.state_of(self.version.id)

    def _lines(self, situation: Situation, legacy: Decision | None) -> tuple[Line, ...]:
        return write(situation, legacy=legacy if self.version.show_legacy else None)

    def _refusal(self, priority: Priority) -> Outcome | None:
        if self._state is not ModelState.READY:
            return Outcome.UNAVAILABLE
        if self._link.depth >= self._queue_limit * _SHARE[priority]:
            return Outcome.OVERLOADED
        return None

    async def _decide(self, lines: tuple[Line, ...], priority: Priority, deadline_s: float) -> Answer:
        now = time.monotonic()
        refusal = self._refusal(priority)
        if refusal is not None:
            return Answer(refusal, started=False)
        most = self.version.limits.max_situation_tokens * _CHARACTERS_A_TOKEN
        if sum(len(line.text) for line in lines) > most:
            return Answer(Outcome.OVERSIZE, started=False)
        # Last, because whoever is admitted while the circuit is open is the one trial.
        if not self._breaker.admit(now):
            return Answer(Outcome.UNAVAILABLE, started=False)
        until = now + deadline_s
        try:
            reply = await self._link.exchange(Ask(priority, until, lines, self.version.id), until=until)
        except asyncio.CancelledError:
            self._breaker.pass_over()
            raise
        assert isinstance(reply.answer, Answer)
        self._note(reply.answer, reply.computed_s, deadline_s)
        return reply.answer

    def _note(self, answer: Answer, computed_s: float, deadline_s: float) -> None:
        """Tell the circuit breaker.

        It counts only what is the machine's fault. A caller can make the model malformed by what they
        write, or late by how much they ask; neither may open the circuit for everyone.
        """
        had_tripped = self._breaker.has_tripped
        match answer.outcome:
            case Outcome.OK | Outcome.UNSURE:
                self._breaker.succeed()
            case Outcome.UNAVAILABLE if answer.started:
                self._breaker.fail(time.monotonic())
            case Outcome.MALFORMED if answer.coverage is None:
                self._breaker.fail(time.monotonic())
            case Outcome.TIMEOUT if answer.started and computed_s >= deadline_s / 2:
                self._breaker.fail(time.monotonic())
            case _:
                self._breaker.pass_over()
        if self._breaker.has_tripped != had_tripped:
            event = Event.CIRCUIT_CLOSED if had_tripped else Event.CIRCUIT_OPENED
            log.warning(event, version=self.version.id, outcome=answer.outcome)
