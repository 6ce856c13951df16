"""Which reports are kept, and how is one read, printed or taken along?"""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode

from litestar import Response, get
from litestar.params import FromPath, FromQuery, QueryParameter

from app.domain.clock import from_us
from app.domain.period import Period
from app.domain.role import Role
from app.errors import InvalidInput
from app.services.reports.reports import Reports
from app.web.api.reports import instant_of, written
from app.web.authentication import Asked, services_of
from app.web.console.access import seen_by
from app.web.console.pages import goes_to, page, theme_of

_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]

Form = Annotated[Literal["json", "md", "html"], QueryParameter(name="format")]


@get("/reports", guards=_SEE, sync_to_thread=True)
def reports(
    request: Asked, period: FromQuery[Period | None] = None, at: FromQuery[str] = ""
) -> Response[bytes]:
    """What is kept; with a period, that report."""
    if period is not None:
        return goes_to(request, f"/reports/{period}?{urlencode({'at': at})}")
    services = services_of(request)
    today = f"{from_us(services.now_us()):%Y-%m-%d}"
    return page(
        request,
        "reports.html",
        title="Reports",
        kept=services.reports.kept(),
        periods=tuple(Period),
        today=today,
    )


@get("/reports/{period:str}", guards=_SEE, sync_to_thread=True)
def report(request: Asked, period: FromPath[Period], at: FromQuery[str] = "") -> Response[bytes]:
    """The report in a frame that runs nothing, for it shows what callers wrote."""
    kept = services_of(request).reports
    span, _ = kept.find(period, instant_of(at))
    return page(
        request,
        "report.html",
        title=f"{period.capitalize()} report, {span.starts_at:%Y-%m-%d}",
        period=period,
        at=f"{span.starts_at:%Y-%m-%d}",
        before=_day(kept, period, span.starts_at - timedelta(days=1)),
        after=_day(kept, period, span.ends_at),
    )


@get("/reports/{period:str}/document", guards=_SEE, sync_to_thread=True)
def document(
    request: Asked,
    period: FromPath[Period],
    *,
    at: FromQuery[str] = "",
    form: Form = "html",
    save: FromQuery[bool] = False,
) -> Response[bytes]:
    """The report itself, to show in the frame, or to save."""
    services = services_of(request)
    made = services.reports.of(period, instant_of(at))
    response = written(services, made, form, framed_by="'self'", theme="auto" if save else theme_of(request))
    if save:
        response.headers["Content-Disposition"] = f'attachment; filename="phasegate-{made["id"]}.{form}"'
    return response


def _day(reports: Reports, period: Period, at: datetime) -> str | None:
    """A day as an address names it, where there is a report of its period."""
    try:
        reports.find(period, at)
    except InvalidInput:
        return None
    return f"{at:%Y-%m-%d}"
