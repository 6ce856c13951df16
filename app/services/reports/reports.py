"""Who makes a report, and which ones are kept?"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from app.domain.clock import from_us, rfc3339, to_us
from app.domain.period import Period, Span, completed, span_of
from app.errors import InvalidInput
from app.observability import Event
from app.services.notices import Notices
from app.services.reports.document import document_of
from app.services.reports.facts import Gathering
from app.services.reports.people import suite_lines
from app.store import reporting
from app.store.database import Database
from app.store.deliveries import Kind, enqueue
from app.store.ledger import Ledger
from app.store.transaction import Transaction

log = structlog.get_logger()

LISTED_AT_MOST = 500
_NOT_BEGUN = "lies in a period that has not begun"
_LONGEST, _EARLIEST = timedelta(days=31), datetime(2000, 1, 1, tzinfo=UTC)
_CATCH_UP = 7  # periods of each kind that a plane which was away reports on when it is back


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports on demand, and one kept for every period that is over."""

    database: Database
    ledger: Ledger
    gathering: Gathering
    notices: Notices
    now: Callable[[], datetime]

    def of(self, period: Period, at: datetime | None) -> dict[str, Any]:
        """The report of the period that holds `at`: as it was kept, or made now. Without `at`: the present one.

        Raises `InvalidInput` for a period that has not begun, or that was over before there was a plane.
        """
        span, kept = self.find(period, at)
        return {"stored": kept is not None, **(kept or self.make(span))}

    def find(self, period: Period, at: datetime | None) -> tuple[Span, dict[str, Any] | None]:
        """Which span `of` would report on, and its report where one is kept. Raises what `of` does."""
        now = self.now()
        if at is not None and at > now + _LONGEST:
            raise InvalidInput([("at", _NOT_BEGUN)])
        span = span_of(period, max(at or now, _EARLIEST))
        if span.starts_at > now:
            raise InvalidInput([("at", _NOT_BEGUN)])
        with self.database.read() as connection:
            kept = reporting.read_report(connection, span.id)
            started_us = reporting.first_start_us(connection)
        if kept is None and started_us is not None and to_us(span.ends_at) <= started_us:
            raise InvalidInput([("at", f"lies before this plane first started, at {rfc3339(started_us)}")])
        return span, kept

    def with_lines(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The report with its edge cases as lines of a suite file; those hold situations, and are never kept."""
        cases = document["edge_cases"]
        with self.database.read() as connection:
            bodies = reporting.situations_of(connection, [case["decision_id"] for case in cases])
        return {**document, "suite_lines": suite_lines(cases, bodies, self.gathering.known_situations())}

    def kept(self) -> list[dict[str, Any]]:
        """What is kept, the latest period first."""
        with self.database.read() as connection:
            rows = reporting.stored(connection, limit=LISTED_AT_MOST)
        times = {"starts_at": "starts_us", "ends_at": "ends_us", "made_at": "created_us"}
        return [
            {"id": row["id"], "period": row["period"]}
            | {name: rfc3339(row[column]) for name, column in times.items()}
            for row in rows
        ]

    async def keep_due(self) -> list[str]:
        """Keep the reports of the periods that are over and have none; returns their ids, oldest first.

        However many servers try, each is kept once: its id is the row's key.
        """
        kept = []
        for span in await asyncio.to_thread(self._due):
            document = await asyncio.to_thread(self.make, span)
            if await self._keep(span, document):
                log.info(Event.REPORT_KEPT, id=span.id)
                self.notices.publish("report", _notice(document))
                kept.append(span.id)
        return kept

    def make(self, span: Span) -> dict[str, Any]:
        return document_of(self.gathering.facts(span, now=self.now()))

    async def _keep(self, span: Span, document: dict[str, Any]) -> bool:
        now_us = to_us(self.now())
        row = {
            "id": span.id,
            "period": span.period.value,
            "starts_us": to_us(span.starts_at),
            "ends_us": to_us(span.ends_at),
            "created_us": now_us,
            "document": json.dumps(document),
        }

        def work(tx: Transaction) -> bool:
            if not reporting.keep_report(tx, row):
                return False
            enqueue(tx, kind=Kind.REPORT, body=_notice(document), now_us=now_us)
            return True

        return await self.ledger.run(work)

    def _due(self) -> list[Span]:
        now = self.now()
        with self.database.read() as connection:
            started_us = reporting.first_start_us(connection)
            if started_us is None:
                return []
            since = from_us(started_us)
            over = [
                span for each in Period for span in completed(each, now=now, since=since, at_most=_CATCH_UP)
            ]
            there = reporting.which_stored(connection, [span.id for span in over])
        return sorted((span for span in over if span.id not in there), key=lambda span: span.ends_at)


def _notice(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a webhook and a follower of events are told: where it is, and the gist."""
    said = document["summary"]
    counts = ", ".join(f"{n} {outcome}" for outcome, n in said.items())
    told = {name: document[name] for name in ("id", "period", "starts_at", "ends_at", "summary")}
    return {**told, "sentence": f"the {document['period']} report is there: {counts}"}
