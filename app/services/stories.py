"""What became of a decision, and who may know?"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.clock import to_us
from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.sampling import ReviewMode
from app.domain.search import Filters
from app.domain.situation import parse_situation
from app.errors import NotFound, NotRecorded
from app.services.documents import attributions, remembered_decision, situation_document
from app.services.notices import Notices
from app.services.observe import reasoning_entry
from app.services.ports import Models
from app.store.database import Database
from app.store.decisions import advisory_wire, candidate_advisory, find, verdicts_of
from app.store.ledger import Ledger
from app.store.reviews import Judge, asked_as, judge_of
from app.store.search import page

MAX_WAIT_S = 60.0
# Another instance's verdict is seen by looking again, one's own at once.
_LOOK_AGAIN_S = 0.5
_FIRST = ("decision", "answered_by")  # what the caller got, whatever a person made of it since


@dataclass(frozen=True, slots=True)
class Stories:
    database: Database
    ledger: Ledger
    models: Models
    notices: Notices
    now: Callable[[], datetime]

    async def of(self, decision_id: str, principal: Principal, *, wait_s: float = 0.0) -> dict[str, Any]:
        """The whole story of one decision; waits up to `wait_s` while a binding review is open.

        Raises `NotFound`, also where the decision is another caller's.
        """
        until = time.monotonic() + min(wait_s, MAX_WAIT_S)
        with self.notices.waiting_for(decision_id) as decided:
            while True:
                story = await asyncio.to_thread(self.recorded, decision_id, principal)
                left = until - time.monotonic()
                if story["final"] or left <= 0 or self.notices.closed:
                    break
                decided.clear()
                await _first(decided, min(left, _LOOK_AGAIN_S))
        await self._explain(story)
        return story

    def page(
        self,
        filters: Filters,
        principal: Principal,
        *,
        cursor: str | None,
        limit: int,
        newer: bool = False,
    ) -> dict[str, Any]:
        """Newest first; a caller sees their own key's decisions only.

        A page ends when it is full or has looked at as many decisions as one may, `looked_at`; `next_cursor`
        leads on until there is nothing further, to older ones or to `newer`.
        """
        if not _may_see_all(principal):
            filters = replace(filters, key_id=principal.key_id)
        now_us = to_us(self.now())
        with self.database.read() as connection:
            judge = judge_of(connection, principal)
            blind = judge if principal.only_judges and filters.tells_the_model else None
            found = page(
                connection, filters, now_us=now_us, cursor=cursor, limit=limit, newer=newer, blind=blind
            )
            hidden = [_is_hidden(connection, row, principal, judge) for row in found.rows]
        decisions = [
            self._document(row, hidden=unseen) for row, unseen in zip(found.rows, hidden, strict=True)
        ]
        return {"decisions": decisions, "next_cursor": found.further, "looked_at": found.looked_at}

    def recorded(self, decision_id: str, principal: Principal) -> dict[str, Any]:
        """As it stands, without reasons that nobody has asked for yet. Raises `NotFound` as `of` does."""
        with self.database.read() as connection:
            row = find(connection, decision_id)
            if row is None or not (_may_see_all(principal) or row["key_id"] == principal.key_id):
                raise NotFound("decision", decision_id)
            hidden = _is_hidden(connection, row, principal, judge_of(connection, principal))
            story = self._document(row, hidden=hidden)
            story["verdicts"] = [] if hidden else verdicts_of(connection, decision_id)
            story["hidden"] = hidden
            is_told = not hidden or row["phase"] != Phase.ENFORCED
            story["first_answer"] = {name: row[name] for name in _FIRST} if is_told else None
            seen = None if hidden else candidate_advisory(connection, decision_id)
            story["candidate"] = None if seen is None else advisory_wire(seen)
            return story

    def _document(self, row: RowMapping, *, hidden: bool) -> dict[str, Any]:
        document = remembered_decision(row, now_us=to_us(self.now()))
        document["situation"] = situation_document(row)
        document["agreement"] = row["agrees"]
        document["request_id"] = row["request_id"]
        if hidden:
            document.update(advisory=None, agreement=None)
        # Enforced, what the caller was told is the model's opinion or tells it; judged, it is the first verdict.
        if hidden and (row["phase"] == Phase.ENFORCED or row["review_status"] == "judged"):
            document.update(decision=None, answered_by=None, fallback_reason=None)
            document.pop("valid_until", None)
        return document

    async def _explain(self, story: dict[str, Any]) -> None:
        """Reasons that nobody had asked for yet are computed when somebody does, and kept."""
        if not lacks_reasons(story):
            return
        advisory, legacy = story["advisory"], story["legacy"]
        model = self.models.of(advisory["version"])
        if not model.is_ready:
            return
        reasoning = await model.explain(
            parse_situation(story["situation"]),
            _advisory(advisory),
            legacy=Decision(legacy["decision"]) if legacy else None,
        )
        advisory.update(
            reasoning=reasoning.text, attributions=attributions(reasoning), generated=reasoning.generated
        )
        # Refused where another reader or the background was first: those reasons are as good as these.
        with suppress(NotRecorded):
            await self.ledger.append(reasoning_entry(story["id"], reasoning, now_us=to_us(self.now())))


def lacks_reasons(story: Mapping[str, Any]) -> bool:
    """Whether the model answered, nobody has asked it why yet, and it can still be asked."""
    advisory = story["advisory"] or {}
    has_answer = advisory.get("decision") is not None and advisory["reasoning"] is None
    return has_answer and story["situation"] is not None


def _advisory(document: dict[str, Any]) -> Advisory:
    return Advisory(
        version=document["version"],
        outcome=Outcome(document["outcome"]),
        latency_ms=document["latency_ms"],
        decision=Decision(document["decision"]),
        probabilities=Probabilities(**document["probabilities"]) if document["probabilities"] else None,
        confidence=document["confidence"],
        coverage=document["coverage"],
    )


def _may_see_all(principal: Principal) -> bool:
    return principal.may(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)


def _is_hidden(connection: Connection, row: RowMapping, principal: Principal, judge: Judge) -> bool:
    if not principal.only_judges:
        return False
    if row["review_mode"] == ReviewMode.BLIND and row["review_status"] == "open":
        return True
    review = {name: row[f"review_{name}"] for name in ("id", "second_status", "third_status")}
    return asked_as(connection, review, judge) is not None


async def _first(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
