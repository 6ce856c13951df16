"""How is another server asked, within one deadline and with nothing taken on trust?"""

import asyncio
import json
from urllib.parse import urlsplit

import httpx

from app.errors import SettingsError

SETTING = "PHASEGATE_LEGACY"
_MAX_ANSWER_BYTES = 256 * 1024
_CONNECT_RETRIES = 2


class PeerError(Exception):
    """The peer answered, but not with an answer."""


class JsonPeer:
    """One address that takes JSON by POST. Only what never left this machine is sent again."""

    def __init__(self, url: str, *, deadline_s: float) -> None:
        """Raises `SettingsError` where `url` is not an address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(SETTING, f"{url!r} is not an http or https address")
        self._url, self._deadline_s = url, deadline_s
        # Proxies and .netrc of the environment are not for policy questions.
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(retries=_CONNECT_RETRIES),
            timeout=deadline_s,
            trust_env=False,
            follow_redirects=False,
        )

    async def ask(self, question: object) -> object:
        """The decoded answer. Raises `PeerError`, `TimeoutError`, and what httpx and json raise."""
        body = json.dumps(question, allow_nan=False).encode()
        async with asyncio.timeout(self._deadline_s):
            request = self._client.build_request(
                "POST", self._url, content=body, headers={"Content-Type": "application/json"}
            )
            response = await self._client.send(request, stream=True)
            try:
                return json.loads(await _read(response))
            finally:
                await response.aclose()

    async def close(self) -> None:
        await self._client.aclose()


async def _read(response: httpx.Response) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise PeerError(f"answered {response.status_code}")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise PeerError("the answer is too large")
    return bytes(body)
