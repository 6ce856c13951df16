"""How do the decisions that a person found leave as a file?"""

from collections.abc import Iterator, Mapping
from typing import Any

from litestar import get
from litestar.response import Stream

from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.exports import Page, csv_file, jsonl_file
from app.web.console.sought import Sought
from app.web.console.wording import visible

MAX_ROWS = 100_000
_PAGE = 500
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
    """All that the address asks for, page after page; a filter that is none is refused before the file begins.

    Where there is more than a file may hold, its last line says so.
    """
    sought = Sought.of(request.url.query)
    asked, stories, principal = sought.filters, services_of(request).stories, principal_of(request)

    def pages() -> Iterator[Page]:
        cursor, left = None, MAX_ROWS
        while left:
            found = stories.page(asked, principal, cursor=cursor, limit=min(left, _PAGE))
            yield found["decisions"]
            left -= len(found["decisions"])
            cursor = found["next_cursor"]
            if cursor is None:
                return
        yield [{"notice": f"cut after {MAX_ROWS} decisions", "next_cursor": cursor}]

    return pages()


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as one row; what callers wrote shows what would turn or hide it, as on a page."""
    situation = document.get("situation") or {}
    row = {**document, "id": document.get("id", document.get("notice"))}
    row |= {name: situation.get(name) for name in _SITUATION}
    for part, names in _PARTS.items():
        row |= {f"{part}_{name}": (document.get(part) or {}).get(name) for name in names}
    return {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}
