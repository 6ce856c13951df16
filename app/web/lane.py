"""How does the one request that comes thousands of times a second get past everything it does not need?"""

import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import structlog
from litestar.types import ASGIApp, Receive, Scope, Send

from app.domain.role import Principal, Role
from app.domain.situation import MAX_SITUATION_BYTES, parse_situation
from app.observability import REQUEST_SECONDS, REQUESTS, Event, begin_request
from app.services.container import Services
from app.services.records import Question
from app.web.authentication import holder
from app.web.bodies import decode
from app.web.problems import MEDIA_TYPE, problem_of

log = structlog.get_logger()

_PATH = "/v1/decisions"
_encode = msgspec.json.Encoder().encode
_requests, _seconds = cache(REQUESTS.labels), REQUEST_SECONDS.labels(_PATH)


class DecisionLane:
    """ASGI in front of Litestar: answers a plain `POST /v1/decisions`, leaves the rest to the application.

    Plain is: a key that may ask, a body of stated and permitted length, no idempotency key. Whatever is
    refused is refused by the application's own route, which gives the same answers at half the speed.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == _PATH and scope.get("method") == "POST":
            asked = self._plain(scope["headers"])
            if asked is not None:
                await self._answer(*asked, receive, send)
                return
        await self._app(scope, receive, send)

    def _plain(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Principal, bytes | None] | None:
        """Who asks and under which request id, or None where the application must look."""
        presented = wanted_id = None
        length = MAX_SITUATION_BYTES + 1
        for name, value in headers:
            if name == b"authorization":
                presented = value
            elif name == b"content-length" and value.isdigit():
                length = int(value)
            elif name == b"x-request-id":
                wanted_id = value
            elif name == b"idempotency-key":
                return None
        principal = holder(self._services.plane, presented)
        if principal is None or length > MAX_SITUATION_BYTES or not principal.may(Role.CALLER):
            return None
        return principal, wanted_id

    async def _answer(
        self, principal: Principal, wanted_id: bytes | None, receive: Receive, send: Send
    ) -> None:
        started, clock = time.monotonic(), time.perf_counter()
        request_id = begin_request(None if wanted_id is None else wanted_id.decode("latin-1"))
        status, media_type = 200, b"application/json"
        try:
            situation = parse_situation(decode(await _body(receive)))
            question = Question(situation, principal, request_id, started, self._services.now_us())
            document = await self._services.decider.decide(question)
        except Exception as error:  # every error becomes its problem, as in the application
            document = problem_of(error)
            status, media_type = document["status"], MEDIA_TYPE.encode()
            if status >= 500:
                log.exception(Event.REQUEST_FAILED, path=_PATH, status=status)
        await _send(send, status, media_type, _encode(document), request_id)
        _requests("POST", _PATH, str(status)).inc()
        _seconds.observe(time.perf_counter() - clock)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body  # the caller has hung up: what came is no JSON
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send(send: Send, status: int, media_type: bytes, body: bytes, request_id: str) -> None:
    headers: Any = [
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode("latin-1")),
    ]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
