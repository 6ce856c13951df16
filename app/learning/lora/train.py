"""How does an adapter learn from examples?

By cross-entropy over the label tokens' logits at the place where a decision is read: a loss over the whole
vocabulary collapses to one label. All that is asked of the rest is that the labels keep a share of it, by
which a broken model is told from one that answers.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from app.domain.decision import Decision
from app.engines.model.prompt import Prompt
from app.errors import PhasegateError
from app.learning.corrections import Example
from app.learning.lora.adapter import Adapter, read_adapter, write_adapter
from app.learning.lora.batch import Batch, Row, batches, pack
from app.learning.lora.net import Net
from app.learning.lora.served import Served

_CHECKPOINT_S = 180.0
_AVERAGED = 25  # batches
_LOG_SHARE, _SHARE_WEIGHT = math.log(0.05), 0.1  # no loss where the labels' share is above it


class NothingLearnt(PhasegateError):
    """Training broke: its loss is no number."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. Factors below `from_layer` stay as they are: cheaper, where one starts from an adapter.

    The rate rises over `warm_up` batches, stays, and falls linearly over the second half. After `minutes`
    of wall time training ends, its rate having fallen to nothing by then. `weights` multiply the loss by
    what should be decided (1 where none is given). `checkpoint` is written every three minutes; a run
    that was killed goes on with it as the adapter to start from.
    """

    rank: int = 16
    alpha: float = 32.0
    from_layer: int = 0
    epochs: int = 1
    batch: int = 8
    rate: float = 4e-4
    warm_up: int = 25
    minutes: float = math.inf
    seed: int = 0
    threads: int = 2
    weights: Mapping[Decision, float] = field(default_factory=dict)
    checkpoint: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands. Loss and accuracy (0..1) are means over the last batches, before each was learnt."""

    seen: int
    of: int
    elapsed_s: float
    loss: float
    accuracy: float


def train(
    model: Path,
    prompt: Prompt,
    examples: Sequence[Example],
    *,
    recipe: Recipe,
    start: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Adapter:
    """An adapter for `model`, the very GGUF file that serves, from `start`'s adapter or from nothing.

    Raises `UnsupportedModel`, `AdapterError`, `ModelError`, `NothingLearnt`, `OSError`.
    """
    adapter = read_adapter(start) if start else Adapter(recipe.rank, recipe.alpha, {})
    with Served(model, prompt) as served:
        rows = [served.row(example, weight=recipe.weights.get(example.decision, 1.0)) for example in examples]
        labels = served.labels
    net = Net(model, adapter, seed=recipe.seed, dtype=fast_type())
    with ThreadPoolExecutor(recipe.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        _Trainer(net, labels, recipe, pool, progress).run(rows)
    return net.adapter()


def fast_type() -> torch.dtype:
    """The type of the large products: bfloat16 where the processor multiplies it by itself."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32  # noqa: SLF001


class _Trainer:
    def __init__(
        self,
        net: Net,
        labels: Sequence[int],
        recipe: Recipe,
        pool: Executor,
        progress: Callable[[Progress], None],
    ) -> None:
        self._net, self._labels, self._recipe = net, labels, recipe
        self._pool, self._progress = pool, progress
        self._factors = net.parameters(from_layer=recipe.from_layer)
        self._optimiser = torch.optim.AdamW(
            self._factors, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self._recent: list[tuple[float, float]] = []
        self._began = self._saved = time.monotonic()

    def run(self, rows: Sequence[Row]) -> None:
        """Every epoch in turn, or until the minutes are over."""
        recipe, total, seen, step = self._recipe, len(rows) * self._recipe.epochs, 0, 0
        for epoch in range(recipe.epochs):
            for group in batches(rows, size=recipe.batch, seed=recipe.seed + epoch):
                done = max(seen / total, self._elapsed_s / 60 / recipe.minutes)
                if done >= 1:
                    return
                self._learn(group, rate=recipe.rate * _slowness(step, done, recipe.warm_up))
                seen, step = seen + len(group), step + 1
                self._tell(seen, total)

    def _learn(self, group: Sequence[Row], *, rate: float) -> None:
        for settings in self._optimiser.param_groups:
            settings["lr"] = rate
        # A thread takes rows, not parts of a product: threads that wait for each other at every product
        # starve on a busy machine.
        shares = [
            pack(group[at :: self._recipe.threads]) for at in range(min(len(group), self._recipe.threads))
        ]
        learnt = list(self._pool.map(self._gradients, shares, [2 * len(group)] * len(shares)))
        loss, right = (sum(column) for column in zip(*(said for said, _ in learnt), strict=True))
        if not math.isfinite(loss):
            raise NothingLearnt(f"the loss is {loss}: train with a lower rate")
        for factor, *parts in zip(self._factors, *(gradients for _, gradients in learnt), strict=True):
            factor.grad = sum(parts[1:], parts[0])
        torch.nn.utils.clip_grad_norm_(self._factors, 1.0)
        self._optimiser.step()
        self._recent = [*self._recent, (loss, right)][-_AVERAGED:]

    def _gradients(self, batch: Batch, views: int) -> tuple[tuple[float, float], Sequence[Tensor]]:
        """What the batch adds to the mean loss and accuracy over `views`, and to the gradients."""
        logits, log_share = self._net.read(batch, self._labels)
        wanted, weights = torch.from_numpy(batch.labels), torch.from_numpy(batch.weights)
        each = functional.cross_entropy(logits, wanted, reduction="none") * weights
        lost = (_LOG_SHARE - log_share).clamp(min=0)
        loss = (each + _SHARE_WEIGHT * lost).sum() / views
        right = (logits.argmax(1) == wanted).float().sum() / views
        return (loss.item(), right.item()), torch.autograd.grad(loss, self._factors)

    def _tell(self, seen: int, total: int) -> None:
        loss, accuracy = (sum(column) / len(column) for column in zip(*self._recent, strict=True))
        self._progress(Progress(seen, total, self._elapsed_s, loss, accuracy))
        if self._recipe.checkpoint and time.monotonic() - self._saved > _CHECKPOINT_S:
            part = self._recipe.checkpoint.with_suffix(".part")
            write_adapter(part, self._net.adapter())
            part.replace(self._recipe.checkpoint)
            self._saved = time.monotonic()

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began


def _slowness(step: int, done: float, warm_up: int) -> float:
    """The rate as a share of its highest; `done` is the share of the work, 0..1."""
    return min(1.0, (step + 1) / warm_up) * min(1.0, 2 * (1 - done))
