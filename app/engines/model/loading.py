"""How does a version become a scorer that can answer?"""

import os
import tempfile
from pathlib import Path

from app.engines.model.cores import thread_count
from app.engines.model.prompt import load_prompt
from app.engines.model.runtime import Runtime, requantise
from app.engines.model.scoring import Scorer
from app.engines.model.version import ModelVersion
from app.engines.model.weights import Weights, find_weights, settle


def open_scorer(
    version: ModelVersion, *, policies_dir: Path, cache_dir: Path, model_path: Path | None = None
) -> tuple[Scorer, Weights]:
    """Find, verify, convert where the version says so, and load.

    Takes a second, the first time a few. Raises `PolicyError`, `SettingsError`, `ModelError`, `OSError`.
    """
    weights = find_weights(version, policies_dir=policies_dir, cache_dir=cache_dir, model_path=model_path)
    threads = thread_count(version.decoding.threads)
    model = weights.source
    if version.model.requantise is not None:
        model = _converted(
            weights, cache_dir / f"{weights.sha256[:16]}-{version.model.requantise}.gguf", threads
        )
    adapter = (weights.adapter, version.adapter.scale) if version.adapter and weights.adapter else None
    runtime = Runtime(model, adapter=adapter, decoding=version.decoding, threads=threads)
    return Scorer(runtime, version, load_prompt(policies_dir / version.prompt)), weights


def _converted(weights: Weights, copy: Path, threads: int) -> Path:
    """The copy in another layout, named by the source's hash and made once."""
    if copy.is_file():
        return copy
    handle, name = tempfile.mkstemp(dir=copy.parent, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        requantise(weights.source, part, threads=threads)
        settle(part, copy)
    finally:
        part.unlink(missing_ok=True)
    return copy
