"""Cross-validated heads against scikit-learn's, confident learning against the paper's definition written out."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics

from catdog_jax.auditing import label_errors, out_of_fold

pytestmark = pytest.mark.lenient_types


def rows(n: int = 300, columns: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return rng.normal(size=(n, columns)) + 0.7 * labels[:, None] * (np.arange(columns) < 5), labels


def test_out_of_fold_probabilities_are_those_of_scikit_learn():
    x, labels = rows()
    fold = out_of_fold.folds(len(x), [], 0)
    found = out_of_fold.out_of_fold(x, labels, fold)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    losses = {}
    for l2 in out_of_fold._PENALTIES:
        expected = np.zeros(len(x))
        for one in range(out_of_fold.FOLDS):
            inside = fold != one
            c = 1 / (2 * l2 * inside.sum())  # scikit-learn sums the losses and halves the squares
            model = sklearn.linear_model.LogisticRegression(C=c, max_iter=1000, tol=1e-8).fit(
                scaled[inside], labels[inside]
            )
            expected[~inside] = model.predict_proba(scaled[~inside])[:, 1]
        losses[l2] = sklearn.metrics.log_loss(labels, expected)
        if l2 == found.l2:
            np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
    assert found.l2 == min(losses, key=losses.__getitem__)


def by_the_paper(labels: np.ndarray, probabilities: np.ndarray) -> tuple[list[float], list[bool]]:
    """Equations 1 and 2 of Northcutt et al. (2021), row by row."""
    of = [[1 - p, p] for p in probabilities]
    thresholds = []
    for j in (0, 1):
        own = [row[j] for row, label in zip(of, labels, strict=True) if label == j]
        thresholds.append(sum(own) / len(own))
    off_diagonal = []
    for row, label in zip(of, labels, strict=True):
        over = [j for j in (0, 1) if row[j] >= thresholds[j]]
        off_diagonal.append(bool(over) and max(over, key=lambda j: row[j]) != label)
    return thresholds, off_diagonal


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
def test_confident_learning_is_the_papers(sharpness):
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 500)
    given = np.where(rng.random(500) < 0.1, 1 - true, true)
    probabilities = 1 / (1 + np.exp(-sharpness * (2 * true - 1 + rng.normal(size=500))))
    thresholds, off_diagonal = by_the_paper(given, probabilities)
    found = label_errors.confident_learning(given, probabilities)
    np.testing.assert_allclose(found.thresholds, thresholds)
    assert found.suspect.tolist() == off_diagonal
    assert 0 < found.suspect.sum() < 250
    np.testing.assert_allclose(found.other, np.where(given == 1, 1 - probabilities, probabilities))


def test_folds_are_even_and_keep_copies_together():
    groups = [[0, 7, 50], [3, 4]]
    fold = out_of_fold.folds(100, groups, 0)
    assert all(len(set(fold[group])) == 1 for group in groups)
    assert np.bincount(out_of_fold.folds(100, [], 0)).tolist() == [20] * out_of_fold.FOLDS
