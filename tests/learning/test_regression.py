"""Are the weights those that explain the labels best?"""

import numpy as np
import pytest
from scipy.optimize import minimize

from app.learning.regression import Matrix, Rotated, fit, softmax, unrotated


def _data(rows: int, columns: int) -> tuple[Matrix, np.ndarray]:
    chance = np.random.default_rng(7)
    x = chance.normal(size=(rows, columns)) + 3.0
    labels = (x[:, :3] + chance.normal(size=(rows, 3))).argmax(axis=1)
    return x, labels


@pytest.mark.parametrize(("rows", "columns"), [(120, 5), (30, 50)])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_no_weights_have_a_smaller_loss(rows: int, columns: int, c: float) -> None:
    x, labels = _data(rows, columns)

    def loss(flat: np.ndarray) -> float:
        weights, intercept = flat[:-3].reshape(columns, 3), flat[-3:]
        shares = softmax(x @ weights + intercept)[np.arange(rows), labels]
        return float(-c * np.log(shares).sum() + (weights**2).sum() / 2)

    rotated = Rotated.of(x)
    found = unrotated(rotated, fit(rotated, labels, c=c, classes=3))
    ours = np.append(found.weights.ravel(), found.intercept)
    best = minimize(loss, ours, method="L-BFGS-B", options={"maxiter": 500})
    assert loss(ours) <= best.fun * (1 + 1e-4)


def test_an_earlier_result_as_a_start_ends_at_the_same_weights() -> None:
    x, labels = _data(100, 6)
    rotated = Rotated.of(x)
    cold = fit(rotated, labels, c=3.0, classes=3)
    warm = fit(rotated, labels, c=3.0, classes=3, start=fit(rotated, labels, c=0.1, classes=3))
    np.testing.assert_allclose(warm, cold, atol=1e-3)
