"""Linear heads, fitted exactly: against scikit-learn, which minimises the same objective by another algorithm."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from catdog_jax.heads import convex
from catdog_jax.heads.head import OUTPUT

pytestmark = pytest.mark.lenient_types


def clouds(rows: int, columns: int, apart: float = 0.5, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of points, of which so many are of the second."""
    rng = np.random.default_rng(0)
    y = (np.arange(rows) < round(share * rows)).astype(np.float64)
    return rng.standard_normal((rows, columns)) / np.sqrt(columns) + apart * y[:, None] / np.sqrt(columns), y


def expected(x: np.ndarray, y: np.ndarray, weights: np.ndarray, l2: float) -> np.ndarray:
    """scikit-learn's kernel and, last, its bias: C sum(w loss) + |kernel|^2 / 2, with C = 1 / (2 l2 sum(w))."""
    seen = weights > 0
    model = LogisticRegression(C=1 / (2 * l2 * weights.sum()), tol=1e-10, max_iter=10_000, solver="newton-cg")
    model.fit(x[seen], y[seen], weights[seen])
    return np.append(model.coef_[0], model.intercept_)


def coefficients(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    layer = convex.fit(x, y, weights, penalties)[OUTPUT]
    assert layer["kernel"].dtype == np.float64
    assert layer["kernel"].shape == (len(penalties), x.shape[1], 1)
    return np.concatenate([layer["kernel"][:, :, 0], layer["bias"]], axis=1)


@pytest.mark.parametrize(
    ("rows", "columns", "apart", "share"),
    [
        pytest.param(60, 8, 0.5, 0.5, id="more rows"),
        pytest.param(30, 90, 0.5, 0.5, id="more columns"),
        pytest.param(40, 6, 20.0, 0.5, id="separable"),
        pytest.param(88, 5, 2.0, 1 / 11, id="ten to one"),
    ],
)
def test_heads_of_other_weights_penalties_and_folds_are_those_of_scikit_learn(rows, columns, apart, share):
    x, y = clouds(rows, columns, apart, share)
    balanced = np.where(y == 1, rows / (2 * y.sum()), rows / (2 * (rows - y.sum())))
    folds = [np.where(np.arange(rows) % 4 == fold, 0.0, 1.0) for fold in range(2)]
    weights = np.stack([np.ones(rows), np.ones(rows), balanced, *folds, folds[0] * balanced])
    penalties = np.array([1e-3, 1e-1, 1e-3, 1e-3, 1e-2, 1e-3])
    found = coefficients(x, y, weights, penalties)
    for head, weight, l2 in zip(found, weights, penalties, strict=True):
        wanted = expected(x, y, weight, l2)
        np.testing.assert_allclose(head, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_a_weak_penalty_on_separable_rows_ends_at_its_minimum():
    x, y = clouds(20, 200, 3.0)
    (head,) = coefficients(x, y, np.ones((1, 20)), np.array([1e-9]))
    logits = x @ head[:-1] + head[-1]
    slope = x.T @ (1 / (1 + np.exp(-logits)) - y) / 20 + 2e-9 * head[:-1]
    assert np.abs(slope).max() < 1e-7
    assert (np.where(y == 1, logits, -logits) > 5).all()


def test_rows_of_weight_zero_leave_no_trace():
    x, y = clouds(40, 5)
    weight = (np.arange(40) % 5 > 0).astype(float)
    other = np.where(weight[:, None] > 0, x, 1e3)
    found, again = (coefficients(rows, y, weight[None], np.array([0.01])) for rows in (x, other))
    np.testing.assert_allclose(found, again, rtol=1e-6)


@pytest.mark.parametrize(("rows", "columns", "fits"), [(9_000, 512, True), (50, 25_088, True), (9_000, 25_088, False)])
def test_what_is_too_large_both_ways_does_not_fit(rows, columns, fits):
    assert convex.fits(rows, columns) is fits
