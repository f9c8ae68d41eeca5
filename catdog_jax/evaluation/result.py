"""What an evaluation finds out: metrics with intervals, calibration, the worst mistakes; as JSON and as a page."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.errors import CatdogError
from catdog_jax.evaluation import page
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import calibration, head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.reporting import html, intervals, metrics, warnings
from catdog_jax.reporting.calibration_error import calibration_bins
from catdog_jax.reporting.metrics import METRICS, Baseline, Measured
from catdog_jax.reporting.plots import History
from catdog_jax.reporting.predictions import Predictions

FORMAT = 1
WORST = 24


@dataclass(frozen=True)
class Predicted:
    """What a head predicts for the photos of a split.

    Attributes:
      source: the data set, as `sources.load` takes it; empty where rows came as arrays.
      ids: the photos that have a row, N of them.
      labels: [N], 0 or 1.
      probabilities: float64 [N, V], of class 1; view 0 is the photo itself.
      skipped: the photos that have none: {"id", "reason"}.
      which: which photos of the data set these are, where their bytes were read.
      dataset: the data set itself, where it is at hand.
      strangeness: float64 [N], of the photos themselves; None where the head does not tell, or of folds.
    """

    source: str
    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    skipped: list[dict[str, str]]
    which: str = ""
    dataset: Dataset | None = None
    strangeness: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """How good a head is on the photos of a split.

    Attributes:
      head: the head.
      predicted: what it predicts, of `evaluate`.
      split: which photos these are.
      bootstrap: resamples for what the calibration error would be by chance.
      seed: decides the resamples.
      own_features: whether the features are those that the head was trained on, so that the photos
        of the test split are those that were kept for testing it.
    """

    head: head.FittedHead
    predicted: Predicted
    split: str = "test"
    bootstrap: int = 2000
    seed: int = 0
    own_features: bool = False

    @property
    def n(self) -> int:
        """The number of photos."""
        return len(self.predicted.labels)

    @property
    def classes(self) -> tuple[str, str]:
        """The two classes; the second is the positive one."""
        return self.head.classes

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [N], of class 1, of the photos themselves."""
        return self.predicted.probabilities[:, 0]

    @functools.cached_property
    def metrics(self) -> dict[str, Measured]:
        """Each metric of `reporting.metrics.METRICS` with its 95 % interval."""
        return self._measured(self.probabilities)

    @functools.cached_property
    def views_averaged(self) -> dict[str, Measured]:
        """The same of the mean probability of all views; empty where there is one view."""
        views = self.predicted.probabilities
        return self._measured(views.mean(axis=1)) if views.shape[1] > 1 else {}

    @property
    def confusion(self) -> list[list[int]]:
        """How many photos of each class (rows) are predicted to be of each class (columns)."""
        return Predictions.checked(self.predicted.labels, self.probabilities, self.threshold).confusion

    @property
    def threshold(self) -> float:
        """The probability of the second class from which on a photo is predicted to be of that class: the head's."""
        return self.head.threshold

    @property
    def baseline(self) -> Baseline:
        """What is right without looking at these photos."""
        return metrics.baseline(self.confusion, self.classes)

    @property
    def warnings(self) -> list[str]:
        """What the figures do not tell, in sentences: of these photos, of the calibration, and of the training."""
        recipe = self.head.recipe
        balanced = recipe.get("class_weight") == "balanced" or "decide_by" in recipe
        told = warnings.of_counts(self.confusion, self.classes, self.split, balanced=balanced)
        if "decide_by" in recipe:
            told += filter(None, [warnings.chosen_here(self.split)])
        return [*told, *calibration.warnings(recipe), *recipe.get("warnings", [])]

    @property
    def abstention(self) -> dict[str, float | str] | None:
        """How good the head is where it does not abstain; None of a head that never does."""
        confidence = self.head.recipe.get("abstain_below")
        if confidence is None:
            return None
        return calibration.abstention(self.predicted.labels, self.probabilities, confidence, self.threshold)

    @property
    def strangers(self) -> dict[str, float | int | str] | None:
        """How many of the photos, all of them of the two classes, are called neither; None where that is not known.

        {"strange_above", "count", "share", "low", "high", "method"}, with the 95 % interval of the share.
        """
        level, values = self.head.recipe.get("strange_above"), self.predicted.strangeness
        if level is None or values is None:
            return None
        count = int((values.astype(np.float32) > np.float32(level)).sum())
        low, high = intervals.of_share(count, self.n)
        return {
            "strange_above": level,
            "count": count,
            "share": count / self.n,
            "low": low,
            "high": high,
            "method": "wilson",
        }

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The `WORST` most confident mistakes: each its id, label, prediction, and probability of class 1."""
        ids, labels, probabilities = self.predicted.ids, self.predicted.labels, self.probabilities
        positive = (probabilities >= self.threshold).astype(int)
        sure = np.where(positive, probabilities, 1 - probabilities)
        mistakes = np.flatnonzero(positive != labels).tolist()
        mistakes.sort(key=lambda row: (-sure[row], ids[row]))
        return [
            {
                "id": ids[row],
                "label": self.classes[labels[row]],
                "prediction": self.classes[positive[row]],
                "probability": float(probabilities[row]),
            }
            for row in mistakes[:WORST]
        ]

    def to_json(self) -> dict[str, Any]:
        """The contents of metrics.json."""
        result: dict[str, Any] = {
            "format": FORMAT,
            "split": self.split,
            "n": self.n,
            "classes": list(self.classes),
            "metrics": _as_json(self.metrics),
            "baseline": self.baseline.to_json(),
            "confusion": self.confusion,
            "warnings": self.warnings,
            "threshold": self.threshold,
            "bootstrap": {"resamples": self.bootstrap, "seed": self.seed},
            "calibration": calibration_bins(self.predicted.labels, self.probabilities),
            "worst": self.worst,
            "skipped": self.predicted.skipped,
        }
        if self.predicted.which:
            result["photos"] = self.predicted.which
        if self.views_averaged:
            views = self.predicted.probabilities.shape[1]
            result["views_averaged"] = {"views": views, "metrics": _as_json(self.views_averaged)}
        # By these an export knows whether the figures are those of its head, on the photos kept for
        # testing it.
        result |= {"head_sha256": head.digest(self.head.params), "own_features": self.own_features}
        if self.abstention is not None:
            result["abstention"] = self.abstention
        if self.strangers is not None:
            result["neither"] = self.strangers
        return result

    def report(self, *, history: History | None = None, settings: Mapping[str, Any] | None = None) -> str:
        """The page as one HTML document, with the photos of the worst mistakes where they can be read.

        Args:
          history: the columns of history.csv; by default that of the head, which has one when it was
            trained in this process.
          settings: what else the page lists of this evaluation.
        """
        photos, note = self._thumbnails()
        own = {"split": self.split, "bootstrap": self.bootstrap, "seed": self.seed, **(settings or {})}
        return page.render(
            self.to_json(),
            self.predicted.labels,
            self.probabilities,
            history=history or _columns(self.head.history),
            photos=photos,
            photos_note=note,
            configuration={
                "Evaluation": own | {"photos": self.predicted.which or self.predicted.source},
                "Recipe of the head": self.head.recipe,
                "Fingerprint of the features": self.head.fingerprint.to_json(),
            },
        )

    def save(
        self, folder: Path, *, history: History | None = None, settings: Mapping[str, Any] | None = None
    ) -> RunDirectory:
        """Writes metrics.json and `report`'s page into a folder, which is made where it is missing.

        The names are metrics-SPLIT.json and report-SPLIT.html for a split other than test.

        Raises:
          CatdogError: a file cannot be written.
        """
        run = RunDirectory(Path(folder))
        report = self.report(history=history, settings=settings)
        atomic.write_bytes(run.report(self.split), html.with_seal(report))
        sealed.write_sealed_json(run.metrics(self.split), self.to_json())
        return run

    def __repr__(self) -> str:
        photos = f"{self.n:,} {metrics.photos_of(self.split)}"
        lines = [f"Evaluation of {' or '.join(self.classes)} on {photos}, with 95 % intervals"]
        titles = {name: METRICS[name].titled(self.classes) for name in self.metrics}
        width, guess = max(18, *(len(title) + 1 for title in titles.values())), self.baseline
        for name, measured in self.metrics.items():
            metric = METRICS[name]
            shown = f"{metric.shown(measured.value):>9}  ({metric.shown_interval(measured)})"
            lines.append(f"  {titles[name]:<{width}}{shown}")
            if name == "accuracy":
                lines.append(f"  {'Baseline':<{width}}{metric.shown(guess.accuracy):>9}  (always “{guess.name}”)")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html.framed(self.report())

    def _measured(self, probabilities: np.ndarray) -> dict[str, Measured]:
        labels, threshold = self.predicted.labels, self.threshold
        return metrics.measure(labels, probabilities, threshold=threshold, resamples=self.bootstrap, seed=self.seed)

    def _thumbnails(self) -> tuple[dict[str, bytes], str]:
        """Thumbnails of the worst mistakes by id, and a sentence that says why some are missing."""
        ids, source = [mistake["id"] for mistake in self.worst], self.predicted.source
        if not source:
            return {}, "The rows were given as features, without photos to show."
        try:
            dataset = self.predicted.dataset or sources.load(source, ())
        except CatdogError as error:
            return {}, f"The photos cannot be shown: {error}"
        records = {record.id: record for record in dataset.records if record.id in set(ids)}
        photos, unreadable = {}, [f"{name}: it is not in {source} any more" for name in ids if name not in records]
        for record in records.values():
            try:
                photos[record.id] = page.thumbnail(sources.read_patiently(record), self.head.fingerprint.recipe)
            except CatdogError as error:  # the figures are true without a picture
                unreadable.append(f"{record.id}: {error}")
        return photos, f"Photos that cannot be shown: {'; '.join(unreadable)}." if unreadable else ""


def _as_json(measured: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    return {name: metric.to_json() for name, metric in measured.items()}


def _columns(epochs: Sequence[head.Epoch]) -> History | None:
    return {name: [getattr(epoch, name) for epoch in epochs] for name in head.Epoch._fields} if epochs else None
