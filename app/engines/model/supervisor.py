"""How does the web process ask the model, and what does it get when the model fails?"""

import asyncio
import copy
import time
from pathlib import Path
from typing import Self

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.drill import parse_fault
from app.engines.model.engine import Engine, ModelState, ModelStatus
from app.engines.model.link import Patience, WorkerLink
from app.engines.model.prompt import Line
from app.engines.model.reasons import unexplained, worded
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Answer, Ask, Explain, Load, Priority
from app.errors import Forbidden, SettingsError


class ModelSupervisor(Engine):
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
        super().__init__(
            version, queue_limit=queue_limit, explain_deadline_s=explain_deadline_s, breaker=breaker
        )
        self._model_path, self._drills = model_path, drills
        path = str(model_path) if model_path else None
        load = Load((), str(policies_dir), str(cache_dir), path, fault or None)
        self._link = WorkerLink(load, patience or Patience())

    def beside(self, version: ModelVersion) -> Self:
        """Another version in the same worker; the two must have one `runtime_key`."""
        other = copy.copy(self)
        Engine.__init__(
            other,
            version,
            queue_limit=self._queue_limit,
            explain_deadline_s=self._explain_deadline_s,
            breaker=None,
        )
        return other

    async def start(self) -> None:
        """Start the worker, or take the version into the running one; in the background."""
        self._link.take_in(self.version)

    async def stop(self) -> None:
        """Leave the worker, which ends with its last version; what is still asked is `unavailable`."""
        await self._link.let_go(self.version_id)

    @property
    def status(self) -> ModelStatus:
        link, loaded = self._link, self._link.loaded
        return ModelStatus(
            state=self._state,
            pid=link.pid,
            version=self.version_id,
            model=self._model_path.name if self._model_path else self.version.model_name,
            sha256=loaded.sha256 if loaded else None,
            restarts=link.restarts,
            queue_depth=link.depth,
            circuit_open=self.circuit_open,
            loaded_once=link.has_loaded(self.version_id),
            load_s=loaded.load_s if loaded else None,
            offloaded_layers=loaded.offloaded_layers if loaded else None,
            fault=link.fault,
            error=link.error_of(self.version_id),
            device=loaded.device if loaded else None,
        )

    async def inject(self, fault: str | None) -> None:
        """It reaches all versions of the worker."""
        if not self._drills:
            raise Forbidden("drills", "faults are injected only where PHASEGATE_DRILLS=1")
        parse_fault(fault)
        self._link.misbehave(fault or None)

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        if advisory.decision is None or advisory.confidence is None:
            return unexplained(advisory, "there is no decision to explain")
        refusal = self._refusal(Priority.REASONING)
        if refusal is not None:
            return unexplained(advisory, f"the model is {refusal}")
        lines = self._lines(situation, legacy)
        deadline = time.monotonic() + self._explain_deadline_s
        question = Explain(deadline, lines, advisory.decision, advisory.confidence, self.version_id)
        # A second longer than the worker has: at its deadline it sends what it has found so far.
        found = (await self._link.exchange(question, until=deadline + 1.0)).answer
        if isinstance(found, Answer):
            return unexplained(advisory, f"the model's outcome was {found.outcome}")
        return worded(advisory, found.effects, generated=found.generated, lines=lines)

    @property
    def _state(self) -> ModelState:
        return self._link.state_of(self.version_id)

    @property
    def _depth(self) -> int:
        return self._link.depth

    async def _settle(self, timeout_s: float) -> None:
        await self._link.settle(self.version_id, timeout_s)

    async def _decide(self, lines: tuple[Line, ...], priority: Priority, deadline_s: float) -> Answer:
        until = time.monotonic() + deadline_s
        try:
            reply = await self._link.exchange(Ask(priority, until, lines, self.version_id), until=until)
        except asyncio.CancelledError:
            self._breaker.pass_over()
            raise
        assert isinstance(reply.answer, Answer)
        self._report(_is_well(reply.answer, reply.computed_s, deadline_s), reply.answer.outcome)
        return reply.answer


def _is_well(answer: Answer, computed_s: float, deadline_s: float) -> bool | None:
    match answer.outcome:
        case Outcome.OK | Outcome.UNSURE:
            return True
        case Outcome.UNAVAILABLE if answer.started:
            return False
        case Outcome.MALFORMED if answer.coverage is None:
            return False
        case Outcome.TIMEOUT if answer.started and computed_s >= deadline_s / 2:
            return False
        case _:
            return None
