"""Reports over HTTP: made on demand, or as they were kept, in the form that is asked for."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get
from litestar.datastructures.headers import Accept
from litestar.params import FromPath, FromQuery, QueryParameter

from app.domain.clock import from_us
from app.domain.period import Period
from app.domain.role import Role
from app.services.container import Services
from app.services.reports.render import as_html, as_markdown, style_source
from app.web.authentication import Asked, requires, services_of
from app.web.bodies import instant_us

_SEE = [requires(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_FORMS = {"json": "application/json", "md": "text/markdown", "html": "text/html"}


@get("/v1/reports", guards=_SEE, sync_to_thread=True)
def reports(request: Asked) -> dict[str, Any]:
    """The reports that are kept, the latest period first."""
    return {"reports": services_of(request).reports.kept()}


@get("/v1/reports/{period:str}", guards=_SEE, sync_to_thread=True)
def report(
    request: Asked,
    period: FromPath[Period],
    at: FromQuery[str | None] = None,
    form: Annotated[Literal["json", "md", "html"] | None, QueryParameter(name="format")] = None,
) -> Response[bytes]:
    """The period that holds `at`, or the present one so far; by `format`, else by the Accept header."""
    made = services_of(request).reports.of(period, instant_of(at))
    response = written(services_of(request), made, form or _accepted(request), framed_by="'none'")
    response.headers["Vary"] = "Accept"
    return response


def instant_of(at: str | None) -> datetime | None:
    """None where nothing is said. Raises `InvalidInput`."""
    at_us = instant_us("at", at or None)
    return None if at_us is None else from_us(at_us)


def written(
    services: Services, made: dict[str, Any], form: str, *, framed_by: str, theme: str = "auto"
) -> Response[bytes]:
    """A report as `json`, `md` or `html`; `framed_by` is a source of a content security policy.

    What callers wrote is escaped; should a browser open the page all the same, it runs and fetches nothing.
    """
    match form:
        case "html":
            body = as_html(made, theme=theme).encode()
        case "md":
            body = as_markdown(made).encode()
        case _:
            body = msgspec.json.encode(services.reports.with_lines(made))
    policy = f"default-src 'none'; style-src '{style_source()}'; frame-ancestors {framed_by}; base-uri 'none'; sandbox"
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(body, media_type=_FORMS[form], headers=headers)


def _accepted(request: Asked) -> str:
    """The form that the caller likes best; JSON where it likes none of them."""
    likes = Accept(request.headers.get("accept", "*/*"))
    best = likes.best_match(list(_FORMS.values()), default=_FORMS["json"])
    return next((form for form, media_type in _FORMS.items() if media_type == best), "json")
