"""What changed on this plane, who changed it and why, and has anybody touched that history?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlencode

from litestar import Response, get, post
from litestar.response import Stream

from app.domain.role import Role
from app.services.administration import TransitionFilters
from app.services.transitions import KINDS
from app.web.authentication import Asked, services_of
from app.web.bodies import instant_us
from app.web.console.access import seen_by
from app.web.console.exports import Page, csv_file, jsonl_file, pages
from app.web.console.pages import goes_to, page

_SEE = [seen_by(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_PAGE, _EXPORT_PAGE = 50, 500
_FILTERS = ("rollout", "kind", "who", "automatic", "since", "until")
_AUTOMATIC = {"true": True, "false": False}
_COLUMNS = (
    *("at", "rollout", "kind", "actor_name", "actor", "automatic", "reason", "sentence"),
    *("revision", "from", "to", "evidence", "id"),
)


@dataclass(frozen=True, slots=True)
class Search:
    """What the address asks for, by filter; an empty field asks for nothing."""

    given: Mapping[str, str]
    cursor: str | None

    @classmethod
    def of(cls, query: str) -> Self:
        said = {name: value.strip() for name, value in parse_qsl(query)}
        return cls({name: said[name] for name in _FILTERS if name in said}, said.get("cursor"))

    @property
    def filters(self) -> TransitionFilters:
        """Raises `InvalidInput` where a time is none."""
        since, until = self.given.get("since"), self.given.get("until")
        return TransitionFilters(
            self.given.get("rollout"),
            self.given.get("kind"),
            self.given.get("who"),
            _AUTOMATIC.get(self.given.get("automatic", "")),
            instant_us("since", since),
            instant_us("until", until),
        )

    def address(self, path: str = "/audit", **more: str) -> str:
        """Where the same is found, with other filters in the place of these where `more` names them."""
        query = urlencode({**self.given, **more})
        return f"{path}?{query}" if query else path


@get("/audit", guards=_SEE, sync_to_thread=True)
def audit(request: Asked) -> Response[bytes]:
    search = Search.of(request.url.query)
    if (
        "" in request.query_params.values()
    ):  # a form sends its empty fields too: the address that is kept has none
        return goes_to(request, search.address())
    services = services_of(request)
    found = services.administration.audit(search.filters, cursor=search.cursor, limit=_PAGE)
    cursor = found["next_cursor"]
    return page(
        request,
        "audit.html",
        title="Audit",
        search=search,
        transitions=found["transitions"],
        older=None if cursor is None else search.address(cursor=cursor),
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
    """Every transition that the address asks for; a filter that is none is refused before the file begins."""
    filters, administration = Search.of(request.url.query).filters, services_of(request).administration

    def ask(cursor: str | None) -> Mapping[str, object]:
        return administration.audit(filters, cursor=cursor, limit=_EXPORT_PAGE)

    return pages(ask, "transitions")
