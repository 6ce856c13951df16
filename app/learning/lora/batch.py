"""How do examples become arrays whose common tokens are computed once?

The ways in which one situation is shown to the model (with and without the rules' line) begin with the
same tokens: a row is that beginning, followed by one tail a view. A tail sees the beginning and itself.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Row:
    """One example as tokens: `shared`, then each tail by itself. `label` is a place in `LABELS`."""

    shared: Tokens
    tails: tuple[Tokens, ...]
    label: int
    weight: float = 1.0

    @property
    def length(self) -> int:
        return len(self.shared) + sum(map(len, self.tails))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one length, the short ones padded.

    `tokens`, `positions` and `tails` are (rows, length); `tails` is 0 in the shared part, 1, 2, ... in the
    tails and -1 in the padding. `decided` indexes the flattened rows, once a view: where a label is read.
    `labels` and `weights` have one entry a view.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    tails: NDArray[np.int64]
    decided: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


def row(views: Sequence[Tokens], label: int, *, weight: float = 1.0) -> Row:
    """The views' common beginning and what is left of each; no tail is empty."""
    limit = min(map(len, views)) - 1
    common = next((at for at in range(limit) if len({view[at] for view in views}) > 1), limit)
    return Row(views[0][:common], tuple(view[common:] for view in views), label, weight)


def pack(rows: Sequence[Row]) -> Batch:
    """Views come out row by row, in the order of their tails."""
    length = max(row.length for row in rows)
    tokens, positions = np.zeros((2, len(rows), length), np.int64)
    tails = np.full((len(rows), length), -1, np.int64)
    decided: list[int] = []
    for at, each in enumerate(rows):
        end = len(each.shared)
        tokens[at, :end], positions[at, :end], tails[at, :end] = each.shared, np.arange(end), 0
        for number, tail in enumerate(each.tails, 1):
            place = slice(end, end + len(tail))
            tokens[at, place], tails[at, place] = tail, number
            positions[at, place] = len(each.shared) + np.arange(len(tail))
            end += len(tail)
            decided.append(at * length + end - 1)
    views = [len(each.tails) for each in rows]
    labels = np.repeat([each.label for each in rows], views)
    weights = np.repeat(np.array([each.weight for each in rows], np.float32), views)
    return Batch(tokens, positions, tails, np.array(decided), labels, weights)


def batches(rows: Sequence[Row], *, size: int, seed: int) -> Iterator[list[Row]]:
    """All rows once, roughly in their order, rows of like length together; the last batch may be smaller."""
    window = 16 * size
    chance = random.Random(seed)  # noqa: S311 -- an order, not a secret
    for start in range(0, len(rows), window):
        near = sorted(rows[start : start + window], key=lambda each: each.length)
        groups = [near[at : at + size] for at in range(0, len(near), size)]
        chance.shuffle(groups)
        yield from groups
