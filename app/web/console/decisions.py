"""Which decisions were there, and what is the whole story of one?"""

from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath

from app.domain.decision import Category
from app.domain.role import Role
from app.domain.search import CHOICES, Filters
from app.services.stories import lacks_reasons
from app.services.verdicts import parse_verdict
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.decision_files import FILTERS, MAX_ROWS
from app.web.console.marked import fields_of
from app.web.console.pages import goes_to, page
from app.web.console.sought import Sought
from app.web.console.telling import WHY, told, verdicts_of

_SEE = [seen_by()]
_PAGE = 50
_REPORT = (Role.CALLER, Role.REVIEWER, Role.OPERATOR)
_VERIFY = (Role.AUDITOR, Role.OPERATOR, Role.APPROVER)
_SEE_ROLLOUTS = (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)


@get("/decisions", guards=_SEE, sync_to_thread=True)
def decisions(request: Asked) -> Response[bytes]:
    asked_id = request.query_params.get("id", "").strip()
    if asked_id:
        return goes_to(request, f"/decisions/{quote(asked_id, safe='')}")
    sought = Sought.of(request, FILTERS)
    if "" in request.query_params.values():  # a form sends its empty fields too: the address has none
        return goes_to(request, sought.address())
    found = _look(request, sought, limit=_PAGE)
    rows = found["decisions"]
    return page(
        request,
        "decisions.html",
        title="Decisions",
        sought=sought,
        choices=CHOICES,
        rows=rows,
        looked_at=found["looked_at"],
        older=_older(sought, found),
        newer=_newer(sought, found),
        looser=[] if rows or found["next_cursor"] else _looser(request, sought),
        rollouts=_rollouts(request, sought),
        max_export=MAX_ROWS,
    )


@get("/decisions/{decision_id:str}", guards=_SEE, sync_to_thread=True)
def decision(request: Asked, decision_id: FromPath[str]) -> Response[bytes]:
    """As it is recorded; where nobody has asked why yet, the page does, as that may take the model seconds."""
    story = services_of(request).stories.recorded(decision_id, principal_of(request))
    return _told_page(request, story, asks_why=lacks_reasons(story))


@get("/decisions/{decision_id:str}/why", guards=_SEE)
async def why(request: Asked, decision_id: FromPath[str]) -> Response[bytes]:
    """The same with the model's reasons, found out now where they were not known."""
    story = await services_of(request).stories.of(decision_id, principal_of(request))
    return _told_page(request, story, asks_why=False)


@get("/decisions/{decision_id:str}/chain", guards=[seen_by(*_VERIFY)], sync_to_thread=True)
def chain(request: Asked, decision_id: FromPath[str]) -> Response[bytes]:
    """A part: where a decision stands in the hash chain, and whether its batch holds."""
    place = services_of(request).administration.place_in_chain(decision_id)
    return page(request, "decision_chain.html", place=place, decision_id=decision_id)


@post("/decisions/{decision_id:str}/report", status_code=200, guards=[seen_by(*_REPORT)])
async def report(request: Asked, decision_id: FromPath[str]) -> Response[bytes]:
    form = await request.form()
    said = {name: form.get(name) or None for name in ("decision", "category", "notes")}
    await services_of(request).reviews.report(decision_id, parse_verdict(said), principal_of(request))
    return goes_to(request, f"/decisions/{quote(decision_id, safe='')}")


def _told_page(request: Asked, story: dict[str, Any], *, asks_why: bool) -> Response[bytes]:
    principal = principal_of(request)
    return page(
        request,
        "decision.html",
        title=f"Decision {story['id'][-6:]}",
        story=story,
        asks_why=asks_why,
        sentences=told(story),
        fallback_why=WHY.get(story["fallback_reason"]),
        fields=fields_of(story),
        verdicts=verdicts_of(story),
        categories=tuple(Category),
        may_report=principal.may(*_REPORT),
        may_verify=principal.may(*_VERIFY),
    )


def _look(request: Asked, sought: Sought, *, limit: int) -> dict[str, Any]:
    newer = sought.place.get("after")
    return services_of(request).stories.page(
        Filters(**sought.filters),
        principal_of(request),
        cursor=newer or sought.place.get("before"),
        limit=limit,
        newer=newer is not None,
    )


def _older(sought: Sought, found: dict[str, Any]) -> str | None:
    if "after" in sought.place:
        return sought.address(before=found["decisions"][-1]["id"]) if found["decisions"] else None
    return sought.address(before=found["next_cursor"]) if found["next_cursor"] else None


def _newer(sought: Sought, found: dict[str, Any]) -> str | None:
    if "after" in sought.place:
        return sought.address(after=found["next_cursor"]) if found["next_cursor"] else None
    if "before" in sought.place and found["decisions"]:
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
    return sorted({*names, sought.given.get("rollout", "")} - {""})
