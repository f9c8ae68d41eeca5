"""How good a head is on photos that it has not seen: metrics with intervals, calibration, the worst mistakes, one report.

The positive class is the second one throughout; a photo is judged positive at a probability of
`THRESHOLD` or more.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from catdog_jax.backbone import vgg16, weights
from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.evaluation import page as evaluation_page
from catdog_jax.features import extraction
from catdog_jax.features import extractor as features_extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.features.shards import split_of
from catdog_jax.files.buckets import Location, found_from
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.reporting import metrics

FORMAT = 1
WORST = 24
_HISTORY = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
_SHARD = 512  # photos whose features are in memory at once, end to end


@dataclass(frozen=True)
class Judged:
    """What a head says about the photos of a split.

    Attributes:
      source: the data set, as `data.load` takes it.
      ids: the photos that have a row, N of them.
      labels: [N], 0 or 1.
      probabilities: float64 [N, V], of class 1; view 0 is the photo itself.
      skipped: the photos that have none: {"id", "reason"}.
      which: which photos of the data set these are, where they were judged from their bytes.
    """

    source: str
    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    skipped: list[dict[str, str]]
    which: str = ""


def judge_cache(config: EvaluateConfig, fitted: head.FittedHead) -> Judged:
    """Judges cached features, every view of them.

    Raises:
      CatdogError: the cache is of other weights or preprocessing than the head's, or the rows do
        not match the manifest.
    """
    cache = FeatureCache.open(config.features or _trained_on(RunDirectory(config.run), fitted))
    fitted.fingerprint.check_compatible(cache.fingerprint)
    # One in memory at a time
    shards = (cache.load_shard(name, fitted.own_pool) for name in cache.shard_names(config.split))
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
      CatdogError: the weights are not the head's, the classes differ, or a photo has neither a row
        nor a reason.
    """
    dataset = sources.load_to_judge(source, config.split, (fitted.fingerprint.inputs_sha256,))
    sources.tell(dataset)
    extractor = _extractor(config, fitted, dataset)
    shards = [shard for shard in extraction.plan(dataset, _SHARD) if split_of(shard.name) == config.split]
    photos = sum(len(shard.records) for shard in shards)
    ids, labels, skipped, probabilities = [], [], {}, [np.zeros((0, 1))]
    with progress_bar("photos") as progress:
        task = progress.add_task("evaluate", total=photos)
        for shard, rows in extraction.compute_shards(
            shards, extractor, None, lambda done: progress.advance(task, done)
        ):
            ids += rows.ids
            labels += rows.labels
            skipped[shard.name] = rows.skipped
            extraction.check_readable(dataset, skipped)
            if rows.features:
                probabilities.append(_by_view(fitted, np.concatenate(rows.features)))
    left_out = [item for items in skipped.values() for item in items]
    judged = Judged(
        dataset.source, ids, np.array(labels, np.int8), np.concatenate(probabilities), left_out, dataset.notes[-1]
    )
    check_rows(judged, photos - len(left_out), f"{config.split} photos that can be decoded")
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
        "metrics": metrics.with_intervals(labels, probabilities, config.bootstrap, config.seed),
        "confusion": (counts := metrics.confusion(labels, probabilities)),
        "warnings": metrics.warnings(counts, classes, config.split),
        "threshold": THRESHOLD,
        "bootstrap": {"resamples": config.bootstrap, "seed": config.seed},
        "calibration": metrics.calibration_bins(labels, probabilities),
        "worst": worst(judged.ids, labels, probabilities, classes),
        "skipped": judged.skipped,
    }
    if judged.which:
        result["photos"] = judged.which
    if (views := judged.probabilities.shape[1]) > 1:
        averaged = metrics.with_intervals(labels, judged.probabilities.mean(axis=1), config.bootstrap, config.seed)
        result["views_averaged"] = {"views": views, "metrics": averaged}
    return result


def worst(
    ids: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
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
            for text in (
                evaluation_page.format_value(name, metric[name]["value"]),
                evaluation_page.format_interval(name, metric[name]),
            )
        ]
        shown.add_row(evaluation_page.METRICS[name].title, *cells)
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


def _by_view(fitted: head.FittedHead, rows: np.ndarray) -> np.ndarray:
    """Probabilities of features [N, V, ...]: [N, V]."""
    n, views, *cells = rows.shape
    return head.probabilities(fitted.params, rows.reshape(n * views, math.prod(cells))).reshape(n, views)


def _trained_on(run: RunDirectory, fitted: head.FittedHead) -> Location:
    recorded = run.read_settings(head.digest(fitted.params)).get("features")
    if not isinstance(recorded, str):
        raise CatdogError(
            f"{run.settings}: expected the path of the feature cache under 'features', found {recorded!r}. Give --features."
        )
    return found_from(run.path, recorded)


def _extractor(
    config: EvaluateConfig, fitted: head.FittedHead, dataset: sources.Dataset
) -> features_extractor.Extractor:
    """The convolutions as the head knows them, once it is certain that photos come to it as its training photos did."""
    pretrained = weights.load(config.weights, fitted.fingerprint.preprocessing)
    now = Fingerprint(
        weights_sha256=pretrained.sha256,
        preprocessing=pretrained.mode,
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=decoding.RECIPE,
        classes=dataset.classes,
    )
    fitted.fingerprint.check_compatible(now)
    return features_extractor.Extractor(pretrained, pool=fitted.own_pool)
