"""The metrics of a binary classifier: one record a metric, and the baseline that they are to be held against.

The positive class is class 1 throughout. A new metric is one entry of `METRICS`: the file
metrics.json, the tables on the terminal and the report follow.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike

from catdog_jax.config import THRESHOLD
from catdog_jax.reporting import intervals
from catdog_jax.reporting.calibration_error import calibration_error_by_chance, expected_calibration_error
from catdog_jax.reporting.intervals import Ends
from catdog_jax.reporting.predictions import Predictions

MIN_MISTAKES = 10  # below it the log loss has no interval: few photos decide it, and the next one may double it
PERCENT = "\u202f%"  # after a narrow space that does not break


@dataclass(frozen=True)
class Measured:
    """A metric of some photos, with its 95 % interval.

    Attributes:
      value: the metric.
      low: the lower end of the interval; None where no interval holds.
      high: the upper end, likewise.
      method: one of `intervals.METHODS`; empty in a file that was written before methods were.
      by_chance: what a perfectly calibrated model stays below 95 times in 100 on these photos; of
        the calibration error alone.
    """

    value: float
    low: float | None
    high: float | None
    method: str = ""
    by_chance: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds of a metric."""
        written = {"value": self.value, "low": self.low, "high": self.high, "method": self.method}
        return written if self.by_chance is None else written | {"by_chance": self.by_chance}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Measured":
        """What `to_json` wrote, in this version or an earlier one."""
        value, low, high = written["value"], written["low"], written["high"]
        return cls(value, low, high, written.get("method", ""), written.get("by_chance"))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """All that there is to know of a metric.

    Attributes:
      name: in metrics.json.
      title: for readers.
      meaning: in a few words; {second} and {first} stand for the names of the classes.
      of_second: whether it is of the second class alone, which is named beside it then.
      percent: whether it is shown in per cent.
      compute: its value.
      method: how its interval is made, one of `intervals.METHODS`.
      interval: of the predictions and the value, both ends; None where no interval holds.
      by_chance: of the probabilities, a number of resamples and a seed: what chance alone makes of
        the metric.
    """

    name: str
    title: str
    meaning: str
    of_second: bool = False
    percent: bool = False
    compute: Callable[[Predictions], float]
    method: str
    interval: Callable[[Predictions, float], Ends | None] = lambda *_: None
    by_chance: Callable[[np.ndarray, int, int], float] | None = None

    def measure(self, predictions: Predictions, resamples: int, seed: int) -> Measured:
        """The metric of some predictions, with its interval."""
        value = float(self.compute(predictions))
        low, high = self.interval(predictions, value) or (None, None)
        chance = None if self.by_chance is None else self.by_chance(predictions.probabilities, resamples, seed)
        return Measured(value, low, high, self.method, chance)

    def titled(self, classes: Sequence[str]) -> str:
        """The title, with the class that it is of where it is of one: "F1 of dogs"."""
        return f"{self.title} of {classes[1]}" if self.of_second else self.title

    def explained(self, classes: Sequence[str]) -> str:
        """The meaning, with the names of the classes."""
        names = dict(zip(("{first}", "{second}"), classes, strict=True))
        return re.sub("{first}|{second}", lambda place: names[place[0]], self.meaning)

    def shown(self, value: float) -> str:
        """A value as it is printed: shares in per cent, the rest with four decimals."""
        return f"{100 * value:.2f}{PERCENT}" if self.percent else f"{value:.4f}"

    def shown_interval(self, measured: Measured) -> str:
        """An interval as it is printed, or what stands in its place."""
        if measured.low is None or measured.high is None:
            return "few mistakes" if measured.by_chance is None else f"chance ≤ {self.shown(measured.by_chance)}"
        return f"{self.shown(measured.low).removesuffix(PERCENT)} – {self.shown(measured.high)}"


def _precision(predictions: Predictions) -> Ends:
    (_, false_positive), (_, true_positive) = predictions.confusion
    return intervals.of_share(true_positive, true_positive + false_positive)


def _balanced(predictions: Predictions) -> Ends:
    (true_negative, false_positive), (false_negative, true_positive) = predictions.confusion
    return intervals.of_mean_of_shares(
        (true_negative, true_negative + false_positive), (true_positive, true_positive + false_negative)
    )


def _log_loss(predictions: Predictions) -> Ends | None:
    labels, probabilities = predictions.labels, predictions.probabilities
    of_class = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), np.finfo(np.float64).eps, 1)
    improbable = predictions._replace(threshold=THRESHOLD).mistakes  # whatever is decided, these decide the loss
    return intervals.of_log_loss(-np.log(of_class)) if improbable >= MIN_MISTAKES else None


_ALL = (
    Metric(
        name="accuracy",
        title="Accuracy",
        meaning="share of the photos that are predicted right",
        percent=True,
        compute=lambda rows: sklearn.metrics.accuracy_score(rows.labels, rows.positive),
        method="wilson",
        interval=lambda rows, _: intervals.of_share(len(rows.labels) - rows.mistakes, len(rows.labels)),
    ),
    Metric(
        name="balanced_accuracy",
        title="Balanced accuracy",
        meaning="mean of the shares of either class that are predicted right",
        percent=True,
        compute=lambda rows: sklearn.metrics.balanced_accuracy_score(rows.labels, rows.positive),
        method="wilson-mover",
        interval=lambda rows, _: _balanced(rows),
    ),
    Metric(
        name="precision",
        title="Precision",
        meaning="of the photos predicted {second}, the share that are",
        of_second=True,
        percent=True,
        compute=lambda rows: sklearn.metrics.precision_score(rows.labels, rows.positive, zero_division=0),
        method="wilson",
        interval=lambda rows, _: _precision(rows),
    ),
    Metric(
        name="recall",
        title="Recall",
        meaning="of the photos of {second}, the share that are found",
        of_second=True,
        percent=True,
        compute=lambda rows: sklearn.metrics.recall_score(rows.labels, rows.positive),
        method="wilson",
        interval=lambda rows, _: intervals.of_share(rows.confusion[1][1], sum(rows.confusion[1])),
    ),
    Metric(
        name="f1",
        title="F1",
        meaning="harmonic mean of precision and recall",
        of_second=True,
        percent=True,
        compute=lambda rows: sklearn.metrics.f1_score(rows.labels, rows.positive, zero_division=0),
        method="wilson-jaccard",
        interval=lambda rows, _: intervals.of_f1(rows.confusion[1][1], rows.mistakes),
    ),
    Metric(
        name="roc_auc",
        title="ROC AUC",
        meaning="how often a photo of {second} ranks above one of {first}",
        compute=lambda rows: sklearn.metrics.roc_auc_score(rows.labels, rows.probabilities),
        method="wilson-effective",
        interval=lambda rows, _: intervals.of_roc_auc(rows.labels, rows.probabilities),
    ),
    Metric(
        name="log_loss",
        title="Log loss",
        meaning="mean surprise at the right class, in nats; lower is better",
        compute=lambda rows: sklearn.metrics.log_loss(rows.labels, rows.probabilities),
        method="log-normal",
        interval=lambda rows, _: _log_loss(rows),
    ),
    Metric(
        name="brier",
        title="Brier score",
        meaning="mean squared error of the probability; lower is better",
        compute=lambda rows: sklearn.metrics.brier_score_loss(rows.labels, rows.probabilities),
        method="wilson-mean",
        interval=lambda rows, value: intervals.of_mean(value, len(rows.labels)),
    ),
    Metric(
        name="ece",
        title="Calibration error",
        meaning="mean gap between confidence and accuracy; lower is better",
        compute=lambda rows: expected_calibration_error(rows.labels, rows.probabilities),
        method="by-chance",
        by_chance=calibration_error_by_chance,
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
"""Every metric by its name, in the order in which they are shown.

Precision, recall and F1 are of class 1; precision and F1 are 0 where nothing is predicted positive.
The log loss is in nats, its probabilities clipped to 2.2e-16 from 0 and 1.
"""


def measure(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    threshold: float = THRESHOLD,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Measured]:
    """Each of `METRICS` with its 95 % interval.

    `labels` [N] are 0 or 1, `probabilities` [N] are of class 1, which is predicted from the
    threshold on; the others are for `calibration_error_by_chance`.

    Raises:
      CatdogError: see `Predictions.checked`.
      UsageError: `resamples` is below 1.
    """
    predictions = Predictions.checked(labels, probabilities, threshold)
    return {name: metric.measure(predictions, resamples, seed) for name, metric in METRICS.items()}


def shown(name: str, measured: Measured) -> tuple[str, str]:
    """A metric's value and its interval as they are printed."""
    return METRICS[name].shown(measured.value), METRICS[name].shown_interval(measured)


class Baseline(NamedTuple):
    """What is right without looking: always the class that has more of the photos, of equals the first.

    Attributes:
      name: that class.
      accuracy: the share of the photos that are of it.
    """

    name: str
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds of it."""
        return {"class": self.name, "accuracy": self.accuracy}

    def __str__(self) -> str:
        return f"always “{self.name}”: {METRICS['accuracy'].shown(self.accuracy)}"


def baseline(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Baseline:
    """The accuracy to be held against: that of the larger class.

    The counts are those of `Predictions.confusion`, or of any table with a row a class.
    """
    totals = [sum(row) for row in counts]
    larger = int(totals[1] > totals[0])
    return Baseline(classes[larger], totals[larger] / max(sum(totals), 1))


def photos_of(split: str) -> str:
    """What the photos of a split are called in a sentence: "test photos"."""
    return "cross-validated photos" if split == "folds" else f"{split} photos"
