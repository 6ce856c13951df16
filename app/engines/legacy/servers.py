"""What does a policy server say that speaks OPA's data API or OpenID AuthZEN 1.0?

It is asked within one deadline, and nothing of its answer is taken on trust.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, facts, to_document
from app.engines.legacy.port import settled
from app.errors import SettingsError

SETTING = "PHASEGATE_LEGACY"
_MAX_ANSWER_BYTES = 256 * 1024
_CONNECT_RETRIES = 2
_IN_SUBJECT = ("actor_id", "actor_role", "t3_tensor", "identity_metrics")

_Said = tuple[Decision, str | None]


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


class ServerEngine:
    """The hash is of the address alone: what policy stands there cannot be seen from here."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        deadline_s: float,
        question: Callable[[Situation], object],
        read: Callable[[object], _Said],
    ) -> None:
        """Raises `SettingsError` where `url` is not an address."""
        self.name = name
        self.sha256 = hashlib.sha256(f"{name}:{url}".encode()).hexdigest()
        self._peer = JsonPeer(url, deadline_s=deadline_s)
        self._question, self._read = question, read

    async def decide(self, situation: Situation) -> LegacyAnswer:
        return await settled(self.name, self._ask(situation))

    async def close(self) -> None:
        await self._peer.close()

    async def _ask(self, situation: Situation) -> _Said:
        return self._read(await self._peer.ask(self._question(situation)))


def opa_engine(url: str, *, deadline_s: float) -> ServerEngine:
    """OPA's data API: `POST /v1/data/<path>` with the facts as `input`.

    `result` is a decision's name, or `{decision, rule}`, or a boolean (allow or deny). A rule that is
    undefined answers 200 without a result: a failure.
    """
    return ServerEngine(
        "opa", url, deadline_s=deadline_s, question=lambda asked: {"input": facts(asked)}, read=_opa_answer
    )


def authzen_engine(url: str, *, deadline_s: float) -> ServerEngine:
    """AuthZEN's evaluation endpoint: true is allow; false is deny, unless `context.outcome` says
    require_attestation.
    """
    return ServerEngine(
        "authzen", url, deadline_s=deadline_s, question=_authzen_question, read=_authzen_answer
    )


def _opa_answer(answer: object) -> _Said:
    if not isinstance(answer, dict) or "result" not in answer:
        raise PeerError("the rule is undefined")
    result, rule = answer["result"], None
    if isinstance(result, dict):
        rule, result = result.get("rule"), result.get("decision")
    if isinstance(result, bool):
        result = Decision.ALLOW if result else Decision.DENY
    if result not in list(Decision):
        raise PeerError("the result is not a decision")
    return Decision(result), rule if isinstance(rule, str) else None


def _authzen_question(situation: Situation) -> dict[str, Any]:
    document = to_document(situation)
    properties = {"role": situation.actor_role, "t3_tensor": document["t3_tensor"]}
    if situation.identity_metrics is not None:
        properties["identity_metrics"] = document["identity_metrics"]
    left = {
        key: value for key, value in document.items() if key not in (*_IN_SUBJECT, "action_type", "resource")
    }
    return {
        "subject": {"type": "user", "id": situation.actor_id, "properties": properties},
        "action": {"name": situation.action_type},
        "resource": {"type": "resource", "id": situation.resource or ""},
        "context": left,
    }


def _authzen_answer(answer: object) -> _Said:
    if not isinstance(answer, dict) or not isinstance(answer.get("decision"), bool):
        raise PeerError("the answer has no boolean decision")
    context = answer.get("context")
    known = context if isinstance(context, dict) else {}
    if "error" in known:
        raise PeerError("the answer carries an error")
    decision = Decision.ALLOW if answer["decision"] else Decision.DENY
    if not answer["decision"] and known.get("outcome") == Decision.REQUIRE_ATTESTATION:
        decision = Decision.REQUIRE_ATTESTATION
    rule = known.get("rule")
    return decision, rule if isinstance(rule, str) else None
