"""How does an asynchronous program ask for decisions and manage rollouts?"""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
import msgspec

from app.client.management import Management
from app.client.wire import ClientError, Decision, Document, decision_from, denied, problem_error

DEFAULT_URL = "http://127.0.0.1:8000"

# Nothing was decided: no connection, or the server says that it did not take the request.
_RETRIED_STATUS = frozenset({429, 503})
_RETRIED_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout)

# A server that is started again is back by then; one that is not there at all is worth no longer wait.
_CONNECT_WITHIN_S = 3.0

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class AsyncClient(Management[Coroutine[Any, Any, Document], Coroutine[Any, Any, list[Document]]]):
    """One server and one key.

    `deadline_s` is the total for a decision, retries and pauses included. A decision never raises:
    whatever fails, it denies with `source="client_fallback"`. Management calls raise `ClientError`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        deadline_s: float = 2.0,
        management_deadline_s: float = 30.0,
    ) -> None:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=None, trust_env=False)  # noqa: S113
        self._deadline_s = deadline_s
        self._management_deadline_s = management_deadline_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def decide(
        self,
        situation: Mapping[str, Any] | None = None,
        /,
        *,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Decision:
        """Ask for a decision on a situation, given whole or as keyword arguments, or both."""
        body = {**(situation or {}), **fields}
        try:
            document = await self._call(
                "POST",
                "/v1/decisions",
                body,
                deadline_s=self._deadline_s if deadline_s is None else deadline_s,
                idempotency_key=idempotency_key or uuid4().hex,
            )
        except ClientError as error:
            return denied(str(error))
        return decision_from(document)

    async def decide_batch(
        self, situations: Sequence[Mapping[str, Any]], /, *, deadline_s: float | None = None
    ) -> list[Decision]:
        """One decision a situation, in order; what failed denies in its place."""
        try:
            document = await self._call(
                "POST",
                "/v1/decisions:batch",
                {"situations": list(situations)},
                deadline_s=self._deadline_s if deadline_s is None else deadline_s,
                idempotency_key=uuid4().hex,
            )
        except ClientError as error:
            return [denied(str(error)) for _ in situations]
        answers = document.get("decisions") if isinstance(document, dict) else None
        if not isinstance(answers, list) or len(answers) != len(situations):
            return [denied("the answer has not one decision a situation") for _ in situations]
        return [decision_from(answer) for answer in answers]

    async def wait(self, decision_id: str, wait_s: float, /) -> Decision:
        """The decision in force, after up to `wait_s` for the verdict of an open review."""
        try:
            document = await self._call(
                "GET",
                f"/v1/decisions/{decision_id}",
                params={"wait_s": wait_s},
                deadline_s=wait_s + self._deadline_s,
            )
        except ClientError as error:
            return denied(str(error))
        return decision_from(document)

    async def call(
        self, method: str, path: str, /, body: Document | None = None, params: Document | None = None
    ) -> Document:
        document = await self._call(method, path, body, params=params, deadline_s=self._management_deadline_s)
        if not isinstance(document, dict):
            raise ClientError("the answer is not a JSON object")
        return document

    async def list_of(self, member: str, path: str, /, params: Document | None = None) -> list[Document]:
        return list((await self.call("GET", path, params=params))[member])

    async def _call(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        deadline_s: float,
        params: Document | None = None,
        idempotency_key: str | None = None,
    ) -> object:
        """The JSON of a 2xx answer. Raises `ClientError` for everything else, in time."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        try:
            content = None if method != "POST" else msgspec.json.encode(body or {})
            request = self._http.build_request(method, path, content=content, params=params, headers=headers)
            async with asyncio.timeout(deadline_s):
                response = await self._answered(request, time.monotonic() + deadline_s)
        except TimeoutError:
            raise ClientError(f"no answer within {deadline_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{self._http.base_url}: {error or type(error).__name__}") from None
        except (TypeError, ValueError) as error:
            raise ClientError(f"cannot be sent as JSON: {error}") from None
        if not response.is_success:
            raise problem_error(response.status_code, response.content)
        try:
            return msgspec.json.decode(response.content)
        except msgspec.MsgspecError:
            raise ClientError("the answer is not JSON", status=response.status_code) from None

    async def _answered(self, request: httpx.Request, until: float) -> httpx.Response:
        """Send until an answer stands; gives up early where the next pause would outlast the deadline."""
        attempt = 0
        connect_until = min(until, time.monotonic() + _CONNECT_WITHIN_S)
        while True:
            try:
                response = await self._http.send(request)
            except _RETRIED_ERRORS:
                pause = pause_s(attempt)
                if time.monotonic() + pause >= connect_until:
                    raise
            else:
                if response.status_code not in _RETRIED_STATUS:
                    return response
                pause = pause_s(attempt, response.headers.get("Retry-After"))
                if time.monotonic() + pause >= until:
                    return response
            attempt += 1
            await asyncio.sleep(pause)


def pause_s(attempt: int, retry_after: str | None = None) -> float:
    """Full jitter over a doubling span, `attempt` from 0; at least what the server asked for."""
    span = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
    asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
    return asked + random.uniform(0, span)  # noqa: S311 -- spreads load, guards nothing
