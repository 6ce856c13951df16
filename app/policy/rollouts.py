"""Which rollouts does the operator's file describe, and which one does a situation belong to?"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from app.domain.limits import GateLimits, GuardrailLimits, Query, Requirement
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy
from app.domain.situation import Situation, facts
from app.errors import NotFound
from app.policy.conditions import Condition
from app.policy.entry import Defaults, read_defaults, read_entry
from app.policy.files import Node, parse_yaml, read_text

_NOT_SAID: tuple[Any, ...] = (None, (), {})
_Candidates = tuple[tuple[RolloutPolicy, Condition | None], ...]


@dataclass(frozen=True, slots=True)
class RolloutBook:
    """The rollouts in the order of the file. Build it with `book_of` or `parse_rollouts`."""

    policies: tuple[RolloutPolicy, ...]
    _by_name: Mapping[str, RolloutPolicy]
    _by_action: Mapping[str, _Candidates]
    _others: _Candidates

    def match(self, situation: Situation) -> RolloutPolicy:
        """The first rollout whose actions and condition fit; the unconditional `*` catches the rest."""
        known = None
        for policy, condition in self._by_action.get(situation.action_type, self._others):
            if condition is None:
                return policy
            known = facts(situation) if known is None else known
            if condition.holds(known):
                return policy
        raise AssertionError("a book always ends in an unconditional rollout for '*'")

    def get(self, name: str) -> RolloutPolicy:
        """The rollout of that name; raises `NotFound`."""
        policy = self._by_name.get(name)
        if policy is None:
            raise NotFound("rollout", name)
        return policy

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)


def load_rollouts(path: Path) -> RolloutBook:
    """Read the file; raises `PolicyError` with file, line and key."""
    return parse_rollouts(read_text(path), path=str(path))


def parse_rollouts(text: str, *, path: str = "rollouts.yaml") -> RolloutBook:
    """The book that a file's text describes; raises `PolicyError` with file, line and key."""
    root = parse_yaml(text, path)
    top = root.fields(("defaults", "rollouts"), required=("rollouts",))
    defaults = read_defaults(top["defaults"]) if "defaults" in top else Defaults()
    entries = top["rollouts"].entries()
    policies = tuple(read_entry(name, entry, defaults=defaults) for name, entry in entries.items())
    return _checked(policies, top["rollouts"])


def book_of(policies: Iterable[RolloutPolicy]) -> RolloutBook:
    """A book of rollouts that did not come from one file; checked as a whole like one that did."""
    return parse_rollouts(render(policies))


def render(policies: Iterable[RolloutPolicy]) -> str:
    """A file's text, with every default written out, that reads back as the same rollouts."""
    return json.dumps({"rollouts": {policy.name: _document(policy) for policy in policies}}, indent=1)


def _checked(policies: tuple[RolloutPolicy, ...], node: Node) -> RolloutBook:
    conditions = [
        None if policy.when is None else Condition.read(node.entries()[policy.name].entries()["when"])
        for policy in policies
    ]
    by_name = {policy.name: policy for policy in policies}
    _check_reach(policies, node)
    _check_requirements(by_name, node)
    pairs = tuple(zip(policies, conditions, strict=True))
    actions = {action for policy in policies for action in policy.actions}
    by_action = {action: _candidates(pairs, action) for action in actions if action != "*"}
    return RolloutBook(policies, by_name, by_action, _candidates(pairs, "*"))


def _candidates(pairs: _Candidates, action: str) -> _Candidates:
    return tuple(
        (policy, when) for policy, when in pairs if action in policy.actions or "*" in policy.actions
    )


def _check_reach(policies: tuple[RolloutPolicy, ...], node: Node) -> None:
    taken: dict[str, str] = {}  # action to the first unconditional rollout that takes all of it
    for policy in policies:
        by = [taken.get(action) or taken.get("*") for action in policy.actions]
        if all(by):
            raise node.entries()[policy.name].error(f"is unreachable: {by[0]!r} takes its actions before it")
        if policy.when is None:
            taken |= {action: policy.name for action in policy.actions if action not in taken}
    if "*" not in taken:
        raise node.error(
            "needs a last rollout with actions ['*'] and no condition, so that nothing is unmatched"
        )


def _check_requirements(by_name: Mapping[str, RolloutPolicy], node: Node) -> None:
    for policy in by_name.values():
        for requirement in policy.requires:
            place = node.entries()[policy.name].entries()["requires"].entries()[requirement.rollout]
            required = by_name.get(requirement.rollout)
            if required is None:
                raise place.error(f"there is no rollout {requirement.rollout!r}")
            if required.ceiling is not Phase.ENFORCED:
                raise place.error(f"can never hold: the ceiling of {required.name!r} is {required.ceiling}")
            if _leads_to(required, policy.name, by_name):
                raise place.error(f"is a cycle: {required.name!r} requires {policy.name!r}")


def _leads_to(start: RolloutPolicy, goal: str, by_name: Mapping[str, RolloutPolicy]) -> bool:
    seen: set[str] = set()
    waiting = [start.name]
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen and name in by_name:
            seen.add(name)
            waiting.extend(requirement.rollout for requirement in by_name[name].requires)
    return False


def _document(policy: RolloutPolicy) -> dict[str, Any]:
    document = {field.name: getattr(policy, field.name) for field in fields(policy) if field.name != "name"}
    document["gates"] = {phase.value: _given(limits) for phase, limits in policy.gates.items()}
    queries = {query.name: _given(query) for query in policy.guardrails.queries}
    document["guardrails"] = _given(policy.guardrails) | ({"queries": queries} if queries else {})
    document["exposure"] = [round(share * 100, 10) for share in policy.exposure]
    document["requires"] = {item.rollout: _given(item) for item in policy.requires}
    return {name: value for name, value in document.items() if value not in (None, {})}


def _given(limits: GateLimits | GuardrailLimits | Requirement | Query) -> dict[str, Any]:
    """What a part says; the name that it goes by stands before it."""
    told = asdict(limits)
    return {
        key: value for key, value in told.items() if value not in _NOT_SAID and key not in ("rollout", "name")
    }
