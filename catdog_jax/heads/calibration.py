"""What validation photos settle: the temperature, the decision threshold, and the confidence below which to abstain.

Guo et al., "On Calibration of Modern Neural Networks", 2017: one number divides the logits, fitted
on photos that the head did not train on, so that probabilities mean what they say. It changes no
decision at a probability of 0.5. Few photos say little of it, and a fit to them alone makes the log
loss worse, on average up to some 500 photos; so a prior holds it near 1 until the photos outweigh
it. A linear head that is fitted exactly is shrunk by its penalty, the more the fewer photos, and
sure of too little before calibration; its prior is wide.

The threshold is chosen after that, on the calibrated probabilities of the same photos.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import THRESHOLD, HeadSettings
from catdog_jax.errors import UsageError
from catdog_jax.heads.head import OUTPUT
from catdog_jax.ranges import check_arguments
from catdog_jax.reporting import intervals

COVERAGE = 0.99  # of validation photos that a head decides on, rather than abstains from
# The lowest of n confidences is reached by n / (n + 1) of photos: of fewer, by less
MIN_PHOTOS = round(1 / (1 - COVERAGE))
_PRIOR = 0.2  # deviation of the temperature's logarithm from 0: of 10 to 500 photos costs no log loss over 0.0002
# The same of exact heads, which want temperatures far below 1. Of 100 photos the log loss falls from 0.136 to 0.076 by it:
# linear and folds in artifacts/small/avg+max.
_EXACT_PRIOR = 1.0
_LIMITS = (0.1, 10.0)  # of the search for the temperature
FEW = 20  # photos of the smaller class: of fewer, the next ones may well choose another threshold
_THRESHOLDS = (0.001, 0.999)  # that are chosen from: beyond them a head would say one class of everything


class Calibration(NamedTuple):
    """What the validation photos say of a head.

    Attributes:
      temperature: divides its logits.
      abstain_below: the confidence that `COVERAGE` of the photos reach, once calibrated; None of
        fewer than `MIN_PHOTOS`, which do not tell. The confidence is the probability of the class
        that is decided for.
      calibration_photos: how many photos say so.
      threshold: the probability of the second class from which on a photo is of that class.
      decide_by: what it was chosen by; empty where nobody chose: it is 0.5, or was given.
      costs: what it was chosen by, where that is the costs.
      smaller_class: how many of the photos are of the class that has fewer.
    """

    temperature: float
    abstain_below: float | None
    calibration_photos: int
    threshold: float = THRESHOLD
    decide_by: str = ""
    costs: tuple[float, float] | None = None
    smaller_class: int = 0

    def recipe(self) -> dict[str, Any]:
        """What the recipe of a head keeps of it: of the threshold only where somebody asked for another than 0.5."""
        kept = {name: getattr(self, name) for name in ("temperature", "abstain_below", "calibration_photos")}
        if self.decide_by:
            kept |= {"threshold": self.threshold, "decide_by": self.decide_by, "threshold_photos": self.smaller_class}
        elif self.threshold != THRESHOLD:
            kept["threshold"] = self.threshold
        return kept if self.costs is None else kept | {"costs": list(self.costs)}


def check_decision(decide_by: str, threshold: float | None, costs: tuple[float, float] | None) -> None:
    """Checks that the settings of the decision are in their ranges and go together.

    Raises:
      TypeError: a value is no number.
      UsageError: one is out of its range, or they contradict each other.
    """
    check_arguments(HeadSettings, decide_by=decide_by, threshold=threshold, costs=costs)
    if threshold is not None and decide_by != "half":
        raise UsageError(
            f"--threshold: expected none with --decide-by {decide_by}, which chooses it, found {threshold}. "
            "Leave one of the two out."
        )
    if decide_by == "costs" and costs is None:
        raise UsageError(
            "--costs: expected two numbers with --decide-by costs, found none. Say what a mistake on a photo of the first "
            "class costs, and one on a photo of the second, such as 1 5."
        )
    if decide_by != "costs" and costs is not None:
        raise UsageError(
            f"--costs: expected --decide-by costs beside it, found --decide-by {decide_by}. Add it, or leave --costs out."
        )
    if costs is not None and (len(costs) != 2 or not all(map(math.isfinite, costs))):
        raise UsageError(f"--costs: expected two finite numbers, found {costs}. Name one for each class.")


def calibrate(
    logits: np.ndarray,
    labels: np.ndarray,
    decide_by: str = "half",
    threshold: float | None = None,
    costs: tuple[float, float] | None = None,
    class_weights: np.ndarray | None = None,
    exact: bool = False,
) -> Calibration:
    """Fits the temperature that gives the lowest log loss under the prior, then the threshold and the level to abstain at.

    Args:
      logits: [N], of the second class, of photos that the head was not trained on.
      labels: [N], 0 or 1.
      decide_by: what the threshold is chosen by on these photos, see `best_threshold`; "half" keeps
        0.5.
      threshold: the threshold itself, in place of a choice.
      costs: of a mistake on a photo of the first class, and on one of the second.
      class_weights: [2], what photos of each class weigh in the log loss, as they did in the
        training; None for 1 each.
      exact: whether the head is linear and was fitted exactly, by `solver` newton.

    Raises:
      UsageError: as `check_decision`.
    """
    check_decision(decide_by, threshold, costs)
    logits = np.asarray(logits, np.float64)
    positive = np.asarray(labels) > 0.5
    signed = np.where(positive, logits, -logits)
    weights = 1.0 if class_weights is None else np.where(positive, class_weights[1], class_weights[0])
    deviation = _EXACT_PRIOR if exact else _PRIOR
    fitted = optimize.minimize_scalar(
        lambda log_temperature: (
            (weights * np.logaddexp(0, -signed / np.exp(log_temperature))).sum()
            + (log_temperature / deviation) ** 2 / 2
        ),
        bounds=np.log(_LIMITS),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(fitted.x))
    positive = np.asarray(labels) > 0.5
    chosen = THRESHOLD if threshold is None else float(threshold)
    if decide_by != "half":
        chosen = best_threshold(positive, special.expit(logits / temperature), decide_by, costs)
    told = Calibration(
        temperature=temperature,
        abstain_below=None,
        calibration_photos=len(logits),
        threshold=chosen,
        decide_by="" if decide_by == "half" else decide_by,
        costs=costs,
        smaller_class=int(min(positive.sum(), (~positive).sum())),
    )
    if len(logits) < MIN_PHOTOS:
        return told
    second = logits / temperature >= math.log(chosen / (1 - chosen))
    confidence = 1 / (1 + np.exp(np.where(second, -logits, logits) / temperature))
    return told._replace(abstain_below=float(np.quantile(confidence, 1 - COVERAGE, method="lower")))


def best_threshold(
    labels: np.ndarray, probabilities: np.ndarray, decide_by: str, costs: tuple[float, float] | None = None
) -> float:
    """The threshold that is best on some photos.

    Between two neighbouring probabilities all thresholds decide alike, so one in the middle of each
    gap is tried, and the one that needs no photos: 0.5, or for costs the cost of a mistake on the
    first class over that of both. Of equally good ones the nearest to that one is taken.

    Args:
      labels: [N], 0 or 1, or bool.
      probabilities: [N], of class 1, calibrated.
      decide_by: "accuracy", "balanced_accuracy" or "f1" (of the second class), of which the highest
        is the best, or "costs", of which the lowest sum is.
      costs: of a mistake on a photo of the first class, and on one of the second.

    Example:
      >>> best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9]), "accuracy")
      0.25
    """
    first, second = (np.sort(probabilities[np.asarray(labels, bool) == label]) for label in (False, True))
    prior = THRESHOLD if costs is None else costs[0] / (costs[0] + costs[1])
    edges = np.concatenate([[0.0], np.unique(probabilities), [1.0]])
    tried = np.clip(np.append((edges[1:] + edges[:-1]) / 2, prior), *_THRESHOLDS)
    false_positive = len(first) - np.searchsorted(first, tried, "left")
    false_negative = np.searchsorted(second, tried, "left")
    true_positive = len(second) - false_negative
    scores = {
        "accuracy": -1.0 * (false_positive + false_negative),
        "balanced_accuracy": -false_positive / max(len(first), 1) - false_negative / max(len(second), 1),
        "f1": 2 * true_positive / np.maximum(2 * true_positive + false_positive + false_negative, 1),
        "costs": -np.dot([1.0, 1.0] if costs is None else costs, np.stack([false_positive, false_negative])),
    }[decide_by]
    best = tried[scores >= scores.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - prior))])


def warnings(recipe: Mapping[str, Any]) -> list[str]:
    """What the validation photos of a head were too few for, in sentences; none of a head that was trained before.

    The recipe is that of `head.FittedHead`, which holds the fields of `Calibration`.
    """
    sentences = []
    if "calibration_photos" in recipe and recipe["abstain_below"] is None:
        what = "cross-validated" if recipe.get("folds") else "validation"
        rough = "rough" if recipe.get("solver") == "newton" else "held near 1"
        sentences.append(
            f"{recipe['calibration_photos']} {what} photos calibrated the head: too few for a confidence to abstain "
            f"below, which needs {MIN_PHOTOS}; the temperature is {rough}."
        )
    if recipe.get("threshold_photos", FEW) < FEW:
        sentences.append(
            f"The threshold {recipe['threshold']:.3g} was chosen by {recipe['decide_by'].replace('_', ' ')} on photos of which "
            f"only {recipe['threshold_photos']} are of the smaller class: below {FEW} it is mostly chance, and other photos "
            "would choose another."
        )
    return sentences


def fold_temperature(params: Params, temperature: float) -> Params:
    """A head whose logits are those of `params` divided by the temperature: its last layer is."""
    last = {
        part: (np.asarray(array, np.float64) / temperature).astype(np.float32) for part, array in params[OUTPUT].items()
    }
    return params | {OUTPUT: last}


def abstention(
    labels: np.ndarray, probabilities: np.ndarray, abstain_below: float, threshold: float = THRESHOLD
) -> dict[str, float | str]:
    """How good a head is on the photos that it does not abstain from.

    The labels [N] are 0 or 1, the probabilities [N] of class 1, `abstain_below` and the
    threshold are of `calibrate`.

    Returns:
      The confidence to abstain below, the coverage (the share of photos that are decided on) and
      their accuracy (0 where there are none); of both the ends of the 95 % interval, and its method.
    """
    second = probabilities >= threshold
    decided = np.where(second, probabilities, 1 - probabilities) >= abstain_below
    right = second == (np.asarray(labels) > 0.5)
    kept, correct = int(decided.sum()), int(right[decided].sum())
    of_coverage, of_accuracy = intervals.of_share(kept, len(decided)), intervals.of_share(correct, kept)
    return {
        "abstain_below": abstain_below,
        **{"coverage": kept / len(decided), "coverage_low": of_coverage[0], "coverage_high": of_coverage[1]},
        **{"accuracy": correct / max(kept, 1), "accuracy_low": of_accuracy[0], "accuracy_high": of_accuracy[1]},
        "method": "wilson",
    }
