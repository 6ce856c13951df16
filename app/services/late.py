"""What becomes of a model's answer to a decision that people may have judged before it came?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Advisory
from app.domain.clock import to_us
from app.domain.counters import draw_counts
from app.domain.decision import Decision
from app.domain.sampling import Draw
from app.errors import StoreUnavailable
from app.services.notices import Notices
from app.services.observe import Observation
from app.services.plane import Plane
from app.services.records import advisory_row
from app.services.tally import count, follow, tally
from app.store import tables as t
from app.store.entry import write
from app.store.ledger import Entry, Ledger
from app.store.reviews import change_review, lock_review, review_of
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class LateAnswers:
    """Records an answer and lets the verdicts that were there first meet it."""

    plane: Plane
    ledger: Ledger
    notices: Notices
    now: Callable[[], datetime]

    async def is_reviewed(self, decision_id: str) -> bool:
        """Whether a decision has a review already, as one that was reported before it was observed."""

        def look() -> bool:
            with self.plane.database.read() as connection:
                return review_of(connection, decision_id) is not None

        try:
            return await asyncio.to_thread(look)
        except StoreUnavailable:
            return False  # nobody can report either: let the journal have the observation

    async def advisory_for_reviewed(
        self, observation: Observation, advisory: Advisory, draw: Draw | None
    ) -> None:
        """Record an advisory whose decision has a review, which may have been judged already."""
        now = self.now()
        placed, decision_id = observation.placed, observation.decision_id

        def work(tx: Transaction) -> dict[str, Any] | None:
            tx.insert(t.advisories, advisory_row(placed, decision_id, advisory, observation.legacy))
            for key, n in placed.counts(placed.advisory_counts(advisory, observation.legacy)):
                tx.count(key, n)
            row = _locked(tx, decision_id)
            if row is None or advisory.answer is None:
                return None
            return self._join(tx, row, advisory.answer, draw, now=now)

        await self._told(await self.ledger.run(work))

    async def candidate_for_reviewed(self, decision_id: str, entry: Entry) -> None:
        """Record what a candidate said of a decision that has a review, which may have been judged already."""
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any] | None:
            row = _locked(tx, decision_id)
            before = None if row is None else tally(tx, row)
            write(tx, [entry])
            return None if row is None or before is None else follow(tx, row, before, self.plane, now=now)

        await self._told(await self.ledger.run(work))

    def _join(
        self, tx: Transaction, row: RowMapping, answer: Decision, draw: Draw | None, *, now: datetime
    ) -> dict[str, Any] | None:
        """Let the model's answer meet the review that was there first."""
        before = tally(tx, row)
        probability = None if draw is None else draw.inclusion_probability
        change_review(tx, row["id"], model_decision=answer.value, inclusion_probability=probability)
        if draw is not None:
            count(tx, row, draw_counts(draw), to_us(now), version=row["version"])
        return follow(tx, row, before, self.plane, now=now)

    async def _told(self, rollback: dict[str, Any] | None) -> None:
        if rollback is not None:
            await self.plane.refresh_soon()
            self.notices.moved(rollback)


def _locked(tx: Transaction, decision_id: str) -> RowMapping | None:
    """The decision's review, as no verdict comes to it meanwhile."""
    found = review_of(tx.connection, decision_id)
    return None if found is None else lock_review(tx, found["id"])
