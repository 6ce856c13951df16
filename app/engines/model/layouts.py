"""Which file does llama.cpp load for a version, and is it still the one that was made?

A version may ask for its weights in another layout, and for its adapter to be part of them. Such a copy
is made once and kept in the cache directory, named by what it was made of. Its SHA-256 is written beside
it, so that a copy that was damaged since never serves: it is made anew.
"""

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import llama_cpp

from app.engines.model.merge import add_adapter, check_merged, read_samples
from app.engines.model.prompt import Prompt
from app.engines.model.runtime import ModelError, last_words, silence
from app.engines.model.version import Layout, ModelVersion
from app.engines.model.weights import Weights, scratch, settle, verify, write

log = logging.getLogger(__name__)

FILE_TYPES: dict[Layout, int] = {
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What llama.cpp loads: the file with its SHA-256, and the adapter to apply with its scale, if any."""

    model: Path
    adapter: tuple[Path, float] | None
    sha256: str


def prepare(
    version: ModelVersion, weights: Weights, *, prompt: Prompt, cache_dir: Path, threads: int
) -> Prepared:
    """The declared file, or the copy in the version's layout, made where it is missing or damaged.

    Seconds where a copy is made. Raises `ModelError` where llama.cpp refuses or where a merged copy does
    not decide as the adapter does, `OSError` where the disk does.
    """
    layout, adapter = version.model.requantise, None
    if version.adapter is not None and weights.adapter is not None:
        adapter = (weights.adapter, version.adapter.scale)
    if layout is None:
        return Prepared(weights.source, adapter, weights.sha256)
    path = cache_dir / copy_name(version, weights)
    if adapter is None or version.adapter is None or not version.adapter.merge:
        sha256 = kept(path, lambda part: requantise(weights.source, part, layout=layout, threads=threads))
        return Prepared(path, adapter, sha256)

    def merge(part: Path) -> None:
        with scratch(cache_dir) as whole:
            requantise(weights.source, whole, layout="f16", threads=threads)
            expected = read_samples(whole, version, prompt, adapter=adapter, threads=threads)
            add_adapter(whole, *adapter)
            requantise(whole, part, layout=layout, threads=threads)
        found = read_samples(part, version, prompt, adapter=None, threads=threads)
        check_merged(version, expected, found)

    return Prepared(path, None, kept(path, merge))


def copy_name(version: ModelVersion, weights: Weights) -> str:
    """A file name that says what the copy was made of."""
    made_of = weights.sha256[:16]
    if version.adapter is not None and version.adapter.merge and weights.adapter_sha256 is not None:
        made_of += f"+{weights.adapter_sha256[:16]}x{version.adapter.scale:g}"
    return f"{made_of}-{version.model.requantise}.gguf"


def requantise(source: Path, target: Path, *, layout: Layout, threads: int) -> None:
    """Write the model in another layout. Raises `ModelError`."""
    silence()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[layout]
    parameters.allow_requantize = True
    parameters.nthread = threads
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise ModelError(f"{source} cannot be requantised to {target}: {last_words()}")


def kept(copy: Path, make: Callable[[Path], None]) -> str:
    """The copy's SHA-256, after making it where it is missing or not what was made."""
    if copy.is_file():
        made, found = noted(copy), verify(copy, cache_dir=copy.parent)
        if found == made:
            return found
        log.warning("%s has SHA-256 %s, not %s as when it was made: making it anew", copy, found, made)
    with scratch(copy.parent) as part:
        make(part)
        settle(part, copy)
    sha256 = verify(copy, cache_dir=copy.parent)
    write(note_of(copy), f"{sha256}  {copy.name}\n")  # as `sha256sum --check` reads it
    return sha256


def note_of(copy: Path) -> Path:
    """Where the SHA-256 of a copy is written."""
    return copy.with_suffix(".sha256")


def noted(copy: Path) -> str | None:
    """The SHA-256 that a copy had when it was made; None where nobody wrote it down."""
    try:
        return note_of(copy).read_text(encoding="ascii", errors="replace").partition(" ")[0]
    except OSError:
        return None
