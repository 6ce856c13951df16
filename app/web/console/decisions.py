"""Which decisions were there, and what is the whole story of one?"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from app.domain.decision import Category
from app.domain.role import Role
from app.domain.search import CHOICES
from app.services.verdicts import parse_verdict
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.exports import Page, csv_file, jsonl_file
from app.web.console.pages import goes_to, page
from app.web.console.sought import Sought
from app.web.console.telling import WHY, fields_of, told, verdicts_of
from app.web.console.wording import visible

_SEE = [seen_by()]
_PAGE, _EXPORT_PAGE = 50, 500
MAX_EXPORT = 100_000
COLUMNS = (
    *("id", "created_at", "rollout", "phase", "exposed", "action_type", "actor_id", "actor_role", "resource"),
    *(
        "legacy_decision",
        "legacy_rule",
        "legacy_error",
        "model_outcome",
        "model_decision",
        "model_confidence",
    ),
    *("agreement", "decision", "answered_by", "fallback_reason", "final", "review_kind", "review_status"),
    *("version", "revision", "latency_ms", "model_latency_ms", "request_id"),
)
_REPORT = (Role.CALLER, Role.REVIEWER, Role.OPERATOR)
_VERIFY = (Role.AUDITOR, Role.OPERATOR, Role.APPROVER)
_SEE_ROLLOUTS = (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)


@get("/decisions", guards=_SEE, sync_to_thread=True)
def decisions(request: Asked) -> Response[bytes]:
    asked_id = request.query_params.get("id", "").strip()
    if asked_id:
        return goes_to(request, f"/decisions/{quote(asked_id, safe='')}")
    if (
        "" in request.query_params.values()
    ):  # a form sends its empty fields too: the address that is kept has none
        return goes_to(request, Sought.of(request.url.query).address())
    sought = Sought.of(request.url.query)
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
        max_export=MAX_EXPORT,
    )


@get("/decisions/{decision_id:str}", guards=_SEE, sync_to_thread=True)
def decision(request: Asked, decision_id: FromPath[str]) -> Response[bytes]:
    """As it is recorded; where nobody has asked why yet, the page does, as that may take the model seconds."""
    story = services_of(request).stories.recorded(decision_id, principal_of(request))
    advisory = story["advisory"]
    why_unknown = advisory is not None and advisory["decision"] is not None and advisory["reasoning"] is None
    return _told_page(request, story, asks_why=why_unknown and story["situation"] is not None)


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


@get("/decisions.csv", guards=_SEE, sync_to_thread=True)
def as_csv(request: Asked) -> Stream:
    found = _everything(request)
    return csv_file(([_flat(row) for row in rows] for rows in found), COLUMNS, name="decisions")


@get("/decisions.jsonl", guards=_SEE, sync_to_thread=True)
def as_jsonl(request: Asked) -> Stream:
    return jsonl_file(_everything(request), name="decisions")


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


def _everything(request: Asked) -> Iterator[Page]:
    """All that the address asks for, page after page; a filter that is none is refused before the file begins.

    Where there is more than a file may hold, its last line says so.
    """
    sought = Sought.of(request.url.query)
    asked, stories, principal = sought.filters, services_of(request).stories, principal_of(request)

    def pages() -> Iterator[Page]:
        cursor, left = None, MAX_EXPORT
        while left:
            found = stories.page(asked, principal, cursor=cursor, limit=min(left, _EXPORT_PAGE))
            yield found["decisions"]
            left -= len(found["decisions"])
            cursor = found["next_cursor"]
            if cursor is None:
                return
        yield [{"notice": f"cut after {MAX_EXPORT} decisions", "next_cursor": cursor}]

    return pages()


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as one row; what callers wrote shows what would turn or hide it, as on a page."""
    situation, legacy = document.get("situation") or {}, document.get("legacy") or {}
    advisory, review = document.get("advisory") or {}, document.get("review") or {}
    row = {
        **document,
        "id": document.get("id", document.get("notice")),
        **{name: situation.get(name) for name in ("action_type", "actor_role", "actor_id", "resource")},
        **{f"legacy_{name}": legacy.get(name) for name in ("decision", "rule", "error")},
        **{
            f"model_{name}": advisory.get(name)
            for name in ("outcome", "decision", "confidence", "latency_ms")
        },
        **{f"review_{name}": review.get(name) for name in ("kind", "status")},
    }
    return {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}
