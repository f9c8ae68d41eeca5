"""Metrics of a binary classifier by scikit-learn, its calibration, and bootstrap intervals.

The positive class is class 1 throughout; a row is judged positive at a probability of `THRESHOLD` or more.
"""

from typing import Any

import numpy as np
import sklearn.metrics

from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError, UsageError

BINS = 15
_CHUNK = 2**21  # resamples times rows that `bootstrap` holds at once: 16 MiB an array


def metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The metrics of a binary classifier, by scikit-learn.

    Args:
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.

    Returns:
      accuracy, precision, recall, f1 (the last three of class 1, and 0 where nothing is judged positive), roc_auc, log_loss
      (natural logarithm; probabilities clipped to 2.2e-16 from 0 and 1), brier, ece (`expected_calibration_error`).

    Raises:
      CatdogError: the rows do not match, a probability is outside [0, 1], or there is only one class.
    """
    labels, probabilities = _checked(labels, probabilities)
    judged = probabilities >= THRESHOLD
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(labels, judged)),
        "precision": float(sklearn.metrics.precision_score(labels, judged, zero_division=0)),
        "recall": float(sklearn.metrics.recall_score(labels, judged)),
        "f1": float(sklearn.metrics.f1_score(labels, judged, zero_division=0)),
        "roc_auc": float(sklearn.metrics.roc_auc_score(labels, probabilities)),
        "log_loss": float(sklearn.metrics.log_loss(labels, probabilities)),
        "brier": float(sklearn.metrics.brier_score_loss(labels, probabilities)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def with_intervals(labels: np.ndarray, probabilities: np.ndarray, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """`metrics` with the 95 % intervals of `bootstrap`: {name: {"value", "low", "high"}}."""
    intervals = bootstrap(labels, probabilities, resamples, seed)
    values = metrics(labels, probabilities)
    return {name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]} for name, value in values.items()}


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy, weighted by the photos of a bin.

    Guo et al., "On Calibration of Modern Neural Networks", 2017: the confidence is the probability of the predicted class,
    so with two classes it is at least 0.5; the bins ((m - 1) / bins, m / bins] have equal widths over (0, 1], of which the
    lower half stays empty.
    """
    filled = [one for one in calibration_bins(labels, probabilities, bins) if one["count"]]
    return sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in filled) / len(labels)


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """The bins of the calibration error that confidences can fall into: those that reach above 0.5.

    Returns:
      For each bin its limits (low, high), its count of photos, and their mean confidence and accuracy, None in an empty bin.
    """
    labels, probabilities = _checked(labels, probabilities)
    confidence, correct, bin_of = _binned(labels, probabilities, bins)
    result = []
    for index in range(bins // 2, bins):
        inside = bin_of == index
        count = int(inside.sum())
        result.append(
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "count": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": float(correct[inside].mean()) if count else None,
            }
        )
    return result


def bootstrap(
    labels: np.ndarray, probabilities: np.ndarray, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of `metrics` (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993).

    The N rows are drawn N times with replacement, without stratification: the share of a class varies from resample to
    resample, as it would if the photos were collected anew. A resample that holds one class only, for which the ROC AUC does
    not exist, is drawn again. Without a mistake the interval of the accuracy is [1, 1]: resampling cannot know better.

    Args:
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.
      resamples: how many; 2,000 put the ends of an interval within a few per cent of its width.
      seed: the same seed gives the same intervals.

    Returns:
      For each metric the ends of its interval.

    Raises:
      UsageError: `resamples` is below 1.
      CatdogError: see `metrics`.
    """
    if resamples < 1:
        raise UsageError(f"--bootstrap: expected at least 1 resample, found {resamples}. Leave it out for 2000.")
    labels, probabilities = _checked(labels, probabilities)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(labels))
    chunks = [
        metrics_of_counts(_draw(generator, labels, min(step, resamples - start)), labels, probabilities)
        for start in range(0, resamples, step)
    ]
    ends = {name: np.percentile(np.concatenate([chunk[name] for chunk in chunks]), (2.5, 97.5)) for name in chunks[0]}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def metrics_of_counts(counts: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """`metrics` of many resamples at once, as sums over rows: one matrix product for all but the ROC AUC.

    Args:
      counts: float [R, N], how often a resample holds each row; every resample holds both classes.
      labels: int [N].
      probabilities: float64 [N].

    Returns:
      For each metric [R].
    """
    judged = probabilities >= THRESHOLD
    clipped = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), np.finfo(np.float64).eps, 1)
    confidence, correct, bin_of = _binned(labels, probabilities, BINS)
    gaps = np.eye(BINS)[bin_of] * (confidence - correct)[:, None]
    columns = [correct, -np.log(clipped), (probabilities - labels) ** 2, judged & (labels == 1), judged, labels]
    sums = counts @ np.column_stack([*columns, gaps])
    n = counts.sum(axis=1)
    right, log_loss, brier, true_positives, judged_positives, positives = sums[:, :6].T
    return {
        "accuracy": right / n,
        "precision": true_positives / np.maximum(judged_positives, 1),
        "recall": true_positives / positives,
        "f1": 2 * true_positives / (judged_positives + positives),
        "roc_auc": _roc_auc(counts, labels, probabilities),
        "log_loss": log_loss / n,
        "brier": brier / n,
        "ece": np.abs(sums[:, 6:]).sum(axis=1) / n,
    }


def _roc_auc(counts: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The share of pairs of a positive and a negative row that are in order, a tie counting half: [R, N] -> [R]."""
    order = np.argsort(probabilities)
    _, starts = np.unique(probabilities[order], return_index=True)
    positive, negative = (np.add.reduceat((counts * (labels == one))[:, order], starts, axis=1) for one in (1, 0))
    below = np.cumsum(negative, axis=1) - negative / 2
    return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def _draw(generator: np.random.Generator, labels: np.ndarray, count: int) -> np.ndarray:
    """Draws resamples that hold both classes, as counts of rows: float64 [count, N]."""
    n = len(labels)
    rows = generator.integers(0, n, (count, n))
    while (poor := np.flatnonzero(np.ptp(labels[rows], axis=1) == 0)).size:
        rows[poor] = generator.integers(0, n, (poor.size, n))
    flat = rows + n * np.arange(count)[:, None]
    return np.bincount(flat.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def _binned(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The confidence in the predicted class, whether it is right, and the bin of the confidence, each [N]."""
    judged = probabilities >= THRESHOLD
    confidence = np.where(judged, probabilities, 1 - probabilities)
    return confidence, judged == (labels == 1), np.digitize(confidence, np.arange(1, bins) / bins, right=True)


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels).astype(np.int64), np.asarray(probabilities, np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise CatdogError(
            f"probabilities: expected one for each of {labels.shape} labels, found {probabilities.shape}. Judge again."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN fails too
        raise CatdogError("probabilities: expected numbers from 0 to 1, found others or NaN. Train the head again.")
    if set(np.unique(labels)) != {0, 1}:
        found = ", ".join(map(str, np.unique(labels))) or "none"
        raise CatdogError(f"labels: expected both classes, 0 and 1, found {found} in {len(labels)} rows. Judge photos of both.")
    return labels, probabilities
