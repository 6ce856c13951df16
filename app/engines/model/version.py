"""Which model, prompt and settings make up a version, and which version is used?"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from app.domain.advisory import Outcome, Probabilities
from app.engines.model.prompt import Prompt, load_prompt
from app.errors import PolicyError, SettingsError
from app.policy.files import Node, parse_yaml, read_text

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Meta(ge=0, le=1)]
Identifier = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,79}$")]
Reason = Literal["attributed", "generated", "both"]
Layout = Literal["q8_0", "q4_0", "f16"]


class Remote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that speaks the OpenAI-compatible API: `url` ends in `/v1`, `model` is its name there.

    `key_env` names the environment variable that holds its key. `logprobs`: the server tells the
    log-probabilities of the labels; without them it is asked for one constrained word. `top_logprobs`: of
    how many tokens it is to tell them (vLLM: at most 20, unless started with `--max-logprobs`).
    """

    url: Annotated[str, Meta(pattern="^https?://")]
    model: str
    key_env: Annotated[str, Meta(pattern="^[A-Z][A-Z0-9_]*$")] | None = None
    logprobs: bool = True
    top_logprobs: Annotated[int, Meta(ge=3, le=1000)] = 20


class ModelFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the weights are: `file` inside a `package`, a `path` (relative to the policies directory), or
    a `remote` server.

    A pinned `sha256` always holds. `requantise` makes a copy in another layout, once, in the cache.
    """

    package: str | None = None
    file: str | None = None
    path: str | None = None
    remote: Remote | None = None
    sha256: Sha256 | None = None
    requantise: Layout | None = None


class AdapterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter; `file` is relative to the policies directory.

    `merge` adds it to the weights once, in the cached copy, instead of computing it with every token.
    """

    file: str
    sha256: Sha256 | None = None
    scale: Annotated[float, Meta(gt=0, le=4)] = 1.0
    merge: bool = False


class HeadFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A head learned from verdicts (`app.engines.model.head`); `file` is relative to the policies directory.

    It reads the legacy engine's answer, so a version with a head shows it: `show_legacy: true`.
    """

    file: str
    sha256: Sha256 | None = None


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`temperature` divides the labels' logits before the softmax (Guo et al. 2017, eq. 9)."""

    temperature: Annotated[float, Meta(gt=0, le=100)] = 1.0


class Decoding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How llama.cpp runs. `threads` null: from affinity and quota. `n_gpu_layers` -1: all.

    `order`: whether the label is read before anything is generated, or after one line of reasoning.
    `shadow_batch`: so many observations of shadow are decoded together; above 1 their logits depend a
    little on their neighbours, so `limits.noise` must say how much.
    """

    n_ctx: Annotated[int, Meta(ge=256, le=131072)] = 8192
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None
    n_gpu_layers: Annotated[int, Meta(ge=-1, le=1024)] = 0
    flash_attention: bool = True
    ubatch: Annotated[int, Meta(ge=32, le=4096)] = 512
    order: Literal["decision_first", "reason_first"] = "decision_first"
    shadow_batch: Annotated[int, Meta(ge=1, le=16)] = 1
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 512
    temperature: Literal[0] = 0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Below `margin`, `noise` or `confidence`: unsure. Below `coverage`: malformed. Longer: oversize.

    `noise` is the measured movement of the top-2 margin by what should not matter (layout, batch).
    """

    margin_at_least: Share
    noise: Share = 0.0
    confidence_at_least: Share = 0.0
    coverage_at_least: Annotated[float, Meta(gt=0, le=1)]
    max_situation_tokens: Annotated[int, Meta(ge=64, le=32768)]

    def judge(self, shares: Probabilities, coverage: float) -> Outcome:
        """Whether an answer may be relied upon; one that is not finite is malformed."""
        is_finite = math.isfinite(coverage) and math.isfinite(shares.deny)
        if not is_finite or coverage < self.coverage_at_least:
            return Outcome.MALFORMED
        close = shares.margin < max(self.margin_at_least, self.noise)
        if close or shares.of(shares.most_probable) < self.confidence_at_least:
            return Outcome.UNSURE
        return Outcome.OK


class _VersionFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Identifier
    model: ModelFile
    parent: Identifier | None = None
    adapter: AdapterFile | None = None
    head: HeadFile | None = None
    calibration: Calibration | None = None
    prompt: str
    examples: str | None = None
    show_legacy: bool
    reasoning: Reason
    decoding: Decoding
    limits: Limits


class ModelVersion(_VersionFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What A/B compares and a step back returns to. `origin` is the file that declares it.

    `parent` is the version that this one was made from; `examples` names few-shot examples
    (JSON lines, relative to the policies directory) that the prompt's template shows.
    """

    prompt_sha256: Sha256
    origin: str

    @property
    def model_name(self) -> str:
        """The model's file name, or its name on a remote server."""
        if self.model.remote is not None:
            return self.model.remote.model
        return Path(self.model.file or self.model.path or "").name

    @property
    def runtime_key(self) -> tuple[object, ...]:
        """Versions with equal keys can be answered by one loaded model: one worker holds them all."""
        how = self.decoding
        return (self.model, self.adapter, how.threads, how.n_gpu_layers, how.flash_attention, how.ubatch)

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
    return parse_version(read_text(path), path=str(path), policies_dir=policies_dir)


def parse_version(text: str, *, path: str, policies_dir: Path) -> ModelVersion:
    """`load_version` of a text that need not lie in a file yet; `path` is where it will, or what to call it."""
    root = parse_yaml(text, path)
    try:
        declared = msgspec.convert(root.plain(), _VersionFile)
    except msgspec.ValidationError as error:
        raise _located(root, str(error)) from error
    model = declared.model
    places = [place for place in (model.package, model.path, model.remote) if place is not None]
    if len(places) != 1 or (model.package is None) != (model.file is None):
        raise root.entries()["model"].error("needs package and file, a path, or a remote")
    if declared.adapter is not None and declared.adapter.merge and model.requantise is None:
        raise root.entries()["adapter"].error("merge needs model.requantise: the layout of the merged copy")
    if declared.head is not None and not declared.show_legacy:
        raise root.entries()["show_legacy"].error("must be true: the head reads the legacy engine's answer")
    if declared.decoding.shadow_batch > 1 and declared.limits.noise == 0:
        batch = root.entries()["decoding"].entries()["shadow_batch"]
        raise batch.error("above 1 needs limits.noise: how far its neighbours move a situation's margin")
    prompt = prompt_of(declared, policies_dir=policies_dir)
    return ModelVersion(
        **{name: getattr(declared, name) for name in declared.__struct_fields__},
        prompt_sha256=prompt.sha256,
        origin=path,
    )


def prompt_of(version: _VersionFile, *, policies_dir: Path) -> Prompt:
    """The version's template with its examples filled in.

    Raises `PolicyError`, also where the files are no longer the ones that the version was declared with.
    """
    examples = policies_dir / version.examples if version.examples else None
    path = policies_dir / version.prompt
    prompt = load_prompt(path, examples=examples, show_legacy=version.show_legacy)
    if isinstance(version, ModelVersion) and prompt.sha256 != version.prompt_sha256:
        said = f"it or its examples changed since {version.id} was registered: restore them"
        raise PolicyError(str(path), None, "", said)
    return prompt


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose_version(
    versions: Mapping[str, ModelVersion],
    *,
    model_path: Path | None = None,
    wanted: str | None = None,
    sha256: Callable[[Path], str] = file_sha256,
) -> ModelVersion:
    """The version to load where none is active yet.

    A `wanted` id wins. Else one of those that were not made from another one here: without `model_path`
    (PHASEGATE_MODEL_PATH) the embedded one, whose model comes from a package. With it the file decides: a
    version that pins its hash is meant for it, adapter and layout included; any other file is served by
    the version whose model is a bare `path` without a pin. `sha256` hashes a file; `weights.verify`
    remembers what it has hashed. Raises `SettingsError` where that names no version, or more than one.
    """
    if wanted is not None:
        if wanted not in versions:
            raise SettingsError(
                "PHASEGATE_MODEL_VERSION", f"no version {wanted!r}; there are {', '.join(sorted(versions))}"
            )
        return versions[wanted]
    roots = [version for version in versions.values() if version.parent not in versions]
    if model_path is None:
        return _only([v for v in roots if v.model.package], "come from a package")
    pinned = [v for v in roots if v.model.sha256]
    if pinned and model_path.is_file():
        digest = sha256(model_path)
        for version in pinned:
            if version.model.sha256 == digest:
                return version
    unpinned = [v for v in roots if v.model.path and v.model.sha256 is None]
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
