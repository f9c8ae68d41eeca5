"""Exported models side by side on photos that they have not seen.

The files alone are measured, as a deployment runs them: photos decoded by the recipe of each, computed
by ONNX Runtime.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.config import Device, EvaluateConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation.unseen import unseen
from catdog_jax.files import atomic, sealed
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos.dataset import Dataset
from catdog_jax.ranges import check_arguments
from catdog_jax.reporting import metrics, warnings
from catdog_jax.reporting.metrics import METRICS, Measured
from catdog_jax.reporting.predictions import Predictions
from catdog_jax.runtime import side_by_side
from catdog_jax.runtime.predictor import Predictor


@dataclass(frozen=True)
class Compared:
    """A model file on some photos.

    Attributes:
      name: the file's name.
      size: its length in bytes.
      sha256: of the file.
      precision: "fp32", "fp16" or "int8".
      device: where it ran, see `runtime.devices`.
      threshold: the probability of the second class from which on its file decides for that class.
      metrics: see `reporting.metrics.measure`.
      photos_per_second: of inference alone.
      decides_otherwise: on how many photos it decides otherwise than the first model.
      neither: how many photos it calls of neither class; None of a model that knows no strangers. The
        metrics count them all the same, by the class that the model would rather say.
    """

    name: str
    size: int
    sha256: str
    precision: str
    device: str
    threshold: float
    metrics: dict[str, Measured]
    photos_per_second: float
    decides_otherwise: int
    neither: int | None

    def to_json(self) -> dict[str, Any]:
        """What models.json holds of a model."""
        return {
            "model": self.name,
            "bytes": self.size,
            "sha256": self.sha256,
            "precision": self.precision,
            "device": self.device,
            "threshold": self.threshold,
            "metrics": {name: measured.to_json() for name, measured in self.metrics.items()},
            "photos_per_second": self.photos_per_second,
            "decides_otherwise": self.decides_otherwise,
            "neither": self.neither,
        }


@dataclass(frozen=True, repr=False)
class Comparison:
    """Model files side by side.

    Attributes:
      split: which photos these are.
      photos: the same in words.
      n: how many could be read.
      classes: the two classes; the second is the positive one.
      baseline: what is right without looking at them.
      warnings: what the figures do not tell, in sentences.
      models: the files, in the order in which they were given.
      skipped: the photos that could not be read: {"id", "reason"}.
    """

    split: str
    photos: str
    n: int
    classes: tuple[str, str]
    baseline: metrics.Baseline
    warnings: tuple[str, ...]
    models: tuple[Compared, ...]
    skipped: tuple[dict[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The contents of models.json."""
        return {
            "split": self.split,
            "photos": self.photos,
            "n": self.n,
            "classes": list(self.classes),
            "baseline": self.baseline.to_json(),
            "warnings": list(self.warnings),
            "models": [model.to_json() for model in self.models],
            "skipped": list(self.skipped),
        }

    def save(self, folder: Path) -> Path:
        """Writes models.json into a folder, and returns its path.

        Raises:
          CatdogError: the file cannot be written.
        """
        path = RunDirectory(Path(folder)).comparison
        sealed.write_sealed_json(path, self.to_json())
        return path

    def __repr__(self) -> str:
        photos = f"{self.n:,} {metrics.photos_of(self.split)}"
        lines = [f"Comparison of {len(self.models)} models on {photos} ({self.baseline}), with 95 % intervals"]
        accuracy = METRICS["accuracy"]
        for model in self.models:
            share = model.metrics["accuracy"]
            shown = f"accuracy {accuracy.shown(share.value)} ({accuracy.shown_interval(share)})"
            lines.append(f"  {model.name}: {shown}, {model.photos_per_second:.1f} photos/s")
        return "\n".join(lines)


class _Counting:
    """The probabilities of a model, as `side_by_side.in_turns` asks for them; it counts what is called neither by the way."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self.neither = 0 if predictor.knows_strangers else None

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        computed = self._predictor.compute(photos)
        if self.neither is not None and computed.strangeness is not None:
            pairs = zip(computed.probabilities, computed.strangeness, strict=True)
            self.neither += sum(bool(self._predictor.rule.decide(*pair).neither) for pair in pairs)
        return computed.probabilities


def compare(
    models: Sequence[Path | str],
    photos: Dataset,
    *,
    split: str = "test",
    bootstrap: int = 2000,
    seed: int = 0,
    device: Device = "auto",
) -> Comparison:
    """Measures exported models on the same photos, which `unseen` takes; other arguments: see `evaluate` and `Predictor`.

    Raises:
      CatdogError: a model cannot be used, is of other classes than the photos, or no photo can be
        read.
      UsageError: no model is given, or an argument is out of its range.
    """
    if not models:
        raise UsageError("--model: expected model files, found none. Name some.")
    check_arguments(EvaluateConfig, split=split, bootstrap=bootstrap, seed=seed)
    paths = [Path(model) for model in models]
    predictors = [Predictor(path, batch_size=side_by_side.BATCH, device=device) for path in paths]
    chosen = unseen(photos, split, {predictor.fingerprint.inputs_sha256 for predictor in predictors})
    for path, predictor in zip(paths, predictors, strict=True):
        if predictor.classes != chosen.classes:
            raise CatdogError(f"{path}: expected a model of {chosen.classes}, found {predictor.classes}. Check --data.")
    skipped: dict[str, str] = {}
    records = chosen.split(split)
    counting = [_Counting(predictor) for predictor in predictors]
    labels, rows, seconds = side_by_side.in_turns(
        counting,
        side_by_side.readable(records, skipped, [predictor.recipe for predictor in predictors]),
        len(records),
        "evaluate",
    )
    if not len(labels):
        raise CatdogError(f"{photos.source}: expected {split} photos that can be read, found none. Check --data.")
    thresholds = [predictor.rule.threshold for predictor in predictors]
    # As a file's reader compares: in single precision
    judged = [
        Predictions.checked(labels, row, float(np.float32(threshold)))
        for row, threshold in zip(rows, thresholds, strict=True)
    ]
    compared = tuple(
        Compared(
            name=path.name,
            size=path.stat().st_size,
            sha256=atomic.sha256_of_file(path),
            precision=predictor.metadata.get("precision", "fp32"),
            device=predictor.device,
            threshold=threshold,
            metrics=metrics.measure(labels, one.probabilities, threshold=one.threshold, resamples=bootstrap, seed=seed),
            photos_per_second=len(labels) / took,
            decides_otherwise=int((one.positive != judged[0].positive).sum()),
            neither=counted.neither,
        )
        for path, predictor, counted, threshold, one, took in zip(
            paths, predictors, counting, thresholds, judged, seconds, strict=True
        )
    )
    left_out = tuple({"id": name, "reason": reason} for name, reason in skipped.items())
    counts = [one.confusion for one in judged]
    sentences = [told for table in counts for told in warnings.of_counts(table, chosen.classes, split, balanced=True)]
    return Comparison(
        split=split,
        photos=chosen.notes[-1],
        n=len(labels),
        classes=chosen.classes,
        baseline=metrics.baseline(counts[0], chosen.classes),
        warnings=tuple(dict.fromkeys(sentences)),
        models=compared,
        skipped=left_out,
    )
