"""Does a condition that an operator wrote in CEL hold for these facts?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cel

from app.policy.files import Node, suggestion

# What `app.domain.situation.facts` may hold, and the parts of its `trust`.
FACTS = (
    "action_type",
    "actor_role",
    "actor_id",
    "trust",
    "resource",
    "team_context",
    "timestamp",
    "recent_history",
    "identity_metrics",
    "details",
    "extra",
)
TRUST_PARTS = ("competence", "reliability", "integrity", "mean", "lowest")
_FUNCTIONS = (
    *("contains", "startsWith", "endsWith", "matches", "size"),
    *("int", "uint", "double", "string", "bytes", "timestamp", "duration"),
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
    *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
)
_LITERAL = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*(\w+)\s*,")
_TRUST = re.compile(r"(?<![\w.])trust\s*\.\s*(\w+)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_UNUSUAL_LITERAL = re.compile(r"[rR]['\"]|\"{3}|'{3}")  # raw and triple-quoted texts
_FLAT = "trust__"
_MAX_LENGTH = 4096


class ConditionError(ValueError):
    """A condition cannot be compiled, or its evaluation failed."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition; `names` are the facts that it reads, `parts` the parts of the trust tensor."""

    text: str
    names: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]  # variable of the program, part
    program: cel.Program

    @classmethod
    def compile(cls, text: str) -> "Condition":
        """Check a condition's grammar and every name in it; raises `ConditionError`."""
        _check_names(text, _compiled(text))
        return cls.trusted(text)

    @classmethod
    def read(cls, node: Node) -> "Condition":
        """The condition that stands in a file; raises `PolicyError` for its place."""
        try:
            return cls.compile(node.text())
        except ConditionError as error:
            raise node.error(str(error)) from error

    @classmethod
    def trusted(cls, text: str) -> "Condition":
        """Compile what was put together from conditions that have been checked one by one."""
        program = _compiled(_flattened(text))
        read = program.variables()
        names = tuple(name for name in read if name in FACTS)
        parts = tuple((_FLAT + part, part) for part in TRUST_PARTS if _FLAT + part in read)
        return cls(text, names, parts, program)

    def evaluate(self, facts: Mapping[str, Any]) -> object:
        """The value for these facts; raises `ConditionError` where it has none."""
        named = {name: facts[name] for name in self.names if name in facts}
        if self.parts:
            trust = facts["trust"]
            for variable, part in self.parts:
                named[variable] = trust[part]
        try:
            return self.program.execute(named)
        except Exception as error:
            raise ConditionError(_first_line(error)) from error

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """A rollout's meaning: an error, a missing field or another type than boolean never matches."""
        try:
            return self.evaluate(facts) is True
        except ConditionError:
            return False


def _compiled(text: str) -> cel.Program:
    try:
        return cel.compile(text)
    except ValueError as error:
        raise ConditionError(_first_line(error)) from error


def _flattened(text: str) -> str:
    """`trust.mean` as a variable of its own: handing the evaluator a mapping costs more than it does."""
    if _UNUSUAL_LITERAL.search(text):
        return text
    pieces: list[str] = []
    end = 0
    for literal in _LITERAL.finditer(text):
        pieces += [_TRUST.sub(_FLAT + r"\1", text[end : literal.start()]), literal[0]]
        end = literal.end()
    return "".join((*pieces, _TRUST.sub(_FLAT + r"\1", text[end:])))


def _check_names(text: str, program: cel.Program) -> None:
    if len(text) > _MAX_LENGTH:
        raise ConditionError(f"is longer than {_MAX_LENGTH} characters")
    bare = _LITERAL.sub("''", text)
    bound = set(_BOUND.findall(bare))
    for name in program.variables():
        if name not in FACTS and name not in bound:
            raise ConditionError(f"unknown name {name!r}{suggestion(name, FACTS)}")
    for name in program.functions():
        if _NAME.fullmatch(name) and name not in _FUNCTIONS and not name.startswith("_"):
            raise ConditionError(f"unknown function {name!r}{suggestion(name, _FUNCTIONS)}")
    for part in _TRUST.findall(bare):
        if part not in TRUST_PARTS:
            raise ConditionError(f"unknown name 'trust.{part}'{suggestion(part, TRUST_PARTS)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
