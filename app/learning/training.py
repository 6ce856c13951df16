"""What trains an adapter for a version, where torch is installed?"""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.engines.model.cores import thread_count
from app.engines.model.layouts import prepare
from app.engines.model.version import ModelVersion, prompt_of
from app.engines.model.weights import Weights
from app.learning.adapters import Train
from app.learning.corrections import Example
from app.learning.lora.adapter import write_adapter
from app.learning.refusal import Refused

_TOLD_S = 30.0
_CHECKED = 8  # examples on which torch and llama.cpp are compared


def trainer(
    parent: ModelVersion,
    weights: Weights,
    *,
    policies_dir: Path,
    cache_dir: Path,
    minutes: float | None,
    tell: Callable[[str], None],
) -> Train:
    """Training on the parent's base in the layout that serves, from the parent's adapter on.

    What it writes was checked: llama.cpp reads the labels as they were trained. Raises `Refused` where
    torch is missing, `ModelError`, `OSError`.
    """
    teaching, checking = _needing_torch("train"), _needing_torch("check")
    threads = thread_count(parent.decoding.threads)
    prompt = prompt_of(parent, policies_dir=policies_dir)
    plain = msgspec.structs.replace(parent, adapter=None)
    base = prepare(plain, weights, prompt=prompt, cache_dir=cache_dir, threads=threads).model
    recipe = teaching.Recipe(minutes=minutes or math.inf, threads=threads)

    def train(examples: Sequence[Example], file: Path) -> None:
        adapter = teaching.train(
            base, prompt, examples, recipe=recipe, start=weights.adapter, progress=_Told(tell)
        )
        write_adapter(file, adapter)
        checking.check(base, file, prompt, examples[:_CHECKED], threads=threads)

    return train


class _Told:
    """Says every half minute how far training is."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._next_s = tell, _TOLD_S

    def __call__(self, progress: Any) -> None:
        if progress.elapsed_s >= self._next_s:
            self._next_s = progress.elapsed_s + _TOLD_S
            self._tell(
                f"{progress.seen} of {progress.of} examples in {progress.elapsed_s:.0f} s, "
                f"{progress.accuracy:.0%} of the last ones right before they were learned"
            )


def _needing_torch(name: str) -> Any:
    """A module of the package that needs torch: imported here, because that may be missing."""
    try:
        return importlib.import_module(f"app.learning.lora.{name}")
    except ModuleNotFoundError as error:
        message = f"--method lora needs {error.name}: pip install -e '.[train]'"
        raise Refused(message) from error
