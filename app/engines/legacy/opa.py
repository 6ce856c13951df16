"""What does an Open Policy Agent say?"""

import hashlib

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, facts
from app.engines.legacy.http import JsonPeer, PeerError
from app.engines.legacy.port import settled


class OpaEngine:
    """OPA's data API: `POST /v1/data/<path>` with the facts as `input`.

    `result` is a decision's name, or `{decision, rule}`, or a boolean (allow or deny). A rule that is
    undefined answers 200 without a result: a failure. The hash is of the address alone; what policy
    stands there cannot be seen from here.
    """

    name = "opa"

    def __init__(self, url: str, *, deadline_s: float) -> None:
        self.sha256 = hashlib.sha256(f"opa:{url}".encode()).hexdigest()
        self._peer = JsonPeer(url, deadline_s=deadline_s)

    async def decide(self, situation: Situation) -> LegacyAnswer:
        return await settled(self.name, self._ask(situation))

    async def close(self) -> None:
        await self._peer.close()

    async def _ask(self, situation: Situation) -> tuple[Decision, str | None]:
        return _read(await self._peer.ask({"input": facts(situation)}))


def _read(answer: object) -> tuple[Decision, str | None]:
    if not isinstance(answer, dict) or "result" not in answer:
        raise PeerError("the rule is undefined")
    result, rule = answer["result"], None
    if isinstance(result, dict):
        named = result.get("rule")
        rule = named if isinstance(named, str) else None
        result = result.get("decision")
    if isinstance(result, bool):
        return (Decision.ALLOW if result else Decision.DENY), rule
    if result not in list(Decision):
        raise PeerError("the result is not a decision")
    return Decision(result), rule
