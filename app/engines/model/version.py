"""Which model, prompt and settings make up a version, and which version is used?"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from app.engines.model.prompt import load_prompt
from app.errors import PolicyError, SettingsError
from app.policy.files import Node, parse_yaml, read_text

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Meta(ge=0, le=1)]
Identifier = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,79}$")]
Reason = Literal["attributed", "generated", "both"]


class ModelFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the weights are: `file` inside a `package`, or a `path` (relative to the policies directory).

    A pinned `sha256` always holds. `requantise` makes a copy in another layout, once, in the cache.
    """

    package: str | None = None
    file: str | None = None
    path: str | None = None
    sha256: Sha256 | None = None
    requantise: Literal["q8_0"] | None = None


class AdapterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter; `file` is relative to the policies directory."""

    file: str
    sha256: Sha256 | None = None
    scale: Annotated[float, Meta(gt=0, le=4)] = 1.0


class Decoding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How llama.cpp runs. `threads` null: from affinity and quota. `n_gpu_layers` -1: all."""

    n_ctx: Annotated[int, Meta(ge=256, le=131072)] = 8192
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None
    n_gpu_layers: Literal[-1, 0] = 0
    flash_attention: bool = True
    ubatch: Annotated[int, Meta(ge=32, le=4096)] = 512
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 512
    temperature: Literal[0] = 0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Below `margin` or `confidence`: unsure. Below `coverage`: malformed. Longer: oversize."""

    margin_at_least: Share
    confidence_at_least: Share = 0.0
    coverage_at_least: Annotated[float, Meta(gt=0, le=1)]
    max_situation_tokens: Annotated[int, Meta(ge=64, le=32768)]


class _VersionFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Identifier
    model: ModelFile
    adapter: AdapterFile | None = None
    prompt: str
    show_legacy: bool
    reasoning: Reason
    decoding: Decoding
    limits: Limits


class ModelVersion(_VersionFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What A/B compares and a step back returns to. `origin` is the file that declares it."""

    prompt_sha256: Sha256
    origin: str

    @property
    def model_name(self) -> str:
        """The model's file name."""
        return Path(self.model.file or self.model.path or "").name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the files, JSON-ready."""
        return {
            "decoding": msgspec.structs.asdict(self.decoding),
            "limits": msgspec.structs.asdict(self.limits),
            "reasoning": self.reasoning,
            "show_legacy": self.show_legacy,
        }


def load_versions(policies_dir: Path) -> dict[str, ModelVersion]:
    """All of `policies/versions/*.yaml` by id. Raises `PolicyError` with file, line and key."""
    versions: dict[str, ModelVersion] = {}
    for path in sorted((policies_dir / "versions").glob("*.yaml")):
        version = load_version(path, policies_dir=policies_dir)
        if version.id in versions:
            raise PolicyError(str(path), None, "id", f"{version.id} is already declared in another file")
        versions[version.id] = version
    return versions


def load_version(path: Path, *, policies_dir: Path) -> ModelVersion:
    """One version. Unknown and missing keys, impossible values and missing prompts are `PolicyError`."""
    root = parse_yaml(read_text(path), str(path))
    try:
        declared = msgspec.convert(root.plain(), _VersionFile)
    except msgspec.ValidationError as error:
        raise _located(root, str(error)) from error
    model = declared.model
    if (model.package is None) == (model.path is None) or (model.package is None) != (model.file is None):
        raise root.entries()["model"].error("needs package and file, or a path")
    prompt = load_prompt(policies_dir / declared.prompt)
    return ModelVersion(
        **{name: getattr(declared, name) for name in declared.__struct_fields__},
        prompt_sha256=prompt.sha256,
        origin=str(path),
    )


def choose_version(
    versions: Mapping[str, ModelVersion], *, model_path: Path | None = None, wanted: str | None = None
) -> ModelVersion:
    """The version to load where none is active yet.

    A `wanted` id wins. Else, without `model_path`, the embedded one: its model comes from a package.
    With `model_path` (PHASEGATE_MODEL_PATH) the file decides: a version that pins its hash is meant
    for it, adapter and layout included; any other file is served by the version whose model is a bare
    `path` without a pin, because adapter, layout and prompt of another base would not fit it.
    Raises `SettingsError` where that names no version, or more than one.
    """
    if wanted is not None:
        if wanted not in versions:
            raise SettingsError(
                "PHASEGATE_MODEL_VERSION", f"no version {wanted!r}; there are {sorted(versions)}"
            )
        return versions[wanted]
    if model_path is None:
        return _only([v for v in versions.values() if v.model.package], "come from a package")
    pinned = [v for v in versions.values() if v.model.sha256]
    if pinned and model_path.is_file():
        with model_path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        for version in pinned:
            if version.model.sha256 == digest:
                return version
    unpinned = [v for v in versions.values() if v.model.path and v.model.sha256 is None]
    return _only(unpinned, "take any model file")


def _only(candidates: list[ModelVersion], what: str) -> ModelVersion:
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(version.id for version in candidates) or "none"
    raise SettingsError(
        "PHASEGATE_MODEL_VERSION", f"must name a version: {names} of policies/versions {what}"
    )


def _located(root: Node, message: str) -> PolicyError:
    """The place is named as `$.model.sha256`; the reader of the file needs its line, or the nearest one."""
    what, _, place = message.partition(" - at `$")
    keys = [key for key in place.rstrip("`").split(".") if key]
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        keys.append(unknown.group(1))
        what = "unknown key"
    node = root
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            break
        node = node.value[key]
    return PolicyError(node.path, node.line, ".".join(keys), what)
