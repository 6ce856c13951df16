"""Where does every rollout stand, on one page, and how is all of it stopped?"""

from urllib.parse import urlencode

from litestar import Response, get, post

from app.domain.role import Role
from app.errors import InvalidInput
from app.services.board import filtered
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.pages import goes_to, is_part, page

_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_STEER = [seen_by(Role.OPERATOR, Role.APPROVER)]
_CONFIRMED = {True: "stop", False: "release"}  # what a person types, by what it does


@get("/", guards=_SEE, sync_to_thread=True)
def board(request: Asked) -> Response[bytes]:
    """All of it, or what `q`, `phase` and `state` leave: names that a handler's parameters cannot have."""
    wanted = {name: request.query_params.get(name, "") for name in ("q", "phase", "state")}
    found = services_of(request).board.read()
    query = urlencode({name: value for name, value in wanted.items() if value})
    return page(
        request,
        "board_rows.html" if is_part(request) else "board.html",
        title="Board",
        shown=filtered(found["rows"], **wanted),
        wanted=wanted,
        here=f"/?{query}" if query else "/",
        **found,
    )


@post("/kill-switch", status_code=200, guards=_STEER)
async def kill_switch(request: Asked) -> Response[bytes]:
    """Engage it or release it, where the word was typed that says so."""
    form = await request.form()
    engaged, reason = form.get("engaged") == "true", str(form.get("reason", "")).strip()
    word = _CONFIRMED[engaged]
    if str(form.get("confirmation", "")).strip().casefold() != word:
        raise InvalidInput([("confirmation", f"type the word {word} to confirm")])
    if not reason:
        raise InvalidInput([("reason", "say why")])
    await services_of(request).levers.kill(engaged=engaged, reason=reason, by=principal_of(request))
    return goes_to(request, "/")
