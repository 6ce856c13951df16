"""What do the built-in rules say, and which of them said it?"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation
from app.engines.legacy.port import DEFAULT_RULE, complete_facts, settled
from app.policy.conditions import Condition, ConditionError
from app.policy.files import Node, parse_yaml

_ANY = "*"
_CHAIN = 16  # rules in one expression: the grammar allows only so much nesting


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `policies/legacy.yaml`; no roles means every role."""

    name: str
    actions: frozenset[str]
    roles: frozenset[str] | None
    when: str | None
    decision: Decision

    def concerns(self, action: str, role: str) -> bool:
        fits_action = action in self.actions or _ANY in self.actions
        return fits_action and (self.roles is None or role in self.roles)


@dataclass(frozen=True, slots=True)
class _Link:
    """A few rules as one expression, whose value is the place of the first that matches, or -1."""

    condition: Condition
    rules: tuple[Rule, ...]

    def first(self, facts: Mapping[str, Any]) -> Rule | None:
        place = self.condition.evaluate(facts)
        if not isinstance(place, int) or not -1 <= place < len(self.rules):
            raise ConditionError("a condition is neither true nor false")
        return None if place < 0 else self.rules[place]


class RulesEngine:
    """Ordered rules; the first whose action, role and condition fit decides, and nothing is deny.

    A condition that errs fails the engine: skipping it could skip a deny.
    """

    name = "rules"

    def __init__(self, text: str, *, path: str = "legacy.yaml") -> None:
        """Read the rules; raises `PolicyError` with file, line and key."""
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._rules = _read_rules(parse_yaml(text, path))
        self._actions = frozenset().union(*(rule.actions for rule in self._rules))
        self._roles = frozenset().union(*(rule.roles or () for rule in self._rules))
        # Bounded by the policy: what it does not name shares one place.
        self._chains: dict[tuple[str, str], tuple[_Link, ...]] = {}

    async def decide(self, situation: Situation) -> LegacyAnswer:
        return await settled(self.name, self._ask(situation))

    async def close(self) -> None:
        """Nothing is held."""

    async def _ask(self, situation: Situation) -> tuple[Decision, str | None]:
        rule = self._first(situation)
        return (Decision.DENY, DEFAULT_RULE) if rule is None else (rule.decision, rule.name)

    def _first(self, situation: Situation) -> Rule | None:
        facts = complete_facts(situation)
        for link in self._chain(situation.action_type, situation.actor_role):
            rule = link.first(facts)
            if rule is not None:
                return rule
        return None

    def _chain(self, action: str, role: str) -> tuple[_Link, ...]:
        place = (action if action in self._actions else _ANY, role if role in self._roles else _ANY)
        chain = self._chains.get(place)
        if chain is None:
            rules = tuple(rule for rule in self._rules if rule.concerns(*place))
            chain = tuple(
                link for at in range(0, len(rules), _CHAIN) for link in _links(rules[at : at + _CHAIN])
            )
            self._chains[place] = chain
        return chain


def _links(rules: tuple[Rule, ...]) -> tuple[_Link, ...]:
    # The line break ends a comment that a condition may close with.
    steps = [f"({rule.when or 'true'}\n) ? {at} : " for at, rule in enumerate(rules)]
    try:
        return (_Link(Condition.trusted("".join(steps) + "-1"), rules),)
    except ConditionError:
        if len(rules) == 1:
            raise
    half = len(rules) // 2  # too much nesting in one expression: each compiles by itself
    return _links(rules[:half]) + _links(rules[half:])


def _read_rules(root: Node) -> tuple[Rule, ...]:
    top = root.fields(("rules",), required=("rules",))
    rules: list[Rule] = []
    names = {DEFAULT_RULE}
    for node in top["rules"].items():
        rule = _read_rule(node)
        if rule.name in names:
            raise node.entries()["name"].error(f"{rule.name!r} is taken")
        names.add(rule.name)
        rules.append(rule)
    return tuple(rules)


def _read_rule(node: Node) -> Rule:
    found = node.fields(
        ("name", "actions", "roles", "when", "decision"), required=("name", "actions", "decision")
    )
    return Rule(
        name=found["name"].text(),
        actions=frozenset(found["actions"].texts()),
        roles=frozenset(found["roles"].texts()) if "roles" in found else None,
        when=Condition.read(found["when"]).text if "when" in found else None,
        decision=found["decision"].one_of(Decision),
    )
