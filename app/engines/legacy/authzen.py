"""What does a policy decision point that speaks OpenID AuthZEN 1.0 say?"""

import hashlib
from typing import Any

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, to_document
from app.engines.legacy.http import JsonPeer, PeerError
from app.engines.legacy.port import settled

_IN_SUBJECT = ("actor_id", "actor_role", "t3_tensor", "identity_metrics")


class AuthzenEngine:
    """The evaluation endpoint: true is allow; false is deny, unless `context.outcome` says
    require_attestation. The hash is of the address alone.
    """

    name = "authzen"

    def __init__(self, url: str, *, deadline_s: float) -> None:
        self.sha256 = hashlib.sha256(f"authzen:{url}".encode()).hexdigest()
        self._peer = JsonPeer(url, deadline_s=deadline_s)

    async def decide(self, situation: Situation) -> LegacyAnswer:
        return await settled(self.name, self._ask(situation))

    async def close(self) -> None:
        await self._peer.close()

    async def _ask(self, situation: Situation) -> tuple[Decision, str | None]:
        return _read(await self._peer.ask(_question(situation)))


def _question(situation: Situation) -> dict[str, Any]:
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


def _read(answer: object) -> tuple[Decision, str | None]:
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
