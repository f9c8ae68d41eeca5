"""Probabilities that mean what they say: temperature scaling, and the confidence below which a head should abstain.

Guo et al., "On Calibration of Modern Neural Networks", 2017: one number divides the logits, fitted
on photos that the head did not train on. It changes no decision at a probability of 0.5. Few photos
say little of it, and a fit to them alone makes the log loss worse, on average up to some 500
photos; so a prior holds it near 1 until the photos outweigh it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import THRESHOLD
from catdog_jax.heads.head import OUTPUT
from catdog_jax.reporting import intervals

COVERAGE = 0.99  # of validation photos that a head decides on, rather than abstains from
# The lowest of n confidences is reached by n / (n + 1) of photos: of fewer, by less
MIN_PHOTOS = round(1 / (1 - COVERAGE))
_PRIOR = 0.2  # deviation of the temperature's logarithm from 0: of 10 to 500 photos costs no log loss over 0.0002
_LIMITS = (0.1, 10.0)  # of the search for the temperature


class Calibration(NamedTuple):
    """What the validation photos say of a head.

    Attributes:
      temperature: divides its logits.
      abstain_below: the confidence that `COVERAGE` of the photos reach, once calibrated; None of
        fewer than `MIN_PHOTOS`, which do not tell.
      calibration_photos: how many photos say so.
    """

    temperature: float
    abstain_below: float | None
    calibration_photos: int


def calibrate(logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray | None = None) -> Calibration:
    """Fits the temperature that gives the lowest log loss under the prior, and the confidence to abstain below.

    The logits [N] are of the second class, of validation photos; the labels [N] are 0 or 1.
    `class_weights`, [2], is what photos of each class weigh in the log loss, as they did in the
    training; None for 1 each.
    """
    logits = np.asarray(logits, np.float64)
    positive = np.asarray(labels) > 0.5
    signed = np.where(positive, logits, -logits)
    weights = 1.0 if class_weights is None else np.where(positive, class_weights[1], class_weights[0])
    fitted = optimize.minimize_scalar(
        lambda log_temperature: (
            (weights * np.logaddexp(0, -signed / np.exp(log_temperature))).sum() + (log_temperature / _PRIOR) ** 2 / 2
        ),
        bounds=np.log(_LIMITS),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(fitted.x))
    if len(logits) < MIN_PHOTOS:
        return Calibration(temperature, None, len(logits))
    confidence = 1 / (1 + np.exp(-np.abs(logits) / temperature))
    return Calibration(temperature, float(np.quantile(confidence, 1 - COVERAGE, method="lower")), len(logits))


def warnings(recipe: Mapping[str, Any]) -> list[str]:
    """What the validation photos of a head were too few for, in sentences; none of a head that was trained before.

    The recipe is that of `head.FittedHead`, which holds the fields of `Calibration`.
    """
    if "calibration_photos" not in recipe or recipe["abstain_below"] is not None:
        return []
    return [
        f"{recipe['calibration_photos']} validation photos calibrated the head: too few for a confidence to abstain below, "
        f"which needs {MIN_PHOTOS}; the temperature is held near 1."
    ]


def fold_temperature(params: Params, temperature: float) -> Params:
    """A head whose logits are those of `params` divided by the temperature: its last layer is."""
    last = {
        part: (np.asarray(array, np.float64) / temperature).astype(np.float32) for part, array in params[OUTPUT].items()
    }
    return params | {OUTPUT: last}


def abstention(labels: np.ndarray, probabilities: np.ndarray, abstain_below: float) -> dict[str, float | str]:
    """How good a head is on the photos that it does not abstain from.

    The labels [N] are 0 or 1, the probabilities [N] of class 1, and `abstain_below` is of
    `calibrate`.

    Returns:
      The confidence to abstain below, the coverage (the share of photos that are decided on) and
      their accuracy (0 where there are none); of both the ends of the 95 % interval, and its method.
    """
    decided = np.maximum(probabilities, 1 - probabilities) >= abstain_below
    right = (probabilities >= THRESHOLD) == (np.asarray(labels) > 0.5)
    kept, correct = int(decided.sum()), int(right[decided].sum())
    of_coverage, of_accuracy = intervals.of_share(kept, len(decided)), intervals.of_share(correct, kept)
    return {
        "abstain_below": abstain_below,
        **{"coverage": kept / len(decided), "coverage_low": of_coverage[0], "coverage_high": of_coverage[1]},
        **{"accuracy": correct / max(kept, 1), "accuracy_low": of_accuracy[0], "accuracy_high": of_accuracy[1]},
        "method": "wilson",
    }
