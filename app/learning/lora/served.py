"""Which tokens and label logits does a prompt have where the model is served, which is llama.cpp?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from app.engines.model.cores import thread_count
from app.engines.model.layouts import prepare
from app.engines.model.prompt import Line, Prompt, situation_text, write
from app.engines.model.runtime import Runtime
from app.engines.model.scoring import LABELS
from app.engines.model.version import Decoding, ModelVersion
from app.engines.model.weights import Weights
from app.learning.corrections import Example
from app.learning.lora.batch import Row, row

_DECODING = Decoding(n_ctx=2048, n_gpu_layers=0)


def base_of(version: ModelVersion, weights: Weights, *, prompt: Prompt, cache_dir: Path) -> Path:
    """The file that a version serves from, without its adapter: what an adapter is to be trained on.

    Made where it is missing. Raises `ModelError`, `OSError`.
    """
    bare, threads = structs.replace(version, adapter=None), thread_count(version.decoding.threads)
    return prepare(bare, weights, prompt=prompt, cache_dir=cache_dir, threads=threads).model


class Served:
    """A model file with its adapter under a prompt. Belongs to one thread."""

    def __init__(self, model: Path, prompt: Prompt, *, adapter: Path | None = None, threads: int = 1) -> None:
        """Load it. Raises `ModelError`."""
        scaled = None if adapter is None else (adapter, 1.0)
        self._runtime = Runtime(model, adapter=scaled, decoding=_DECODING, threads=threads)
        self._prefix: list[int] = []
        for piece in prompt.pieces:
            tokenise = self._runtime.template_tokens if piece.ours else self._runtime.caller_tokens
            self._prefix += tokenise(piece.text)
        self._suffix = self._runtime.template_tokens(prompt.suffix)
        self.labels = [
            self._runtime.template_tokens(f"{prompt.suffix} {label}")[len(self._suffix)] for label in LABELS
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runtime.close()

    def row(self, example: Example, *, weight: float = 1.0) -> Row:
        """The example's views as tokens from the prompt's first to where the label is read."""
        views = [[*self._prefix, *self._following(lines)] for lines in views_of(example)]
        return row(views, LABELS.index(example.decision), weight=weight)

    def label_logits(self, lines: Sequence[Line]) -> NDArray[np.float32]:
        """The labels' logits, in the order of `LABELS`. Raises `ModelError`."""
        self._runtime.set_prefix(self._prefix)
        self._runtime.fork()
        return self._runtime.extend(self._following(lines))[self.labels]

    def _following(self, lines: Sequence[Line]) -> list[int]:
        return [*self._runtime.caller_tokens(situation_text(lines)), *self._suffix]


def views_of(example: Example) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """An example's lines, without the rules' line and with it."""
    return write(example.situation), write(example.situation, legacy=example.legacy)
