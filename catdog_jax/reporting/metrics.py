"""The metrics of a binary classifier: one record a metric, and in words what few photos cannot tell.

The positive class is class 1 throughout. A new metric is one entry of `METRICS`: the file
metrics.json, the tables on the terminal and the report follow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike

from catdog_jax.reporting import intervals
from catdog_jax.reporting.calibration_error import calibration_error_by_chance, expected_calibration_error
from catdog_jax.reporting.intervals import Ends
from catdog_jax.reporting.predictions import Predictions

MIN_MISTAKES = 10  # below it the log loss has no interval: few photos decide it, and the next one may double it
WIDE = 0.05  # an interval wider than this cannot tell a mistake in twenty from none, and is put into words
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
      meaning: in a few words.
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


def _log_loss(predictions: Predictions) -> Ends | None:
    labels, probabilities = predictions
    of_class = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), np.finfo(np.float64).eps, 1)
    return intervals.of_log_loss(-np.log(of_class)) if predictions.mistakes >= MIN_MISTAKES else None


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
        name="precision",
        title="Precision",
        meaning="of the photos predicted positive, the share that are",
        percent=True,
        compute=lambda rows: sklearn.metrics.precision_score(rows.labels, rows.positive, zero_division=0),
        method="wilson",
        interval=lambda rows, _: _precision(rows),
    ),
    Metric(
        name="recall",
        title="Recall",
        meaning="of the positive photos, the share that are found",
        percent=True,
        compute=lambda rows: sklearn.metrics.recall_score(rows.labels, rows.positive),
        method="wilson",
        interval=lambda rows, _: intervals.of_share(rows.confusion[1][1], sum(rows.confusion[1])),
    ),
    Metric(
        name="f1",
        title="F1",
        meaning="harmonic mean of precision and recall",
        percent=True,
        compute=lambda rows: sklearn.metrics.f1_score(rows.labels, rows.positive, zero_division=0),
        method="wilson-jaccard",
        interval=lambda rows, _: intervals.of_f1(rows.confusion[1][1], rows.mistakes),
    ),
    Metric(
        name="roc_auc",
        title="ROC AUC",
        meaning="how often a positive photo ranks above a negative one",
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
    labels: ArrayLike, probabilities: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Measured]:
    """Each of `METRICS` with its 95 % interval.

    `labels` [N] are 0 or 1, `probabilities` [N] are of class 1; the others are for
    `calibration_error_by_chance`.

    Raises:
      CatdogError: see `Predictions.checked`.
      UsageError: `resamples` is below 1.
    """
    predictions = Predictions.checked(labels, probabilities)
    return {name: metric.measure(predictions, resamples, seed) for name, metric in METRICS.items()}


def counted(photos: int, split: str) -> str:
    """So many photos of a split, in words.

    Example:
      >>> counted(60, "test"), counted(150, "folds")
      ('60 test photos', '150 photos, cross-validated')
    """
    return f"{photos:,} photos, cross-validated" if split == "folds" else f"{photos:,} {split} photos"


def warnings(counts: Sequence[Sequence[int]], classes: Sequence[str], split: str) -> list[str]:
    """What so few photos cannot tell, in sentences; none where they tell enough.

    A class is named where its interval is twice as wide as that of all photos: where it has much
    fewer than half of them.

    The counts are those of `Predictions.confusion`, the classes the two names.
    """
    n, mistakes = sum(map(sum, counts)), counts[0][1] + counts[1][0]
    split = "cross-validated" if split == "folds" else split
    width = np.ptp(intervals.of_share(mistakes, n))
    sentences = [_in_words(f"{split} photos", n, mistakes)] if width > WIDE else []
    for label, name in enumerate(classes):
        n, mistakes = sum(counts[label]), counts[label][1 - label]
        if np.ptp(intervals.of_share(mistakes, n)) > 2 * max(width, WIDE):
            sentences.append(_in_words(f"{split} photos of {name}", n, mistakes))
    return sentences


def _in_words(what: str, n: int, mistakes: int) -> str:
    low, high = intervals.of_share(mistakes, n)
    among = f"{mistakes} mistake{'s' * (mistakes > 1)}" if mistakes else "no mistake"
    may = f"may be anything from {100 * low:.0f} to" if mistakes else "may still be up to"
    return f"{n} {what}: with {among} among them, the share of mistakes {may} {100 * high:.0f} %."
