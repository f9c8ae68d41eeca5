"""Metrics of a binary classifier by scikit-learn, its calibration, their intervals, and in words what few photos cannot tell.

The positive class is class 1 throughout; a row is judged positive at a probability of `THRESHOLD`
or more.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import sklearn.metrics

from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.reporting import intervals

BINS = 15
MIN_MISTAKES = 10  # below it the log loss has no interval: few photos decide it, and the next one may double it
WIDE = 0.05  # an interval wider than this cannot tell a mistake in twenty from none, and is put into words
_CHUNK = 2**21  # resamples times rows that are in memory at once: 16 MiB an array


def metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The metrics of a binary classifier, by scikit-learn.

    Args:
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.

    Returns:
      accuracy, precision, recall, f1 (the last three of class 1, and 0 where nothing is judged
      positive), roc_auc, log_loss
      (natural logarithm; probabilities clipped to 2.2e-16 from 0 and 1), brier, ece
      (`expected_calibration_error`).

    Raises:
      CatdogError: the rows do not match, a probability is outside [0, 1], or there is only one
        class.
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


def with_intervals(
    labels: np.ndarray, probabilities: np.ndarray, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """`metrics` with 95 % intervals, each by the method that holds for it.

    Args:
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.
      resamples: for `calibration_error_by_chance`.
      seed: for the same.

    Returns:
      {name: {"value", "low", "high", "method" (one of `intervals.METHODS`)}}. The ends are None
      where no interval holds: of
      the log loss below `MIN_MISTAKES` mistakes, and of the calibration error, which has
      "by_chance" instead.

    Raises:
      CatdogError: see `metrics`.
    """
    values = metrics(labels, probabilities)
    labels, probabilities = _checked(labels, probabilities)
    (_, false_positive), (false_negative, positive) = confusion(labels, probabilities)
    n, mistakes = len(labels), false_positive + false_negative
    losses = -np.log(np.clip(np.where(labels == 1, probabilities, 1 - probabilities), np.finfo(np.float64).eps, 1))
    found: dict[str, tuple[str, intervals.Ends | None]] = {
        "accuracy": ("wilson", intervals.of_share(n - mistakes, n)),
        "precision": ("wilson", intervals.of_share(positive, positive + false_positive)),
        "recall": ("wilson", intervals.of_share(positive, positive + false_negative)),
        "f1": ("wilson-jaccard", intervals.of_f1(positive, mistakes)),
        "roc_auc": ("wilson-effective", intervals.of_roc_auc(labels, probabilities)),
        "log_loss": ("log-normal", intervals.of_log_loss(losses) if mistakes >= MIN_MISTAKES else None),
        "brier": ("wilson-mean", intervals.of_mean(values["brier"], n)),
        "ece": ("by-chance", None),
    }
    result: dict[str, dict[str, Any]] = {}
    for name, (method, ends) in found.items():
        low, high = ends or (None, None)
        result[name] = {"value": values[name], "low": low, "high": high, "method": method}
    result["ece"]["by_chance"] = calibration_error_by_chance(probabilities, resamples, seed)
    return result


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> list[list[int]]:
    """How many photos of each class (rows) are judged to be of each class (columns)."""
    found = sklearn.metrics.confusion_matrix(labels, probabilities >= THRESHOLD, labels=[0, 1]).tolist()
    return cast(list[list[int]], found)


def warnings(counts: list[list[int]], classes: Sequence[str], split: str) -> list[str]:
    """What so few photos cannot tell, in sentences; none where they tell enough.

    A class is named where its interval is twice as wide as that of all photos: where it has much
    fewer than half of them.

    Args:
      counts: of `confusion`.
      classes: their two names.
      split: which photos they are.
    """
    n, mistakes = sum(map(sum, counts)), counts[0][1] + counts[1][0]
    width = np.ptp(intervals.of_share(mistakes, n))
    found = [_in_words(f"{split} photos", n, mistakes)] if width > WIDE else []
    for one, name in enumerate(classes):
        n, mistakes = sum(counts[one]), counts[one][1 - one]
        if np.ptp(intervals.of_share(mistakes, n)) > 2 * max(width, WIDE):
            found.append(_in_words(f"{split} photos of {name}", n, mistakes))
    return found


def _in_words(what: str, n: int, mistakes: int) -> str:
    low, high = intervals.of_share(mistakes, n)
    among = f"{mistakes} mistake{'s' * (mistakes > 1)}" if mistakes else "no mistake"
    may = f"may be anything from {100 * low:.0f} to" if mistakes else "may still be up to"
    return f"{n} {what}: with {among} among them, the share of mistakes {may} {100 * high:.0f} %."


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy, weighted by the photos of a bin.

    Guo et al., "On Calibration of Modern Neural Networks", 2017: the confidence is the probability
    of the predicted class, so with two classes it is at least 0.5; the bins ((m - 1) / bins, m /
    bins] have equal widths over (0, 1], of which the lower half stays empty.
    """
    filled = [one for one in calibration_bins(labels, probabilities, bins) if one["count"]]
    return sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in filled) / len(labels)


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """The bins of the calibration error that confidences can fall into: those that reach above 0.5.

    Returns:
      For each bin its limits (low, high), its count of photos, and their mean confidence and
      accuracy, None in an empty bin.
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


def calibration_error_by_chance(probabilities: np.ndarray, resamples: int = 2000, seed: int = 0) -> float:
    """What the calibration error of a perfectly calibrated model stays below, 95 times in 100, on as many photos.

    The calibration error is never below 0, so chance alone raises it, and resampled photos raise it
    twice: a bootstrap interval may lie above the value. Drawing labels from the probabilities
    themselves instead (consistency resampling, Bröcker & Smith, "Increasing the Reliability of
    Reliability Diagrams", 2007) says what chance does.

    Args:
      probabilities: [N], of class 1.
      resamples: how often labels are drawn.
      seed: the same seed gives the same figure.

    Raises:
      UsageError: `resamples` is below 1.
    """
    if resamples < 1:
        raise UsageError(f"--bootstrap: expected at least 1 resample, found {resamples}. Leave it out for 2000.")
    n = len(probabilities)
    generator, step = np.random.default_rng(seed), max(1, _CHUNK // n)
    confidence, _, bin_of = _binned(np.zeros(n), probabilities, BINS)
    members, errors = np.eye(BINS)[bin_of], []
    for start in range(0, resamples, step):
        right = generator.random((min(step, resamples - start), n)) < confidence
        errors.append(np.abs((confidence - right) @ members).sum(axis=1) / n)
    return float(np.quantile(np.concatenate(errors), 0.95))


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
        raise CatdogError(
            f"labels: expected both classes, 0 and 1, found {found} in {len(labels)} rows. Judge photos of both."
        )
    return labels, probabilities
