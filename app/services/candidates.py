"""What would the candidate have said, asked when nobody waits for it?"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from app.domain.advisory import Advisory
from app.domain.counters import Count, draw_counts
from app.domain.decision import LegacyAnswer
from app.domain.experiment import agreement_counts
from app.domain.phase import Phase
from app.domain.rollout import Comparison
from app.domain.sampling import Draw
from app.engines.model.wire import Priority
from app.errors import PhasegateError
from app.observability import Event
from app.services.admission import Admissions
from app.services.ports import Models
from app.services.records import Placed, Strata, as_sure, observation_entry
from app.store import tables as t
from app.store.ledger import Entry, Ledger

log = structlog.get_logger()

_SEATS = 64


@dataclass(frozen=True, slots=True)
class Sighting:
    """A decision that left, for the candidate to look at.

    `active` is what the active version said of it and `draw` how it was drawn for review; where the
    versions split the actors, the candidate alone looks at it and `active` is None.
    """

    decision_id: str
    placed: Placed
    legacy: LegacyAnswer
    active: Advisory | None
    draw: Draw | None

    @property
    def by_candidate(self) -> Placed:
        """The same question, as the candidate's evidence counts it."""
        placed = self.placed
        assert placed.state.candidate is not None
        return replace(placed, state=replace(placed.state, version=placed.state.candidate))


class LateVerdicts(Protocol):
    """Takes what a candidate said of a decision that people may have judged already (services/late.py)."""

    async def is_reviewed(self, decision_id: str) -> bool: ...

    async def candidate_for_reviewed(self, decision_id: str, entry: Entry) -> None: ...


class Candidates:
    """One question at a time, at the lowest priority of all that observe; a full queue lets go of new ones."""

    def __init__(
        self, models: Models, ledger: Ledger, verdicts: LateVerdicts, admissions: Admissions
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._admissions = admissions
        self._verdicts = verdicts
        self._strata = Strata()  # the candidate's own: what it disagrees with is not what the other does
        self._waiting: deque[Sighting] = deque()
        self._work = asyncio.Semaphore(0)

    def takes(self, placed: Placed, share: float) -> bool:
        """Whether the candidate looks at this actor's decisions in the active version's place."""
        state = placed.state
        return (
            state.candidate_mode is Comparison.SPLIT
            and share < (state.candidate_share or 0.0)
            and self._is_ready(placed)
        )

    def offer(self, sighting: Sighting) -> None:
        """Let the candidate look, if there is one, has time, and the actor is not the active version's alone."""
        placed = sighting.placed
        is_split = placed.state.candidate_mode is Comparison.SPLIT and placed.plan.phase is not Phase.ENFORCED
        if is_split and sighting.active is not None:
            return
        if len(self._waiting) < _SEATS and self._is_ready(placed):
            self._waiting.append(sighting)
            self._work.release()

    async def run_for_ever(self) -> None:
        while True:
            await self._work.acquire()
            sighting = self._waiting.popleft()
            try:
                await self._observe(sighting)
            except PhasegateError as error:
                log.warning(Event.OBSERVATION_LOST, decision=sighting.decision_id, error=str(error))
            except Exception:
                # One that cannot be made must not end the comparison.
                log.exception(Event.OBSERVATION_LOST, decision=sighting.decision_id)

    def _is_ready(self, placed: Placed) -> bool:
        candidate = placed.state.candidate
        if candidate is None:
            return False
        model = self._models.of(candidate)
        return model.is_ready and model.version_id == candidate

    async def _observe(self, sighting: Sighting) -> None:
        placed, decision_id = sighting.by_candidate, sighting.decision_id
        claiming = self._admissions.claim(placed)  # for its own version
        advisory = await self._models.of(placed.state.version).advise(
            placed.question.situation,
            priority=Priority.SHADOW,
            deadline_s=placed.policy.deadline_ms / 1000,
            legacy=sighting.legacy.decision,
            scope=placed.scope,
        )
        advisory, placed = as_sure(advisory, placed.policy), replace(placed, claim=await claiming)
        reviewed = await self._verdicts.is_reviewed(decision_id)
        entry = self._entry(sighting, placed, advisory, reviewed=reviewed)
        if reviewed:
            await self._verdicts.candidate_for_reviewed(decision_id, entry)
        else:
            await self._ledger.append(entry)

    def _entry(self, sighting: Sighting, placed: Placed, advisory: Advisory, *, reviewed: bool) -> Entry:
        decision_id, legacy, own_draw = sighting.decision_id, sighting.legacy, None
        if sighting.active is None and not reviewed:
            own_draw = self._strata.draw(placed, decision_id, legacy, advisory)
        table = t.candidate_advisories
        entry = observation_entry(placed, decision_id, legacy, advisory, draw=own_draw, table=table)
        more: tuple[Count, ...] = ()
        if placed.is_evidence(advisory):
            more = agreement_counts(sighting.active, advisory, legacy, exposed=placed.plan.exposed)
        if sighting.draw is not None and advisory.answer is not None:
            more += draw_counts(sighting.draw)
        return entry._replace(counts=(*entry.counts, *placed.counts(more)))
