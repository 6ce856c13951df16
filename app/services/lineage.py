"""What is a version made of, which was it made from, and what changed between the two?"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from app.engines.model.version import ModelVersion, load_versions, prompt_of
from app.errors import NotFound, PolicyError
from app.services.versions import Versions

SITUATION = "⟨ the situation, one line a field ⟩"
_KINDS = {"+": "added", "-": "removed", "@": "place", " ": "kept"}


@dataclass(frozen=True, slots=True)
class Lineage:
    """Reads declarations and prompts as the files are now; a file that changed since is said to have."""

    versions: Versions
    policies_dir: Path

    def of(self, version_id: str) -> dict[str, Any]:
        """The declaration beside the parent's, the chain of parents, the prompt and what changed in it.

        `parents` are nearest first, the last one perhaps unknown here. Raises `NotFound`.
        """
        version = self.versions.declaration(version_id)
        parents = list(self._parents(version))
        parent = parents[0][1] if parents else None
        prompt, problem = self._prompt(version)
        return {
            "parents": [name for name, _ in parents],
            "children": self._children(version_id),
            "declaration": _beside(version, parent),
            "prompt": prompt,
            "prompt_problem": problem,
            "examples": self._examples(version),
            "changes": None if parent is None else self._changes(parent, prompt),
        }

    def waiting(self) -> dict[str, Any]:
        """`ids` that files declare and nobody has registered yet, or the `problem` of a file."""
        try:
            declared = load_versions(self.policies_dir)
        except PolicyError as error:
            return {"ids": [], "problem": str(error)}
        return {"ids": sorted(declared.keys() - self.versions.known.keys()), "problem": None}

    def _parents(self, version: ModelVersion) -> Iterator[tuple[str, ModelVersion | None]]:
        seen, at = {version.id}, version
        while at.parent is not None and at.parent not in seen:
            seen.add(at.parent)
            found = self._declared(at.parent)
            yield at.parent, found
            if found is None:
                return
            at = found

    def _declared(self, version_id: str) -> ModelVersion | None:
        try:
            return self.versions.declaration(version_id)
        except NotFound:
            return None

    def _children(self, version_id: str) -> list[str]:
        known = dict(self.versions.known)  # it grows as versions are registered
        return sorted(name for name, each in known.items() if each.parent == version_id)

    def _prompt(self, version: ModelVersion) -> tuple[str | None, str | None]:
        """The text that surrounds a situation, or why it cannot be shown."""
        try:
            prompt = prompt_of(version, policies_dir=self.policies_dir)
        except PolicyError as error:
            return None, str(error)
        return f"{prompt.prefix}{SITUATION}{prompt.suffix}", None

    def _examples(self, version: ModelVersion) -> int:
        """How many few-shot examples the file holds that the prompt shows."""
        if version.examples is None:
            return 0
        try:
            text = (self.policies_dir / version.examples).read_text(encoding="utf-8")
        except OSError:
            return 0
        return sum(bool(line.strip()) for line in text.split("\n"))

    def _changes(self, parent: ModelVersion, prompt: str | None) -> list[dict[str, str]] | None:
        """Lines from the parent's prompt to this one, none where they are the same; None if one is unreadable."""
        before, _ = self._prompt(parent)
        if before is None or prompt is None:
            return None
        lines = list(difflib.unified_diff(before.split("\n"), prompt.split("\n"), lineterm="", n=3))
        # The two lines of the head name files that do not exist, and `@@` lines only say where a piece begins.
        return [{"kind": _KINDS[line[0]], "text": line[1:].strip("@")} for line in lines[2:]]


def _beside(version: ModelVersion, parent: ModelVersion | None) -> list[dict[str, Any]]:
    """Every key that either declares, such as `decoding.n_ctx`, and whether the two say the same of it."""
    own = dict(_flat(msgspec.to_builtins(version)))
    theirs = own if parent is None else dict(_flat(msgspec.to_builtins(parent)))
    return [
        {
            "key": key,
            "value": own.get(key),
            "before": theirs.get(key),
            "differs": own.get(key) != theirs.get(key),
        }
        for key in dict.fromkeys([*own, *theirs])
        if key not in ("id", "origin", "parent")
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _flat(member, f"{path}.{key}".lstrip("."))
    elif value is not None:
        yield path, value
