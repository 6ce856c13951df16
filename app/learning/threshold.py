"""From which confidence on are answers right often enough, and how many are there?"""

import numpy as np
from numpy.typing import NDArray

from app.learning.regression import Labels, Matrix

ACCURACY = 0.95
NOTHING = 1.0  # a threshold that nothing reaches
_ANSWERS_AT_LEAST = 20  # fewer, all right, would be luck


def threshold(shares: Matrix, labels: Labels, *, accuracy: float = ACCURACY) -> float:
    """The lowest confidence such that answers of at least that are right in `accuracy` of the cases.

    `shares` (n, classes) are predictions on held-out examples. `NOTHING` where no confidence will do.
    """
    if len(labels) < _ANSWERS_AT_LEAST:
        return NOTHING
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    rate = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(confidence[order]) < 0, True)  # ties are answered together or not at all
    places = np.flatnonzero(ends & (rate >= accuracy))
    places = places[places >= _ANSWERS_AT_LEAST - 1]
    return float(confidence[order][places[-1]]) if len(places) else NOTHING


def answered(shares: Matrix, labels: Labels, fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which examples would be answered, each by a threshold that comes from the other folds."""
    given = np.zeros(len(labels), np.bool_)
    for name in np.unique(fold):
        others = fold != name
        given[~others] = shares[~others].max(axis=1) >= threshold(shares[others], labels[others])
    return given
