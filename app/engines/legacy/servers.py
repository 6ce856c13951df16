"""What does a policy server say that speaks OPA's data API or OpenID AuthZEN 1.0?"""

import hashlib
from collections.abc import Callable
from typing import Any

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, facts, to_document
from app.engines.legacy.http import JsonPeer, PeerError
from app.engines.legacy.port import settled

_IN_SUBJECT = ("actor_id", "actor_role", "t3_tensor", "identity_metrics")

_Said = tuple[Decision, str | None]


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
