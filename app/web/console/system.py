"""Is the server well, who outside is told, and what is it set to?"""

from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, URLEncodedBody

from app.domain.role import Principal, Role
from app.errors import StoreUnavailable
from app.services.container import Services
from app.services.webhooks import CHOSEN_FROM
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.forms import Ticked, ticked
from app.web.console.pages import goes_to, is_part, page

_OPERATE = [seen_by(Role.OPERATOR)]
_SEE_INSIDE = (Role.AUDITOR, Role.OPERATOR, Role.APPROVER)
_DELIVERIES, _FAILED = 20, 100


class NewWebhook(msgspec.Struct):
    """`kinds`: all of them where none is ticked."""

    url: str
    kinds: Ticked = []


class Fault(msgspec.Struct):
    """hang, crash, garbage or slow:<ms>; empty ends it."""

    fault: str = ""


@get("/system", guards=[seen_by()], sync_to_thread=True)
def system(request: Asked) -> Response[bytes]:
    """The whole page, or where it refreshes itself the part that says how everything is."""
    services, by = services_of(request), principal_of(request)
    parts = list(services.health.parts())
    if is_part(request):
        return page(request, "system_status.html", parts=parts)
    return page(
        request,
        "system.html",
        title="Health",
        parts=parts,
        about=services.health.about() if by.may(*_SEE_INSIDE) else {},
        settings=services.health.described() if by.may(Role.ADMIN) else [],
        faults=("hang", "crash", "garbage", "slow:2000"),
        fault=services.models.default.status.fault,
        drills=services.drills,
        kinds=CHOSEN_FROM,
        **_stored(services, by),
    )


@get("/system/preflight", guards=_OPERATE, sync_to_thread=True)
def preflight(request: Asked) -> Response[bytes]:
    """The quick checks, made now."""
    return page(request, "preflight_part.html", checks=services_of(request).health.checks())


@get("/system/deliveries", guards=[seen_by(*_SEE_INSIDE)], sync_to_thread=True)
def deliveries(request: Asked) -> Response[bytes]:
    """The log of deliveries, which refreshes itself."""
    return page(request, "deliveries_part.html", **_delivered(services_of(request)))


@post("/webhooks", status_code=200, guards=_OPERATE)
async def add_webhook(request: Asked, data: URLEncodedBody[NewWebhook]) -> Response[bytes]:
    """A new one; its secret is shown this once in the place of the form."""
    made = await services_of(request).webhooks.add(
        url=data.url.strip(), kinds=ticked(data.kinds), by=principal_of(request)
    )
    return page(
        request,
        "secret_part.html",
        secret=made["secret"],
        title="Secret of the webhook",
        kind="webhook",
        address=made["url"],
    )


@post("/webhooks/{webhook_id:str}/test", status_code=200, guards=_OPERATE)
async def test_webhook(request: Asked, webhook_id: FromPath[str]) -> Response[bytes]:
    """Send it a test message; the log shows what comes of it."""
    await services_of(request).webhooks.test(webhook_id)
    return goes_to(request, "/system")


@post("/webhooks/{webhook_id:str}/remove", status_code=200, guards=_OPERATE)
async def remove_webhook(request: Asked, webhook_id: FromPath[str]) -> Response[bytes]:
    await services_of(request).webhooks.remove(webhook_id, by=principal_of(request))
    return goes_to(request, "/system")


@post("/system/fault", status_code=200, guards=[seen_by(Role.ADMIN)])
async def fault(request: Asked, data: URLEncodedBody[Fault]) -> Response[bytes]:
    """Make the model misbehave, or let it be well again."""
    await services_of(request).health.inject(data.fault.strip() or None)
    return goes_to(request, "/system")


def _delivered(services: Services) -> dict[str, Any]:
    webhooks = services.webhooks.all()
    return {
        "webhooks": webhooks,
        "deliveries": services.webhooks.log(status=None, limit=_DELIVERIES),
        "failed": len(services.webhooks.log(status="failed", limit=_FAILED)),
        "hosts": {each["id"]: each["url"] for each in webhooks},
    }


def _stored(services: Services, by: Principal) -> dict[str, Any]:
    """What the database is asked for: the page shows the rest while it is away."""
    found: dict[str, Any] = {"sizes": [], "names": {}, "is_away": False}
    try:
        if by.may(*_SEE_INSIDE):
            found |= {"sizes": services.health.sizes(), **_delivered(services)}
        if by.may(Role.OPERATOR):
            found["names"] = services.administration.names()
    except StoreUnavailable:
        found["is_away"] = True
    return found
