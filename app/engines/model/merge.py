"""How does an adapter become part of the weights, and do they still decide as it does?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from app.domain.decision import Decision
from app.domain.situation import parse_situation
from app.engines.model.prompt import Line, Prompt, write
from app.engines.model.runtime import ModelError, Runtime
from app.engines.model.scoring import Scorer, Scores
from app.engines.model.version import Decoding, ModelVersion

Shares = NDArray[np.float64]

TOLERANCE = (
    0.10  # of a label's probability; merged into 8 bit, the embedded adapter moves it by a third of that
)
_DOWN, _UP = ".lora_a", ".lora_b"


def _lines(action: str, role: str, resource: str, trust: Sequence[float], **more: str) -> tuple[Line, ...]:
    tensor = dict(zip(("competence", "reliability", "integrity"), trust, strict=True))
    about: dict[str, Any] = {"action_type": action, "actor_role": role, "resource": resource, **more}
    return write(parse_situation({**about, "actor_id": "sample", "t3_tensor": tensor}))


# Of every kind that a policy tells apart: what a measurement asks where there is nothing better to ask.
SITUATIONS = (
    _lines("read", "member", "docs:public/readme", (0.81, 0.92, 0.97)),
    _lines("read", "guest", "vault:signing-keys", (0.22, 0.31, 0.28)),
    _lines("write", "developer", "repo:billing", (0.64, 0.7, 0.75), recent_history="three reverted changes"),
    _lines("commit", "developer", "repo:website", (0.88, 0.9, 0.93), details="all checks are green"),
    _lines("deploy", "maintainer", "env:staging", (0.83, 0.86, 0.9), details="two reviewers approved"),
    _lines("deploy", "maintainer", "env:production", (0.79, 0.74, 0.88), team_context="change freeze"),
    _lines("delete_team", "developer", "team:payments", (0.55, 0.48, 0.6)),
    _lines("grant_role", "admin", "role:auditor", (0.9, 0.94, 0.96), recent_history="a new device at night"),
)


def add_adapter(model: Path, adapter: Path, scale: float) -> None:
    """Add a LoRA adapter to the weights of a half-precision file, in place, one tensor at a time.

    W + scale * alpha / rank * up @ down (Hu et al. 2021, section 4.1), `down` (rank, inputs) and `up`
    (outputs, rank), as llama.cpp computes it. Raises `ModelError` where the two do not fit.
    """
    low_rank = gguf.GGUFReader(adapter)
    alpha = low_rank.get_field(gguf.Keys.Adapter.LORA_ALPHA)
    parts = {tensor.name: tensor.data for tensor in low_rank.tensors}
    weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(model, "r+").tensors}
    if alpha is None:
        raise ModelError(f"{adapter} is no LoRA adapter: it names no alpha")
    for name in (name.removesuffix(_DOWN) for name in parts if name.endswith(_DOWN)):
        down, up = parts[name + _DOWN].astype(np.float32), parts[name + _UP].astype(np.float32)
        weight = weights.get(name)
        if weight is None or weight.shape != (*up.shape[:-1], down.shape[-1]):
            raise ModelError(f"{adapter} cannot be merged: its {name} does not fit the model's")
        weight[:] = weight + scale * alpha.contents() / down.shape[-2] * (up @ down)


@contextmanager
def loaded(
    model: Path,
    version: ModelVersion,
    prompt: Prompt,
    *,
    adapter: tuple[Path, float] | None,
    decoding: Decoding,
    threads: int,
) -> Iterator[Scorer]:
    """A file as the version would ask it, for as long as it takes to measure. Raises `ModelError`."""
    runtime = Runtime(model, adapter=adapter, decoding=decoding, threads=threads)
    try:
        scorer = Scorer(runtime, version, prompt)
        while not scorer.prepare():
            pass
        yield scorer
    finally:
        runtime.close()


def shares(scores: Scores) -> list[float]:
    """The labels' probabilities, in the order of `Decision`."""
    return [scores.probabilities.of(decision) for decision in Decision]


def read_samples(
    model: Path, version: ModelVersion, prompt: Prompt, *, adapter: tuple[Path, float] | None, threads: int
) -> Shares:
    """The labels' probabilities, a row for each of `SITUATIONS`. Raises `ModelError`."""
    how = version.decoding
    with loaded(model, version, prompt, adapter=adapter, decoding=how, threads=threads) as scorer:
        return np.array([shares(scorer.score(lines)) for lines in SITUATIONS])


def check_merged(version: ModelVersion, expected: Shares, found: Shares) -> None:
    """Raises `ModelError` where a probability is further than `TOLERANCE` from the adapter's."""
    off = float(np.max(np.abs(expected - found)))
    if not off <= TOLERANCE:  # a NaN is no agreement
        raise ModelError(
            f"{version.id}: merged into {version.model.requantise}, the adapter moves a probability by "
            f"{off:.2f}, more than {TOLERANCE}: set adapter.merge to false, or a finer model.requantise"
        )
