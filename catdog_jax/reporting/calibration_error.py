"""How far confidence and accuracy lie apart, in bins of the confidence, and how far chance alone puts them apart."""

from typing import Any

import numpy as np

from catdog_jax.config import EvaluateConfig
from catdog_jax.ranges import check_arguments
from catdog_jax.reporting.predictions import Predictions

BINS = 15
_CHUNK = 2**21  # resamples times rows that are in memory at once: 16 MiB an array


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy, weighted by the photos of a bin.

    Guo et al., "On Calibration of Modern Neural Networks", 2017: the confidence is the probability
    of the more probable class, whatever the threshold, so with two classes it is at least 0.5; the bins ((m - 1) / bins, m /
    bins] have equal widths over (0, 1], of which the lower half stays empty.
    """
    filled = [bin for bin in calibration_bins(labels, probabilities, bins) if bin["count"]]
    return sum(bin["count"] * abs(bin["accuracy"] - bin["confidence"]) for bin in filled) / len(labels)


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """The bins of the calibration error that confidences can fall into: those that reach above 0.5.

    Probabilities are judged here, not decisions: a photo counts as right where its class is the more
    probable one, whatever the threshold of the head.

    Returns:
      For each bin its limits (low, high), its count of photos, and their mean confidence and
      accuracy, None in an empty bin.
    """
    predictions = Predictions.checked(labels, probabilities)
    confidence, bin_of = _binned(predictions.probabilities, bins)
    correct = predictions.positive == predictions.labels
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

    The probabilities [N] are of class 1; labels are drawn `resamples` times, and the same seed
    gives the same figure.

    Raises:
      UsageError: `resamples` is below 1.
    """
    check_arguments(EvaluateConfig, bootstrap=resamples)
    n = len(probabilities)
    generator, step = np.random.default_rng(seed), max(1, _CHUNK // n)
    confidence, bin_of = _binned(probabilities, BINS)
    members, errors = np.eye(BINS)[bin_of], []
    for start in range(0, resamples, step):
        right = generator.random((min(step, resamples - start), n)) < confidence
        errors.append(np.abs((confidence - right) @ members).sum(axis=1) / n)
    return float(np.quantile(np.concatenate(errors), 0.95))


def _binned(probabilities: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The confidence in the predicted class and the bin that it falls into, each [N]."""
    confidence = np.maximum(probabilities, 1 - probabilities)
    return confidence, np.digitize(confidence, np.arange(1, bins) / bins, right=True)
