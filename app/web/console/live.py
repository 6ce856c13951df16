"""What has just happened, for every page that is open?"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Response, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from app.domain.role import Role
from app.services.notices import Notices
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.pages import page
from app.web.console.wording import visible

TICK_S = 5.0
LINE_S = 600.0  # then the browser comes again, and whether it still may is asked again
_AGAIN_MS = 1_000

_SEES = (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)  # what happens to rollouts


@get("/live", guards=[seen_by()])
async def live(request: Asked) -> ServerSentEvent:
    """`rollout`, `review` and `plane` as they happen, `tick` every 5 s."""
    told = _in_full if principal_of(request).may(*_SEES) else _in_brief
    return ServerSentEvent(news(services_of(request).notices, told), retry_duration=_AGAIN_MS)


@get("/live/alarm", guards=[seen_by()], sync_to_thread=False)
def alarm(request: Asked) -> Response[bytes]:
    """What every page says above its own: whether the kill switch is engaged."""
    return page(request, "alarm.html")


async def news(
    notices: Notices,
    told: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]] | None],
    *,
    tick_s: float = TICK_S,
    line_s: float = LINE_S,
) -> AsyncGenerator[ServerSentEventMessage]:
    """The stream of one page, as `told` it; ends with the server, and after `line_s`."""
    began = ticked = time.monotonic()
    async with aclosing(notices.follow(quiet_s=tick_s)) as followed:
        async for kind, body in followed:
            now, event = time.monotonic(), told(kind, body)
            if event is not None:
                yield _message(*event)
            if notices.closed or now - began >= line_s:
                return
            if not kind or now - ticked >= tick_s:
                ticked = now
                yield _message("tick", {})


def _in_full(kind: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    match kind:
        case "transition" if body["rollout"] == "*":
            return "plane", {"sentence": visible(body["sentence"])}
        case "transition" | "guardrail":
            said = visible(f"{body['rollout']}: {body['sentence']}")
            return "rollout", {
                "name": body["rollout"],
                "sentence": said,
                "alarm": body.get("automatic", False),
            }
        case "review" | "plane":
            return kind, {}
        case _:
            return None


def _in_brief(kind: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """For callers: that something happened, and to which rollout, but not what or why."""
    event = _in_full(kind, body)
    if event is None:
        return None
    name, about = event
    return name, {"name": about["name"]} if "name" in about else {}


def _message(name: str, about: dict[str, Any]) -> ServerSentEventMessage:
    return ServerSentEventMessage(event=name, data=msgspec.json.encode(about).decode())
