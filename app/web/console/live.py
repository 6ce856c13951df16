"""What has just happened, for every page that is open?"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from litestar import Response, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from app.domain.role import Role
from app.errors import StoreUnavailable
from app.services.notices import Notices
from app.web.authentication import Asked, holder, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.pages import page
from app.web.console.wording import visible
from app.web.sessions import session_of

TICK_S = 5.0
LINE_S = 600.0  # then the browser comes again
ASK_S = 30.0  # whether it still may
_AGAIN_MS = 1_000

_SEES = (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)  # what happens to rollouts


@get("/live", guards=[seen_by()])
async def live(request: Asked) -> ServerSentEvent:
    """`rollout`, `review` and `plane` as they happen, `tick` every 5 s."""
    told = _in_full if principal_of(request).may(*_SEES) else _in_brief
    line = news(services_of(request).notices, told, may=partial(_still_in, request))
    return ServerSentEvent(line, retry_duration=_AGAIN_MS)


@get("/live/alarm", guards=[seen_by()], sync_to_thread=False)
def alarm(request: Asked) -> Response[bytes]:
    """What every page says above its own: whether the kill switch is engaged."""
    return page(request, "alarm.html")


async def news(
    notices: Notices,
    told: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]] | None],
    *,
    may: Callable[[], Awaitable[bool]],
    tick_s: float = TICK_S,
    line_s: float = LINE_S,
    ask_s: float = ASK_S,
) -> AsyncGenerator[ServerSentEventMessage]:
    """The stream of one page, as `told` it; ends with the server, after `line_s`, and when it `may` no more."""
    began = ticked = asked = time.monotonic()
    async with aclosing(notices.follow(quiet_s=tick_s)) as followed:
        async for kind, body in followed:
            now, event = time.monotonic(), told(kind, body)
            if now - asked >= ask_s:
                asked = now
                if not await may():
                    return
            if event is not None:
                yield _message(*event)
            if notices.closed or now - began >= line_s:
                return
            if not kind or now - ticked >= tick_s:
                ticked = now
                yield _message("tick", {})


async def _still_in(request: Asked) -> bool:
    """Whether the key or the session still opens pages; a database that is away does not say that it does not."""
    services, session = services_of(request), session_of(request)
    if session is None:
        return holder(services.plane, request.headers["authorization"].encode("latin-1")) is not None
    try:
        return await services.sign_in.lasts(session)
    except StoreUnavailable:
        return True


def _in_full(kind: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    match kind:
        case "transition" if body["rollout"] == "*":
            return "plane", {"sentence": visible(body["sentence"])}
        case "transition" | "guardrail":
            # A transition's sentence names its rollout itself.
            about = "" if kind == "transition" else f"{body['rollout']}: "
            said = visible(f"{about}{body['sentence']}")
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
    """For callers: that something happened, but not where, what or why."""
    event = _in_full(kind, body)
    return event and (event[0], {})


def _message(name: str, about: dict[str, Any]) -> ServerSentEventMessage:
    return ServerSentEventMessage(event=name, data=msgspec.json.encode(about).decode())
