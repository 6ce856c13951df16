"""Which weights explain the labels best, at a given strength of the penalty?"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

_STEPS = 2000
_STILL = 1e-4  # relative change of the weights at which they count as found


@dataclass(frozen=True, slots=True)
class Weights:
    """Multinomial logistic regression: log-odds `x @ weights + intercept`, (rows, classes)."""

    weights: Matrix
    intercept: NDArray[np.float64]

    def logits(self, x: Matrix) -> Matrix:
        return x @ self.weights + self.intercept


@dataclass(frozen=True, slots=True)
class Rotated:
    """Rows in the coordinates of their singular vectors, where the bound below is diagonal."""

    rows: Matrix
    singular: NDArray[np.float64]
    directions: Matrix
    mean: NDArray[np.float64]

    @classmethod
    def of(cls, x: Matrix) -> Self:
        mean = x.mean(axis=0)
        left, singular, directions = np.linalg.svd(x - mean, full_matrices=False)
        return cls(left * singular, singular, directions, mean)


def fit(x: Rotated, labels: Labels, *, c: float, classes: int, start: Matrix | None = None) -> Matrix:
    """Minimise `c` * negative log-likelihood + half the squared weights; the intercept is not penalised.

    Returns (directions + 1, classes), the intercept last; `start` is an earlier result. Steps are those of
    the fixed bound on the Hessian (Boehning 1992, section 3: at most half of X'X for each class), with
    Nesterov's acceleration, restarted where it turns back (O'Donoghue and Candes 2015).
    """
    one = np.ones((len(x.rows), 1))
    rows, targets = np.hstack([x.rows, one]), np.eye(classes)[labels]
    penalty = np.append(np.ones(len(x.singular)), 1e-9)[:, None]
    bound = 0.5 * c * np.append(x.singular**2, len(rows))[:, None] + penalty
    weights = np.zeros_like(bound @ np.ones((1, classes))) if start is None else start
    ahead, speed = weights, 1.0
    for _ in range(_STEPS):
        gradient = c * rows.T @ (softmax(rows @ ahead) - targets) + penalty * ahead
        found = ahead - gradient / bound
        moved = found - weights
        if np.vdot(gradient, moved) > 0:
            ahead, speed = weights, 1.0
            continue
        faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        ahead, speed, weights = found + (speed - 1) / faster * moved, faster, found
        if np.abs(moved).max() <= _STILL * max(np.abs(found).max(), _STILL):
            break
    return weights


def unrotated(x: Rotated, weights: Matrix) -> Weights:
    """The weights for rows as they were before."""
    plain = x.directions.T @ weights[:-1]
    return Weights(plain, weights[-1] - x.mean @ plain)


def softmax(logits: Matrix) -> Matrix:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
