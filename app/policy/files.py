"""Which file, line and key does a mistake in an operator's file stand at?"""

import difflib
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from app.errors import PolicyError

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"

Closed = TypeVar("Closed", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a file with its place. `key` is dotted from the root; `line` counts from 1."""

    path: str
    line: int
    key: str
    value: "dict[str, Node] | list[Node] | str | bool | int | float | None"

    def error(self, message: str) -> PolicyError:
        return PolicyError(self.path, self.line, self.key, message)

    def entries(self) -> dict[str, "Node"]:
        """The members of a mapping, whatever their names."""
        if isinstance(self.value, dict):
            return self.value
        raise self.error("must be a mapping of keys to values")

    def fields(self, known: Collection[str], *, required: Iterable[str] = ()) -> dict[str, "Node"]:
        """The members of a mapping with a closed set of names."""
        entries = self.entries()
        for name, node in entries.items():
            if name not in known:
                raise node.error(f"unknown key{suggestion(name, known)}")
        for name in required:
            if name not in entries:
                raise PolicyError(self.path, self.line, _join(self.key, name), "is required")
        return entries

    def items(self) -> list["Node"]:
        """The items of a list that is not empty."""
        if isinstance(self.value, list) and self.value:
            return self.value
        raise self.error("must be a list with at least one item")

    def plain(self) -> Any:
        """The value without the places in it."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def text(self) -> str:
        if isinstance(self.value, str) and self.value.strip():
            return self.value
        raise self.error("must be a non-empty text")

    def texts(self) -> tuple[str, ...]:
        """The items of a list of distinct texts."""
        seen: list[str] = []
        for item in self.items():
            if item.text() in seen:
                raise item.error(f"{item.text()!r} stands here twice")
            seen.append(item.text())
        return tuple(seen)

    def one_of(self, kind: type[Closed]) -> Closed:
        known = [member.value for member in kind]
        if isinstance(self.value, str) and self.value in known:
            return kind(self.value)
        raise self.error(f"must be one of {', '.join(known)}{suggestion(str(self.value), known)}")

    def yes(self) -> bool:
        """`true` or `false`."""
        if not isinstance(self.value, bool):
            raise self.error("must be true or false")
        return self.value

    def number(self, *, at_least: float, at_most: float) -> float:
        """A number within closed bounds."""
        value = self._number()
        if at_least <= value <= at_most:
            return value
        raise self.error(f"must be from {at_least:g} to {at_most:g}, not {value:g}")

    def inside(self, low: float, high: float) -> float:
        """A number strictly between two bounds."""
        value = self._number()
        if low < value < high:
            return value
        raise self.error(f"must be above {low:g} and below {high:g}, not {value:g}")

    def whole(self) -> int:
        value = self.value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self.error("must be a whole number from 0")

    def _number(self) -> float:
        value = self.value
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise self.error("must be a number")


def read_text(path: Path) -> str:
    """The text of a policy file; raises `PolicyError` where it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return _bounded(raw, str(path)).decode()
    except OSError as error:
        raise PolicyError(str(path), None, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), None, "", "is not UTF-8") from error


def parse_yaml(text: str, path: str) -> Node:
    """Read YAML into nodes. Plain data only: no anchors, aliases, custom tags or repeated keys."""
    _bounded(text.encode("utf-8", "surrogatepass"), path)
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise PolicyError(path, line, "", f"is not YAML: {error.problem or error.context}") from error
    except (YAMLError, RecursionError) as error:
        raise PolicyError(path, None, "", f"is not YAML: {error}") from error
    if root is None:
        raise PolicyError(path, None, "", "is empty")
    return _node(root, path=path, key="", line=root.start_mark.line + 1, depth=0)


def suggestion(name: str, known: Collection[str]) -> str:
    """`; did you mean …?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _node(raw: object, *, path: str, key: str, line: int, depth: int) -> Node:
    if depth > _MAX_DEPTH:
        raise PolicyError(path, line, key, "is nested too deeply")
    if getattr(raw, "anchor", None):
        raise PolicyError(path, line, key, "anchors and aliases are not allowed: write the value out")
    match raw:
        case MappingNode():
            return Node(path, line, key, _mapping(raw, path=path, key=key, depth=depth))
        case SequenceNode():
            items = [
                _node(item, path=path, key=f"{key}[{at}]", line=item.start_mark.line + 1, depth=depth + 1)
                for at, item in enumerate(raw.value)
            ]
            return Node(path, line, key, items)
        case ScalarNode():
            return _scalar(raw, path=path, key=key, line=line)
    raise PolicyError(path, line, key, "is not plain data")


def _mapping(raw: MappingNode, *, path: str, key: str, depth: int) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for name_node, value in raw.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, ScalarNode):
            raise PolicyError(path, line, key, "a key must be a text")
        name = str(name_node.value)
        if name in found:
            raise PolicyError(path, line, _join(key, name), "stands here twice")
        found[name] = _node(value, path=path, key=_join(key, name), line=line, depth=depth + 1)
    return found


def _scalar(raw: ScalarNode, *, path: str, key: str, line: int) -> Node:
    kind, text = str(raw.tag).removeprefix(_TAG), str(raw.value)
    try:
        match kind:
            case "str":
                return Node(path, line, key, text)
            case "bool":
                return Node(path, line, key, text.lower() == "true")
            case "int":
                return Node(path, line, key, int(text))
            case "float":
                return Node(path, line, key, float(text))
            case "null":
                return Node(path, line, key, None)
    except ValueError:
        pass
    raise PolicyError(path, line, key, f"{text!r} is not a plain text, number, true, false or null")


def _bounded(raw: bytes, path: str) -> bytes:
    if len(raw) > MAX_BYTES:
        raise PolicyError(path, None, "", f"is larger than {MAX_BYTES // 1024} KiB")
    return raw


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
