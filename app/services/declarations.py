"""What is a version made of, and is it the same as another?"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from app.engines.model.version import ModelVersion

_ORIGIN = "the registry"


def document_of(version: ModelVersion, *, policies_dir: Path) -> dict[str, Any]:
    """All that makes the version what it is, JSON-ready: its declaration, and the hashes of its files."""
    document: dict[str, Any] = msgspec.to_builtins(version)
    del document["origin"]
    names = (part.file for part in (version.adapter, version.head) if part is not None)
    return {**document, "files": {name: sha256_of(policies_dir / name) for name in names}}


def version_of(document: Mapping[str, Any]) -> ModelVersion:
    """The version that a document of the registry declares. Raises `msgspec.ValidationError`."""
    declared = {key: value for key, value in document.items() if key != "files"}
    return msgspec.convert({**declared, "origin": _ORIGIN}, ModelVersion)


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compared as read, so that a member that this release added makes no difference."""
    if one["files"] != other["files"]:
        return False
    try:
        return version_of(one) == version_of(other)
    except msgspec.ValidationError:
        return False


def taken(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why the document `other` cannot have the id that `one` has, for people: with what differs."""
    said = f"{other['id']} is registered with other content (see {_differing(one, other)})"
    return f"{said}: versions never change, so restore that and give the changed one a new id"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    try:
        before, after = (msgspec.to_builtins(version_of(document)) for document in (one, other))
    except msgspec.ValidationError:
        return "its file"
    names = {name for name in after if before[name] != after[name]} - {"prompt_sha256"}
    # Where the declaration is the same, a file that it names is another one.
    texts = {name for name in (other["prompt"], other["examples"]) if name and one["files"] == other["files"]}
    files = {name for name, sha256 in other["files"].items() if one["files"].get(name) != sha256}
    return " or ".join(sorted(names or files or texts))


def named_files(body: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """(field, name) of every file that a declaration names."""
    for field in ("prompt", "examples", "adapter.file", "head.file", "model.path"):
        value: Any = body
        for key in field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield field, value


def pinned_files(version: ModelVersion) -> Iterable[tuple[str, str, str | None]]:
    """(field, name, SHA-256 or None) of every file whose hash may be pinned."""
    if version.adapter is not None:
        yield "adapter.sha256", version.adapter.file, version.adapter.sha256
    if version.head is not None:
        yield "head.sha256", version.head.file, version.head.sha256
    if version.model.path is not None:
        yield "model.sha256", version.model.path, version.model.sha256


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file, None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
