"""Probabilities that mean what they say: temperature scaling, and the confidence below which a head should abstain.

Guo et al., "On Calibration of Modern Neural Networks", 2017: one number divides the logits, fitted on photos that the head
did not train on. It changes no decision at a probability of 0.5.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

from catdog_jax.config import THRESHOLD
from catdog_jax.head import OUTPUT
from catdog_jax.vgg16 import Params

COVERAGE = 0.99  # of validation photos that a head judges, rather than abstains from
MIN_PHOTOS = 200  # below it the temperature would be noise
_LIMITS = (0.25, 4.0)  # of the temperature; it bounds the confidence where no validation photo is judged wrongly


class Calibration(NamedTuple):
    """What the validation photos say of a head.

    Attributes:
      temperature: divides its logits; 1.0 where there are fewer than `MIN_PHOTOS`.
      abstain_below: the confidence that `COVERAGE` of the photos reach, once calibrated.
    """

    temperature: float
    abstain_below: float


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fits the temperature that gives the lowest log loss, and the confidence to abstain below.

    Args:
      logits: [N] of the second class, of validation photos.
      labels: [N], 0 or 1.
    """
    logits = np.asarray(logits, np.float64)
    signed = np.where(np.asarray(labels) > 0.5, logits, -logits)
    temperature = 1.0
    if len(logits) >= MIN_PHOTOS:
        found = optimize.minimize_scalar(
            lambda log_temperature: np.logaddexp(0, -signed / np.exp(log_temperature)).mean(),
            bounds=np.log(_LIMITS),
            method="bounded",
            options={"xatol": 1e-6},
        )
        temperature = float(np.exp(found.x))
    confidence = 1 / (1 + np.exp(-np.abs(logits) / temperature))
    return Calibration(temperature, float(np.quantile(confidence, 1 - COVERAGE, method="lower")))


def fold_temperature(params: Params, temperature: float) -> Params:
    """A head whose logits are those of `params` divided by the temperature: its last layer is."""
    last = {part: (np.asarray(array, np.float64) / temperature).astype(np.float32) for part, array in params[OUTPUT].items()}
    return params | {OUTPUT: last}


def abstention(labels: np.ndarray, probabilities: np.ndarray, abstain_below: float) -> dict[str, float]:
    """How good a head is on the photos that it does not abstain from.

    Args:
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.
      abstain_below: of `calibrate`.

    Returns:
      The confidence to abstain below, the coverage (the share of photos that are judged) and their accuracy (0 where none is).
    """
    judged = np.maximum(probabilities, 1 - probabilities) >= abstain_below
    right = (probabilities >= THRESHOLD) == (np.asarray(labels) > 0.5)
    accuracy = float(right[judged].mean()) if judged.any() else 0.0
    return {"abstain_below": abstain_below, "coverage": float(judged.mean()), "accuracy": accuracy}
