"""What do Cedar policies, evaluated in this process, say?"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import cedarpy

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation
from app.engines.legacy.port import DEFAULT_RULE, complete_facts, settled
from app.errors import PolicyError

_MAX_DEPTH = 32
_LARGEST = 2**63 - 1
_DECIMAL_LIMIT = 1e14


class CedarEngine:
    """Cedar permits or forbids; asked twice, it gives three decisions.

    First with `context.attested` false: permitted is allow. Then with true: permitted is
    require_attestation. Cedar skips a policy that errs, a forbid too, so any error is a failure.
    """

    name = "cedar"

    def __init__(self, text: str, *, path: str = "legacy.cedar") -> None:
        """Read the policies; raises `PolicyError`."""
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        try:
            self._policies = cedarpy.PolicySet.from_str(text)
        except ValueError as error:
            raise PolicyError(path, None, "", str(error).replace("\n", " ")) from error

    async def decide(self, situation: Situation) -> LegacyAnswer:
        return await settled(self.name, self._ask(situation))

    async def close(self) -> None:
        """Nothing is held."""

    async def _ask(self, situation: Situation) -> tuple[Decision, str | None]:
        actor = {"type": "Actor", "id": situation.actor_id}
        role = {"type": "Role", "id": situation.actor_role}
        entities = cedarpy.Entities.from_json_str(
            json.dumps([{"uid": actor, "attrs": {}, "parents": [role]}])
        )
        request = {
            "principal": actor,
            "action": {"type": "Action", "id": situation.action_type},
            "resource": {"type": "Resource", "id": situation.resource or ""},
        }
        context = _context(situation)
        rule = DEFAULT_RULE
        for attested, decision in ((False, Decision.ALLOW), (True, Decision.REQUIRE_ATTESTATION)):
            asked = {**request, "context": {**context, "attested": attested}}
            allowed, rule = _judged(cedarpy.is_authorized(asked, self._policies, entities))
            if allowed:
                return decision, rule
        return Decision.DENY, rule


def _judged(result: cedarpy.AuthzResult) -> tuple[bool, str]:
    errors = result.diagnostics.errors
    if errors or result.decision is cedarpy.Decision.NoDecision:
        raise ValueError("; ".join(errors) or "no decision")
    names = result.diagnostics.id_annotations_by_reason
    rules = sorted(names.get(reason) or reason for reason in result.diagnostics.reasons)
    return result.decision is cedarpy.Decision.Allow, ", ".join(rules) or DEFAULT_RULE


def _context(situation: Situation) -> dict[str, Any]:
    context = {name: _value(value) for name, value in complete_facts(situation).items()}
    # Rounded down: 0.599 is not 60. The small term undoes 0.29 * 100 == 28.999999999999996.
    percent = {part: math.floor(share * 100 + 1e-9) for part, share in situation.trust.figures().items()}
    return {**context, "trust": percent}


def _value(value: object, depth: int = 0) -> Any:
    """What Cedar can hold; raises ValueError where it cannot, since leaving out could unlock a forbid."""
    if depth > _MAX_DEPTH:
        raise ValueError("the situation is nested too deeply")
    match value:
        case bool() | str():
            return value
        case int() if abs(value) <= _LARGEST:
            return value
        case float() if abs(value) < _DECIMAL_LIMIT:
            return {"__extn": {"fn": "decimal", "arg": f"{value:.4f}"}}
        case list() | tuple():
            return [_value(item, depth + 1) for item in value if item is not None]
        case Mapping():
            return _record(value, depth)
    raise ValueError(f"Cedar cannot hold the value of type {type(value).__name__}")


def _record(value: Mapping[str, Any], depth: int) -> dict[str, Any]:
    forged = [key for key in value if not isinstance(key, str) or key.startswith("__")]
    if forged:
        raise ValueError("a member whose name starts with '__' could forge an entity")
    return {key: _value(item, depth + 1) for key, item in value.items() if item is not None}
