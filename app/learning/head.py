"""How is a head fitted, and how well would it have done on what it had not seen?

What is held out is whole groups (`folds`). The strength of the penalty is chosen inside each training
part anew (nested cross-validation), so that the predictions on held-out examples owe nothing to them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import Decision
from app.engines.model.head import (
    CLASSES,
    LEGACY_BLOCK,
    OWN_BLOCK,
    Basis,
    Head,
    HiddenWeights,
    Weight,
    value_of,
    without_lifting,
)
from app.learning.regression import Labels, Matrix, Rotated, Weights, fit, softmax, unrotated
from app.learning.report import threshold

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_TEMPERATURES = np.geomspace(0.25, 4.0, 65)
_SEEN_AT_LEAST, _SEEN_SHARE = 3, 0.01  # what is rarer is no feature
_DIGITS = 6
_HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Table:
    """Examples as rows. `fields` has one column a name, NaN where a number was not given.

    `denied`: where the legacy engine denies.
    """

    names: tuple[str, ...]
    fields: Matrix
    hidden: Matrix
    denied: NDArray[np.bool_]
    labels: Labels

    @classmethod
    def of(
        cls,
        named: Sequence[Mapping[str, float]],
        hidden: Sequence[NDArray[np.float32]],
        decisions: Sequence[Decision],
    ) -> "Table":
        """From `head.features`, the hidden states (width,) and the right decisions, in one order."""
        seen = Counter(name for each in named for name in each)
        least = max(_SEEN_AT_LEAST, _SEEN_SHARE * len(named))
        names = tuple(sorted(name for name, count in seen.items() if count >= least))
        fields = [[value_of(each, name, absent=np.nan) for name in names] for each in named]
        labels = np.array([CLASSES.index(decision) for decision in decisions])
        denied = np.array([f"{LEGACY_BLOCK}{Decision.DENY}" in each for each in named])
        return cls(names, np.array(fields, np.float64), np.array(hidden, np.float64), denied, labels)


def _block(name: str) -> str:
    return next((block for block in (LEGACY_BLOCK, OWN_BLOCK) if name.startswith(block)), "fields")


@dataclass(frozen=True, slots=True)
class Scaling:
    """Standardises each column, and gives each block of columns the same weight."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, table: Table, rows: NDArray[np.bool_]) -> "Scaling":
        whole = np.hstack([table.fields, table.hidden])[rows]
        given = ~np.isnan(whole)
        count = np.maximum(given.sum(axis=0), 1)  # a number may be given in no row
        mean = np.where(given, whole, 0.0).sum(axis=0) / count
        deviation = np.sqrt((np.where(given, whole - mean, 0.0) ** 2).sum(axis=0) / count)
        varies = deviation > 1e-9
        scale = np.where(varies, deviation, 1.0)
        blocks = np.array([*map(_block, table.names), *[_HIDDEN] * table.hidden.shape[1]])
        for block in set(blocks):
            scale[blocks == block] *= np.sqrt(max((varies & (blocks == block)).sum(), 1))
        return cls(mean, scale)

    def apply(self, table: Table) -> Matrix:
        whole = np.hstack([table.fields, table.hidden])
        return np.asarray((np.where(np.isnan(whole), self.mean, whole) - self.mean) / self.scale)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits (n, classes) of each example by weights that never saw its group, and the strength chosen."""

    logits: Matrix
    c: float


def hold_out(table: Table, fold: NDArray[np.int64]) -> HeldOut:
    """Predict every fold from the others."""
    names = range(int(fold.max()) + 1)
    single = {name: _path(table, fold != name) for name in names}
    losses = {name: np.zeros(len(STRENGTHS)) for name in names}
    for one, other in combinations(names, 2):
        path = _path(table, (fold != one) & (fold != other))
        for seen, unseen in ((one, other), (other, one)):  # chosen for `seen` without a look at it
            losses[seen] += _losses(path, table.labels, fold == unseen)
    logits = np.zeros((len(fold), len(CLASSES)))
    for name in names:
        held = fold == name
        logits[held] = single[name][int(losses[name].argmin())][held]
    total = np.sum([_losses(single[name], table.labels, fold == name) for name in names], axis=0)
    return HeldOut(logits, STRENGTHS[int(total.argmin())])


def temperature(logits: Matrix, labels: Labels) -> float:
    """What divides the logits for the smallest loss (Guo et al. 2017, section 4.2)."""
    return float(min(_TEMPERATURES, key=lambda each: _loss(logits / each, labels)))


def probabilities(table: Table, logits: Matrix) -> Matrix:
    """As a head gives them: calibrated, and no denial lifted."""
    shares = softmax(logits)
    given = [without_lifting(share, denied=bool(no)) for share, no in zip(shares, table.denied, strict=True)]
    return np.array([[each.of(label) for label in CLASSES] for each in given])


def fit_head(table: Table, held: HeldOut, *, basis: Basis) -> Head:
    """Fit on all examples; the temperature and the threshold come from the held-out predictions."""
    everything = np.ones(len(table.labels), np.bool_)
    scaling = Scaling.of(table, everything)
    weights = _weights(scaling.apply(table), table.labels, held.c)
    calm = temperature(held.logits, table.labels)
    shares = probabilities(table, held.logits / calm)
    split = len(table.names)
    rows = [_plain(row) for row in weights.weights]
    mean, scale = _plain(scaling.mean), _plain(scaling.scale)
    fields = tuple(
        Weight(name=name, mean=mean[at], scale=scale[at], weights=_triple(rows[at]))
        for at, name in enumerate(table.names)
    )
    hidden = HiddenWeights(
        mean=tuple(mean[split:]), scale=tuple(scale[split:]), weights=tuple(map(_triple, rows[split:]))
    )
    return Head(
        basis=basis,
        examples=len(table.labels),
        c=held.c,
        temperature=round(calm, _DIGITS),
        threshold=_floor(threshold(shares, table.labels)),
        intercept=_triple(_plain(weights.intercept)),
        fields=fields,
        hidden=hidden,
    )


def _path(table: Table, rows: NDArray[np.bool_]) -> list[Matrix]:
    """Logits of all examples by weights fitted on `rows`, one matrix a strength."""
    x = Scaling.of(table, rows).apply(table)
    rotated, found, start = Rotated.of(x[rows]), [], None
    for c in STRENGTHS:
        start = fit(rotated, table.labels[rows], c=c, classes=len(CLASSES), start=start)
        found.append(unrotated(rotated, start).logits(x))
    return found


def _weights(x: Matrix, labels: Labels, c: float) -> Weights:
    rotated = Rotated.of(x)
    return unrotated(rotated, fit(rotated, labels, c=c, classes=len(CLASSES)))


def _losses(path: Sequence[Matrix], labels: Labels, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([_loss(logits[rows], labels[rows]) * rows.sum() for logits in path])


def _loss(logits: Matrix, labels: Labels) -> float:
    """Mean negative log-likelihood."""
    shares = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(shares, 1e-12)).mean())


def _floor(share: float) -> float:
    """Never above the share itself: the answer that it was found at is to reach it."""
    return math.floor(share * 1e6) / 1e6


def _plain(numbers: NDArray[np.float64]) -> list[float]:
    """As the file keeps them: so many significant digits."""
    return [float(f"{number:.{_DIGITS}g}") for number in numbers]


def _triple(row: Sequence[float]) -> tuple[float, float, float]:
    deny, attest, allow = row
    return deny, attest, allow
