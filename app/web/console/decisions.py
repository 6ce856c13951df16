"""Which decisions were there, and what is the whole story of one?"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from app.domain.decision import Category
from app.domain.role import Role
from app.services.verdicts import parse_verdict
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.exports import csv_file, jsonl_file
from app.web.console.pages import goes_to, page
from app.web.console.sought import Sought

_SEE = [seen_by()]
_PAGE, _EXPORT_PAGE = 50, 500
MAX_EXPORT = 100_000
_SEE_ROLLOUTS = (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)


@get("/decisions", guards=_SEE, sync_to_thread=True)
def decisions(request: Asked) -> Response[bytes]:
    asked_id = request.query_params.get("id", "").strip()
    if asked_id:
        return goes_to(request, f"/decisions/{quote(asked_id, safe='')}")
    if "" in request.query_params.values():  # a form sends its empty fields too: the address that is kept has none
        return goes_to(request, Sought.of(request.url.query).address())
    sought = Sought.of(request.url.query)
    found = _look(request, sought, limit=_PAGE)
    rows = found["decisions"]
    return page(
        request,
        "decisions.html",
        title="Decisions",
        sought=sought,
        rows=rows,
        looked_at=found["looked_at"],
        older=_older(sought, found),
        newer=_newer(sought, found),
        looser=[] if rows or found["next_cursor"] else _looser(request, sought),
        rollouts=_rollouts(request, sought),
        max_export=MAX_EXPORT,
    )


def _look(request: Asked, sought: Sought, *, limit: int) -> dict[str, Any]:
    newer = sought.page.get("after")
    return services_of(request).stories.page(
        sought.filters,
        principal_of(request),
        cursor=newer or sought.page.get("before"),
        limit=limit,
        newer=newer is not None,
    )


def _older(sought: Sought, found: dict[str, Any]) -> str | None:
    if "after" in sought.page:
        return sought.address(before=found["decisions"][-1]["id"]) if found["decisions"] else None
    return sought.address(before=found["next_cursor"]) if found["next_cursor"] else None


def _newer(sought: Sought, found: dict[str, Any]) -> str | None:
    if "after" in sought.page:
        return sought.address(after=found["next_cursor"]) if found["next_cursor"] else None
    if "before" in sought.page and found["decisions"]:
        return sought.address(after=found["decisions"][0]["id"])
    return None


def _looser(request: Asked, sought: Sought) -> list[str]:
    """The filters without which something would be found."""
    return [name for name in sought.given if _look(request, sought.without(name), limit=5)["decisions"]]


def _rollouts(request: Asked, sought: Sought) -> list[str]:
    """What may be chosen from; a caller is not told which rollouts there are."""
    if not principal_of(request).may(*_SEE_ROLLOUTS):
        return []
    names = services_of(request).plane.view.states
    return sorted({*names, *([sought.given["rollout"]] if "rollout" in sought.given else [])})
