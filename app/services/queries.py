"""What does Prometheus say to the queries that guardrails read?"""

import asyncio
import math
import ssl
from collections.abc import Iterable

import httpx
import msgspec

from app.domain.assessment import Answer

DEADLINE_S = 5.0  # for all queries of a pass together
_AT_ONCE = 8


class Queries:
    """Asks the Prometheus at `url`, if there is one; `transport` takes the network's place in tests."""

    def __init__(
        self,
        url: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._url = url
        self._transport = transport
        self._deadline_s = deadline_s
        self._trust: ssl.SSLContext | None = None

    async def ask(self, queries: Iterable[str]) -> dict[str, Answer]:
        """An answer to each query, by its text; what goes wrong is an answer too."""
        wanted = sorted(set(queries))
        if not wanted:
            return {}
        if self._url is None:
            return dict.fromkeys(wanted, Answer(None, "PHASEGATE_PROMETHEUS_URL is not set"))
        if self._trust is None:
            self._trust = await asyncio.to_thread(ssl.create_default_context)  # reading it takes long
        limits = httpx.Limits(max_connections=_AT_ONCE)
        ends_at = asyncio.get_running_loop().time() + self._deadline_s
        async with httpx.AsyncClient(
            verify=self._trust,
            transport=self._transport,
            limits=limits,
            timeout=None,  # noqa: S113 -- one deadline bounds them all
            trust_env=False,
        ) as client:
            said = await asyncio.gather(*(self._one(client, query, ends_at) for query in wanted))
        return dict(zip(wanted, said, strict=True))

    async def _one(self, client: httpx.AsyncClient, query: str, ends_at: float) -> Answer:
        try:
            async with asyncio.timeout_at(ends_at):
                response = await client.get(f"{self._url}/api/v1/query", params={"query": query})
        except TimeoutError:
            return Answer(None, f"no answer within {self._deadline_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answer(None, f"Prometheus cannot be asked: {type(error).__name__}")
        if response.status_code != httpx.codes.OK:
            return Answer(None, f"Prometheus answers {response.status_code}")
        return _read(response.content)


def _read(content: bytes) -> Answer:
    """A scalar or a vector of one element, and a finite number: each is a pair of a time and a text."""
    try:
        data = msgspec.json.decode(content)["data"]
        found = data["result"]
        points = [found] if data["resultType"] == "scalar" else [each["value"] for each in found]
        if len(points) != 1:
            return Answer(None, f"the answer has {len(points)} elements, not one")
        value = float(points[0][1])
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError):
        return Answer(None, "the answer is no number")
    return Answer(value) if math.isfinite(value) else Answer(None, f"the answer is {value}")
