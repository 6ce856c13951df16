"""Webhooks over HTTP: who is told what happens here, and whether the message arrived."""

from typing import Annotated, Any, Literal

from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.domain.role import Role
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import NewWebhook

_OPERATE = [requires(Role.OPERATOR)]
_AUDIT = [requires(Role.AUDITOR, Role.OPERATOR, Role.APPROVER)]


@get("/v1/webhooks", guards=_OPERATE, sync_to_thread=True)
def webhooks(request: Asked) -> dict[str, Any]:
    """Those that are told."""
    return {"webhooks": services_of(request).webhooks.all()}


@post("/v1/webhooks", status_code=200, guards=_OPERATE)
async def add_webhook(request: Asked, data: JSONBody[NewWebhook]) -> dict[str, Any]:
    """A new one; `secret` and the whole `url` are shown this once."""
    by = principal_of(request)
    return await services_of(request).webhooks.add(url=data.url, kinds=data.kinds, by=by)


@delete("/v1/webhooks/{webhook_id:str}", status_code=200, guards=_OPERATE)
async def remove_webhook(request: Asked, webhook_id: FromPath[str]) -> dict[str, Any]:
    """Send it nothing more."""
    return await services_of(request).webhooks.remove(webhook_id, by=principal_of(request))


@post("/v1/webhooks/{webhook_id:str}/test", status_code=200, guards=_OPERATE)
async def test_webhook(request: Asked, webhook_id: FromPath[str]) -> dict[str, Any]:
    """Send it a test message within seconds; the answer is the delivery to look for in the log."""
    return await services_of(request).webhooks.test(webhook_id)


@get("/v1/webhooks/deliveries", guards=_AUDIT, sync_to_thread=True)
def webhook_deliveries(
    request: Asked,
    status: FromQuery[Literal["waiting", "delivered", "failed"] | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    """What was sent to whom and what came of it, newest first."""
    return {"deliveries": services_of(request).webhooks.log(status=status, limit=limit)}
