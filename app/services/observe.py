"""Who looks at the decisions that already left, without ever delaying one?"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import structlog

from app.domain.admission import Claim
from app.domain.advisory import Advisory, Reasoning
from app.domain.decision import LegacyAnswer
from app.domain.phase import Phase
from app.domain.sampling import Draw, drawn
from app.engines.model.wire import Priority
from app.errors import PhasegateError
from app.observability import ADVISORIES, ADVISORY_SECONDS, CACHED, COMPARISONS, NOT_OBSERVED, Event
from app.services.admission import Admissions
from app.services.again import AskedAgain
from app.services.candidates import Candidates, LateVerdicts, Sighting
from app.services.documents import reasoning_body
from app.services.ports import Models
from app.services.records import Placed, Strata, as_sure, observation_entry
from app.store import tables as t
from app.store.ledger import Entry, Ledger
from app.store.transaction import seal

log = structlog.get_logger()

_not_observed = cache(NOT_OBSERVED.labels)
_SEATS = 128
_IN_FLIGHT = 2  # one computed, one waiting at the worker's door: more would only add to the latency
_EXPLANATIONS = 64
# The share of traffic that is looked at follows what the worker gets done.
_FASTER, _SLOWER, _LEAST = 1.1, 0.8, 0.001


@dataclass(frozen=True, slots=True)
class Observation:
    """A decision that left, for the model to look at; `seen` gets its advisory."""

    decision_id: str
    placed: Placed
    legacy: LegacyAnswer
    has_review: bool
    seen: asyncio.Future[Advisory]


_Unexplained = tuple[str, Placed, LegacyAnswer, Advisory]


class LateLabels(LateVerdicts, Protocol):
    """Takes an advisory for a decision that people may have judged already (services/late.py)."""

    async def advisory_for_reviewed(
        self, observation: Observation, advisory: Advisory, draw: Draw | None
    ) -> None: ...


class Observer:
    """A bounded queue before the model; a full one sheds, and what is shed is `not_observed`."""

    def __init__(
        self,
        models: Models,
        ledger: Ledger,
        labels: LateLabels,
        strata: Strata,
        admissions: Admissions,
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._labels = labels
        self._strata = strata
        self._admissions = admissions
        self.candidates = Candidates(models, ledger, labels, admissions)
        self.again = AskedAgain(models, ledger)
        self._waiting: dict[Phase, deque[Observation]] = {Phase.ADVISORY: deque(), Phase.SHADOW: deque()}
        self._unexplained: deque[_Unexplained] = deque(maxlen=_EXPLANATIONS)
        self._work = asyncio.Semaphore(0)
        self._to_explain = asyncio.Event()
        self._rate = 1.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        workers = [self._observe_for_ever() for _ in range(_IN_FLIGHT)]
        others = (self._explain_for_ever(), self.candidates.run_for_ever(), self.again.run_for_ever())
        self._tasks = [asyncio.create_task(run) for run in (*workers, *others)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def rate(self) -> float:
        """The share of decisions that is observed at present, before a rollout's own rate."""
        return self._rate

    @property
    def queued(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def has_seat(self, placed: Placed, decision_id: str) -> bool:
        """Whether a decision will be observed: drawn by the hash of its id, and room left."""
        if not self._models.of(placed.state.version).is_ready:
            _not_observed(placed.state.name, "model_down").inc()
            return False
        if self.queued >= _SEATS:
            _not_observed(placed.state.name, "shed").inc()
            return False
        if not drawn(decision_id, self._rate * placed.policy.observe_rate):
            _not_observed(placed.state.name, "unsampled").inc()
            return False
        return True

    def submit(self, observation: Observation) -> None:
        self._waiting[observation.placed.plan.phase].append(observation)
        self._work.release()

    def adapt(self) -> None:
        """Called every second: look at less when the queue stands, at more when it runs dry."""
        queued = self.queued
        if queued > _SEATS // 2:
            self._rate = max(_LEAST, self._rate * _SLOWER)
        elif queued < _SEATS // 8:
            self._rate = min(1.0, self._rate * _FASTER)

    def explain_later(
        self, decision_id: str, placed: Placed, legacy: LegacyAnswer, advisory: Advisory
    ) -> None:
        """Reasons come after answers, at the lowest priority; the oldest wait is given up first."""
        self._unexplained.append((decision_id, placed, legacy, advisory))
        self._to_explain.set()

    async def _observe_for_ever(self) -> None:
        while True:
            await self._work.acquire()
            queue = self._waiting[Phase.ADVISORY] or self._waiting[Phase.SHADOW]
            observation = queue.popleft()
            try:
                await self._observe(observation)
            except PhasegateError as error:
                # The caller has long been answered; the observation is lost, and says so.
                log.warning(Event.OBSERVATION_LOST, decision=observation.decision_id, error=str(error))
            except Exception:
                # One that cannot be made must not end the watching of all others.
                log.exception(Event.OBSERVATION_LOST, decision=observation.decision_id)
            finally:
                if not observation.seen.done():
                    observation.seen.cancel()

    async def _observe(self, observation: Observation) -> None:
        decision_id, placed, legacy = observation.decision_id, observation.placed, observation.legacy
        shadow = placed.plan.phase is Phase.SHADOW
        claiming = self._admissions.claim(placed)  # by arrival: nobody knows yet what the model will say
        advisory = await self._models.of(placed.state.version).advise(
            placed.question.situation,
            priority=Priority.SHADOW if shadow else Priority.ADVISORY,
            deadline_s=placed.policy.deadline_ms / 1000,
            legacy=legacy.decision,
            scope=placed.scope,
        )
        advisory = as_sure(advisory, placed.policy)
        if not observation.seen.done():
            observation.seen.set_result(advisory)
        placed = replace(placed, claim=await claiming)
        observation = replace(observation, placed=placed)
        count_advisory(placed, legacy, advisory)
        draw = self._strata.draw(placed, decision_id, legacy, advisory)
        reviewed = observation.has_review or await self._labels.is_reviewed(decision_id)
        if reviewed:
            await self._labels.advisory_for_reviewed(observation, advisory, draw)
        else:
            await self._ledger.append(observation_entry(placed, decision_id, legacy, advisory, draw=draw))
        self.candidates.offer(Sighting(decision_id, placed, legacy, advisory, draw))
        self.again.offer(decision_id, placed, legacy, advisory)
        if reviewed or draw is not None:
            self.explain_later(decision_id, placed, legacy, advisory)

    async def _explain_for_ever(self) -> None:
        while True:
            await self._to_explain.wait()
            while self._unexplained:
                unexplained = self._unexplained.popleft()
                try:
                    await self._explain(*unexplained)
                except PhasegateError:
                    continue  # explained when somebody asks
                except Exception:
                    log.exception(Event.OBSERVATION_LOST, decision=unexplained[0])
            self._to_explain.clear()

    async def _explain(
        self, decision_id: str, placed: Placed, legacy: LegacyAnswer, advisory: Advisory
    ) -> None:
        if advisory.decision is None:
            return
        model = self._models.of(advisory.version)
        reasoning = await model.explain(placed.question.situation, advisory, legacy=legacy.decision)
        await self._ledger.append(reasoning_entry(decision_id, reasoning, now_us=placed.question.now_us))


def reasoning_entry(decision_id: str, reasoning: Reasoning, *, now_us: int) -> Entry:
    body = reasoning_body(reasoning)
    salt, _ = seal(body)
    row = {"decision_id": decision_id, "created_us": now_us, "salt": salt, "body": body}
    return Entry(((t.reasonings, row),), (), None, None)


def count_advisory(placed: Placed, legacy: LegacyAnswer, advisory: Advisory) -> None:
    """What Prometheus sees of a model's answer."""
    if advisory.cached:
        CACHED.labels(placed.state.name).inc()
        return
    if placed.plan.exposed and placed.claim is not Claim.ADMITTED:
        _not_observed(placed.state.name, placed.claim).inc()
    ADVISORIES.labels(placed.state.name, advisory.outcome).inc()
    if advisory.started:
        ADVISORY_SECONDS.observe(advisory.latency_ms / 1000)
    if advisory.answer is not None and not legacy.failed:
        COMPARISONS.labels(placed.state.name, legacy.decision, advisory.answer).inc()
