"""Does llama.cpp read an adapter as it was trained?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.engines.model.prompt import Prompt
from app.learning.corrections import Example
from app.learning.lora.adapter import AdapterError, read_adapter
from app.learning.lora.batch import pack
from app.learning.lora.net import Net
from app.learning.lora.served import Served, views_of

# llama.cpp rounds what enters a Q8_0 product to 8 bits. That moves the labels' log-probabilities by 0.07
# on average; an adapter that is read wrongly moves them by 1 and more.
MEAN_GAP = 0.2
SURE_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the two computations lie apart, over all views of the examples.

    The gap is between the labels' log-probabilities. `flipped` counts views on which they decide otherwise
    although the first two labels' probabilities lie `SURE_MARGIN` apart.
    """

    views: int
    mean_gap: float
    flipped: int

    @property
    def holds(self) -> bool:
        return self.flipped == 0 and self.mean_gap <= MEAN_GAP


def check(model: Path, adapter: Path, prompt: Prompt, examples: Sequence[Example], *, threads: int) -> Parity:
    """Compare the label logits of torch and llama.cpp on a few examples.

    Raises `AdapterError` where they are further apart than rounding explains, and what loading raises.
    """
    with Served(model, prompt, adapter=adapter, threads=threads) as served:
        lines = [view for example in examples for view in views_of(example)]
        theirs = np.array([served.label_logits(view) for view in lines])
        rows = [served.row(example) for example in examples]
        labels = served.labels
    net = Net(model, read_adapter(adapter))
    with torch.inference_mode():
        ours = np.concatenate([net.read(pack([each]), labels)[0].numpy() for each in rows])
    parity = _parity(_log_probabilities(ours), _log_probabilities(theirs))
    if not parity.holds:
        raise AdapterError(
            f"{adapter}: llama.cpp and training differ by {parity.mean_gap:.2f} on average in the labels' "
            f"log-probabilities (at most {MEAN_GAP}), and in {parity.flipped} of {parity.views} sure decisions"
        )
    return parity


def _parity(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Parity:
    gaps = np.abs(ours - theirs)
    ranked = np.sort(np.exp(ours), axis=1)
    sure = ranked[:, -1] - ranked[:, -2] >= SURE_MARGIN
    flipped = int((sure & (ours.argmax(1) != theirs.argmax(1))).sum())
    return Parity(len(ours), float(gaps.mean()), flipped)


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exact: NDArray[np.float64] = logits.astype(np.float64)
    return exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)
