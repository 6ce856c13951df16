"""What changed on this plane, who changed it and why, and has anybody touched that history?"""

from collections.abc import Iterator, Mapping
from typing import Any

from litestar import Response, get, post
from litestar.response import Stream

from app.domain.role import Role
from app.services.administration import TransitionFilters
from app.services.transitions import KINDS
from app.web.authentication import Asked, services_of
from app.web.console.access import seen_by
from app.web.console.exports import Page, csv_file, jsonl_file, pages
from app.web.console.pages import goes_to, page
from app.web.console.sought import Sought

_SEE = [seen_by(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_PAGE = 50
_FILTERS = ("rollout", "kind", "who", "automatic", "since", "until")
_COLUMNS = (
    *("at", "rollout", "kind", "actor_name", "actor", "automatic", "reason", "sentence"),
    *("revision", "from", "to", "evidence", "id"),
)


@get("/audit", guards=_SEE, sync_to_thread=True)
def audit(request: Asked) -> Response[bytes]:
    sought, services = Sought.of(request, _FILTERS), services_of(request)
    if "" in request.query_params.values():  # a form sends its empty fields too: the address has none
        return goes_to(request, sought.address())
    asked = TransitionFilters(**sought.filters)
    found = services.administration.audit(asked, cursor=sought.place.get("cursor"), limit=_PAGE)
    cursor = found["next_cursor"]
    return page(
        request,
        "audit.html",
        title="Audit",
        sought=sought,
        transitions=found["transitions"],
        older=None if cursor is None else sought.address(cursor=cursor),
        rollouts=services.plane.view.policy.book.names,
        kinds=KINDS,
    )


@get("/audit.csv", guards=_SEE, sync_to_thread=False)
def audit_csv(request: Asked) -> Stream:
    return csv_file(_all(request), _COLUMNS, name="audit")


@get("/audit.jsonl", guards=_SEE, sync_to_thread=False)
def audit_jsonl(request: Asked) -> Stream:
    return jsonl_file(_all(request), name="audit")


@post("/audit/verify", status_code=200, guards=_SEE, sync_to_thread=True)
def verify(request: Asked) -> Response[bytes]:
    """Walk the whole chain; as long as the history is."""
    return page(request, "audit_chain.html", found=services_of(request).administration.verify())


def _all(request: Asked) -> Iterator[Page]:
    """All that the address asks for; a filter that is none is refused before the file begins."""
    asked = TransitionFilters(**Sought.of(request, _FILTERS).filters)
    administration = services_of(request).administration

    def ask(cursor: str | None, limit: int) -> Mapping[str, Any]:
        return administration.audit(asked, cursor=cursor, limit=limit)

    return pages(ask, "transitions")
