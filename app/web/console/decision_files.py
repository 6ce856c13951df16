"""How do the decisions that a person found leave as a file?"""

from collections.abc import Iterator, Mapping
from typing import Any

from litestar import get
from litestar.response import Stream

from app.domain.search import CHOICES, Filters
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.exports import Page, csv_file, jsonl_file, pages
from app.web.console.sought import Sought

FILTERS = ("rollout", "actor", "action", "version", *CHOICES, "agreement", "epoch", "since", "until")
MAX_ROWS = 100_000
_SITUATION = ("action_type", "actor_role", "actor_id", "resource")
_PARTS = {
    "legacy": ("decision", "rule", "error"),
    "advisory": ("outcome", "decision", "confidence", "latency_ms"),
    "review": ("kind", "status"),
}
_PLAIN = (
    "agreement",
    "decision",
    "answered_by",
    "fallback_reason",
    "final",
    "version",
    "revision",
    "latency_ms",
)
_COLUMNS = (
    *("id", "created_at", "rollout", "phase", "exposed"),
    *_SITUATION,
    *(f"{part}_{name}" for part, names in _PARTS.items() for name in names),
    *_PLAIN,
    "request_id",
)


@get("/decisions.csv", guards=[seen_by()], sync_to_thread=True)
def as_csv(request: Asked) -> Stream:
    found = _everything(request)
    return csv_file(([_flat(row) for row in rows] for rows in found), _COLUMNS, name="decisions")


@get("/decisions.jsonl", guards=[seen_by()], sync_to_thread=True)
def as_jsonl(request: Asked) -> Stream:
    return jsonl_file(_everything(request), name="decisions")


def _everything(request: Asked) -> Iterator[Page]:
    """All that the address asks for; a filter that is none is refused before the file begins."""
    asked = Filters(**Sought.of(request, FILTERS).filters)
    stories, principal = services_of(request).stories, principal_of(request)

    def ask(cursor: str | None, limit: int) -> Mapping[str, Any]:
        return stories.page(asked, principal, cursor=cursor, limit=limit)

    return pages(ask, "decisions", at_most=MAX_ROWS)


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    situation = document.get("situation") or {}
    row = {**document, "id": document.get("id", document.get("notice"))}
    row |= {name: situation.get(name) for name in _SITUATION}
    for part, names in _PARTS.items():
        row |= {f"{part}_{name}": (document.get(part) or {}).get(name) for name in names}
    return row
