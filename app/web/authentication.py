"""Whose request is this, and may they make it?"""

import time
from functools import cache
from typing import Any, ClassVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException, NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Guard, Message, Receive, Scope, Send

from app.domain.role import Principal, Role
from app.errors import PhasegateError
from app.observability import REQUEST_SECONDS, REQUESTS, begin_request
from app.services.container import Services
from app.services.plane import Plane
from app.services.sign_in import SignIn
from app.web.sessions import admit, token_in

Asked = Request[Any, Any, Any]

_BEARER = b"bearer "

_requests, _seconds = cache(REQUESTS.labels), cache(REQUEST_SECONDS.labels)


class Gatekeeper:
    """ASGI middleware: a request id for everything, the holder of a key or session in the scope, and counts."""

    scopes: ClassVar = {"http"}

    def __init__(self, app: ASGIApp, plane: Plane, sign_in: SignIn) -> None:
        self.app = app
        self._plane, self._sign_in = plane, sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL takes none
            raise ClientException("an address holds no NUL characters")
        started = time.perf_counter()
        presented, wanted_id, has_cookies = None, None, False
        for name, value in scope["headers"]:
            if name == b"authorization":
                presented = value
            elif name == b"x-request-id":
                wanted_id = value.decode("latin-1")
            elif name == b"cookie":
                has_cookies = True
        request_id = begin_request(wanted_id).encode("latin-1")
        scope["auth"] = holder(self._plane, presented)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            if has_cookies and presented is None and (token := token_in(scope)) is not None:
                try:
                    await admit(self._sign_in, scope, token)
                except PhasegateError as error:
                    await _refuse(error, scope, receive, send_with_id)
                    return
            await self.app(scope, receive, send_with_id)
        finally:
            route = scope.get("path_template") or "unmatched"
            _requests(str(scope.get("method")), route, str(status)).inc()
            _seconds(route).observe(time.perf_counter() - started)


async def _refuse(error: PhasegateError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the route would have: a page with a page, the API with a problem."""
    handlers = scope["route_handler"].resolve_exception_handlers()
    request = Asked(scope, receive)
    response = handlers[Exception](request, error)
    await response.to_asgi_response(app=None, request=request)(scope, receive, send)


def holder(plane: Plane, presented: bytes | None) -> Principal | None:
    """Whose key an Authorization header presents, or None."""
    if presented is None or presented[: len(_BEARER)].lower() != _BEARER:
        return None
    return plane.principal(presented[len(_BEARER) :].decode("latin-1").strip())


def requires(*roles: Role) -> Guard:
    """A route's guard: 401 without a valid key, 403 where the key holds none of the roles."""

    # Async, though it awaits nothing: Litestar runs a sync guard on a thread, which costs more than all else.
    async def check(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        principal = connection.scope.get("auth")
        if not isinstance(principal, Principal):
            raise NotAuthorizedException("send a valid key: Authorization: Bearer pg_…")
        if not principal.may(*roles):
            raise PermissionDeniedException(f"this takes the role {' or '.join(roles)}")

    return check


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    principal = connection.scope["auth"]
    assert isinstance(principal, Principal), "the route has a guard"
    return principal


def services_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """What `create_app` put into the application's state."""
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services
