"""How good a head is on photos that it has not seen: metrics with intervals, calibration, the worst mistakes, one report.

The positive class is the second one throughout; a photo is judged positive at a probability of `THRESHOLD` or more.
"""

import csv
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.metrics
from rich.table import Table

from catdog_jax import data, features, head, images, report, storage, vgg16, weights
from catdog_jax.cache import FeatureCache, check_compatible, split_of
from catdog_jax.config import EvaluateConfig
from catdog_jax.console import console, progress_bar
from catdog_jax.errors import CatdogError, UsageError

FORMAT = 1
THRESHOLD = 0.5
BINS = 15
WORST = 24
_HISTORY = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
_SHARD = 512  # photos whose features are in memory at once, end to end
_CHUNK = 2**21  # resamples times rows that `bootstrap` holds at once: 16 MiB an array


# ---------------------------------------------------------------------------------------------------- metrics


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


# ---------------------------------------------------------------------------------------------------- the stage


@dataclass(frozen=True)
class Judged:
    """What a head says about the photos of a split.

    Attributes:
      source: the data set, as `data.load` takes it.
      ids: the photos that have a row, N of them.
      labels: [N], 0 or 1.
      probabilities: float64 [N, V], of class 1; view 0 is the photo itself.
      skipped: the photos that have none: {"id", "reason"}.
    """

    source: str
    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    skipped: list[dict[str, str]]


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Judges a head, prints the metrics, and writes metrics.json and report.html into the run directory.

    For a split other than test the files are metrics-SPLIT.json and report-SPLIT.html.

    Returns:
      The contents of metrics.json; see `summarise`.

    Raises:
      CatdogError: the run or the features are missing or do not go together, or a row is missing.
    """
    if config.data is not None and config.features is not None:
        raise UsageError("--data and --features: expected one of them, found both. Judge photos or cached features.")
    fitted = head.load(config.run / "head.safetensors")
    judged = judge_cache(config, fitted) if config.data is None else judge_photos(config.data, config, fitted)
    result = summarise(judged, fitted.classes, config)
    suffix = "" if config.split == "test" else f"-{config.split}"
    page = config.run / f"report{suffix}.html"
    storage.write_bytes(page, _page(config, fitted, judged, result).encode("utf-8", "backslashreplace"))  # of ids not in UTF-8
    storage.write_json(config.run / f"metrics{suffix}.json", result)
    console.print(table(result))
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    return result


def _page(config: EvaluateConfig, fitted: head.FittedHead, judged: Judged, result: dict[str, Any]) -> str:
    photos, note = _thumbnails(judged.source, config.split, [one["id"] for one in result["worst"]])
    return report.render(
        result,
        judged.labels,
        judged.probabilities[:, 0],
        history=read_history(config.run / "history.csv"),
        photos=photos,
        photos_note=note,
        configuration={
            "Evaluation": dataclasses.asdict(config) | {"photos": judged.source},
            "Recipe of the head": fitted.recipe,
            "Fingerprint of the features": fitted.fingerprint,
        },
    )


def judge_cache(config: EvaluateConfig, fitted: head.FittedHead) -> Judged:
    """Judges cached features, every view of them.

    Raises:
      CatdogError: the cache is of other weights or preprocessing than the head's, or the rows do not match the manifest.
    """
    cache = FeatureCache.open(config.features or _trained_on(config.run))
    check_compatible(fitted.fingerprint, cache.fingerprint)
    shards = (cache.load_shard(name, fitted.pool) for name in cache.shard_names(config.split))  # one in memory at a time
    judged = Judged(
        source=cache.source,
        ids=cache.ids(config.split),
        labels=cache.labels(config.split),
        probabilities=np.concatenate([_by_view(fitted, rows) for rows in shards]),
        skipped=cache.skipped(config.split),
    )
    check_rows(judged, cache.rows(config.split), f"{config.split} rows in the manifest")
    return judged


def judge_photos(source: str, config: EvaluateConfig, fitted: head.FittedHead) -> Judged:
    """Judges photos end to end, from their bytes: decoded in threads, computed in jitted batches, in bounded memory.

    Args:
      source: the data set, as `data.load` takes it.
      config: names the split and the weights.
      fitted: the head.

    Raises:
      CatdogError: the weights are not the head's, the classes differ, or a photo has neither a row nor a reason.
    """
    dataset = data.load(source)
    extractor = _extractor(config, fitted, dataset)
    shards = [shard for shard in features.plan(dataset, _SHARD) if split_of(shard.name) == config.split]
    photos = sum(len(shard.records) for shard in shards)
    ids, labels, skipped, probabilities = [], [], [], [np.zeros((0, 1))]
    with progress_bar("photos") as progress:
        task = progress.add_task("evaluate", total=photos)
        for _, rows in features.compute_shards(shards, extractor, None, lambda done: progress.advance(task, done)):
            ids += rows.ids
            labels += rows.labels
            skipped += rows.skipped
            if rows.features:
                probabilities.append(_by_view(fitted, np.concatenate(rows.features)))
    judged = Judged(dataset.source, ids, np.array(labels, np.int8), np.concatenate(probabilities), skipped)
    check_rows(judged, photos - len(skipped), f"{config.split} photos that can be decoded")
    return judged


def check_rows(judged: Judged, expected: int, of_what: str) -> None:
    """Every row is judged, none twice: the counts of ids, labels and probabilities must be `expected`.

    Raises:
      CatdogError: a count differs.
    """
    counts = {"ids": len(set(judged.ids)), "labels": len(judged.labels), "probabilities": len(judged.probabilities)}
    for name, count in counts.items():
        if count != expected:
            raise CatdogError(
                f"{judged.source}: expected {name} for the {expected:,} {of_what}, found {count:,}. Run `catdog extract` again."
            )


def summarise(judged: Judged, classes: Sequence[str], config: EvaluateConfig) -> dict[str, Any]:
    """The contents of metrics.json: the figures of the original photos, and of all views averaged where there are more."""
    labels, probabilities = judged.labels, judged.probabilities[:, 0]
    result: dict[str, Any] = {
        "format": FORMAT,
        "split": config.split,
        "n": len(labels),
        "classes": list(classes),
        "metrics": _with_intervals(labels, probabilities, config),
        "confusion": sklearn.metrics.confusion_matrix(labels, probabilities >= THRESHOLD, labels=[0, 1]).tolist(),
        "threshold": THRESHOLD,
        "bootstrap": {"resamples": config.bootstrap, "seed": config.seed},
        "calibration": calibration_bins(labels, probabilities),
        "worst": worst(judged.ids, labels, probabilities, classes),
        "skipped": judged.skipped,
    }
    if (views := judged.probabilities.shape[1]) > 1:
        averaged = _with_intervals(labels, judged.probabilities.mean(axis=1), config)
        result["views_averaged"] = {"views": views, "metrics": averaged}
    return result


def worst(ids: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The `WORST` most confident mistakes: each its id, label, prediction, and probability of class 1."""
    judged = (probabilities >= THRESHOLD).astype(int)
    mistakes = np.flatnonzero(judged != labels).tolist()
    mistakes.sort(key=lambda row: (-abs(probabilities[row] - THRESHOLD), ids[row]))
    return [
        {
            "id": ids[row],
            "label": classes[labels[row]],
            "prediction": classes[judged[row]],
            "probability": float(probabilities[row]),
        }
        for row in mistakes[:WORST]
    ]


def table(result: dict[str, Any]) -> Table:
    """The metrics of `evaluate` with their intervals, to be printed."""
    shown = Table("Metric", pad_edge=False, title=f"{result['n']:,} {result['split']} photos")
    columns = {"Value": result["metrics"]}
    if "views_averaged" in result:
        columns = {"Original": result["metrics"], "Averaged": result["views_averaged"]["metrics"]}
    for name in columns:
        shown.add_column(name, justify="right")
        shown.add_column("95 % interval", justify="right", style="dim")
    for name in result["metrics"]:
        cells = [
            text
            for metric in columns.values()
            for text in (report.format_value(name, metric[name]["value"]), report.format_interval(name, metric[name]))
        ]
        shown.add_row(report.METRICS[name].title, *cells)
    return shown


def read_history(path: Path) -> dict[str, list[float]] | None:
    """The columns of history.csv, or None where there is no such file.

    Raises:
      CatdogError: it is not a table of numbers.
    """
    if not path.exists():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in _HISTORY} if rows else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CatdogError(
            f"{path}: expected columns of numbers, {', '.join(_HISTORY)}, found: {error!r}. Run `catdog train` again."
        ) from None


def _with_intervals(labels: np.ndarray, probabilities: np.ndarray, config: EvaluateConfig) -> dict[str, dict[str, float]]:
    intervals = bootstrap(labels, probabilities, config.bootstrap, config.seed)
    values = metrics(labels, probabilities)
    return {name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]} for name, value in values.items()}


def _by_view(fitted: head.FittedHead, rows: np.ndarray) -> np.ndarray:
    """Probabilities of features [N, V, ...]: [N, V]."""
    n, views, *cells = rows.shape
    return head.probabilities(fitted.params, rows.reshape(n * views, math.prod(cells))).reshape(n, views)


def _trained_on(run: Path) -> Path:
    path = run / "config.json"
    recorded = storage.read_json(path, "run configuration").get("features")
    if not isinstance(recorded, str):
        raise CatdogError(
            f"{path}: expected the path of the feature cache under 'features', found {recorded!r}. Give --features."
        )
    return Path(recorded)


def _extractor(config: EvaluateConfig, fitted: head.FittedHead, dataset: data.Dataset) -> features.Extractor:
    """The convolutions as the head knows them, once it is certain that photos come to it as its training photos did."""
    pretrained = weights.load(config.weights, fitted.fingerprint["preprocessing"])
    now = {
        "weights_sha256": pretrained.sha256,
        "preprocessing": pretrained.mode,
        "preprocessing_version": vgg16.PREPROCESSING_VERSION,
        "image": images.RECIPE,
        "classes": list(dataset.classes),
    }
    check_compatible(fitted.fingerprint, now)
    return features.Extractor(pretrained, fitted.pool)


def _thumbnails(source: str, split: str, ids: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """Thumbnails by id, and a sentence that says why some are missing."""
    try:
        records = {record.id: record for record in data.load(source).split(split) if record.id in set(ids)}
    except CatdogError as error:
        return {}, f"The photos cannot be shown: {error}"
    photos, unreadable = {}, [f"{one}: it is not in {source} any more" for one in ids if one not in records]
    for record in records.values():
        try:
            photos[record.id] = report.thumbnail(record.read())
        except images.ImageError as error:
            unreadable.append(f"{record.id}: {error}")
    return photos, f"Photos that cannot be shown: {'; '.join(unreadable)}." if unreadable else ""
