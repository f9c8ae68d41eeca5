"""Exported models side by side on photos that they have not seen: what `catdog evaluate --model` measures.

The files alone are judged, as a deployment runs them: decoded by `images.decode`, computed by ONNX Runtime.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from catdog_jax import data, report, storage
from catdog_jax.ahead import decoded
from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import console, progress_bar
from catdog_jax.data import Record
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.metrics import with_intervals
from catdog_jax.predict import Predictor

_BATCH = 8  # photos; the models take turns with each batch, so that all of them meet the same moods of the machine


def judge_models(config: EvaluateConfig) -> dict[str, Any]:
    """Judges exported models on a split of --data, prints a table and writes models.json.

    Returns:
      The contents of models.json: "split", "n", and "models": for each its file's name and bytes, its precision, the metrics
      with their intervals, photos a second (inference alone), and on how many photos it decides otherwise than the first;
      "skipped": the photos that cannot be decoded, each its id and the reason.

    Raises:
      CatdogError: a model cannot be used, is of other classes than the photos, or no photo can be read.
      UsageError: --data is missing, or does not go with the other options.
    """
    if config.data is None or config.features is not None:
        raise UsageError("--model: expected --data, and no --features: exported models judge photos. Name some with --data.")
    dataset = data.load(data.locate(config.data, config.data_dir))
    predictors = [Predictor(path, batch_size=_BATCH) for path in config.model]
    for path, predictor in zip(config.model, predictors, strict=True):
        if predictor.classes != dataset.classes:
            raise CatdogError(f"{path}: expected a model of {dataset.classes}, found {predictor.classes}. Check --data.")
    skipped: list[dict[str, str]] = []
    labels, rows, seconds = _judge(predictors, dataset.split(config.split), skipped)
    if not len(labels):
        raise CatdogError(f"{config.data}: expected {config.split} photos that can be read, found none. Check --data.")
    models = [
        {
            "model": path.name,
            "bytes": path.stat().st_size,
            "precision": predictor.metadata.get("precision", "fp32"),
            "metrics": with_intervals(labels, row, config.bootstrap, config.seed),
            "photos_per_second": len(labels) / took,
            "decides_otherwise": int(((row >= THRESHOLD) != (rows[0] >= THRESHOLD)).sum()),
        }
        for path, predictor, row, took in zip(config.model, predictors, rows, seconds, strict=True)
    ]
    result = {"split": config.split, "n": len(labels), "models": models, "skipped": skipped}
    out = (config.out or config.run) / "models.json"
    storage.write_json(out, result)
    console.print(table(result))
    if skipped:
        message = f"photos that cannot be decoded and are left out: {len(skipped):,}; {out} lists them"
        console.print(message, style="yellow", markup=False, soft_wrap=True)
    console.print(f"Written to {out}", markup=False, soft_wrap=True)
    return result


def _judge(
    predictors: Sequence[Predictor], records: Sequence[Record], skipped: list[dict[str, str]]
) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    """The labels [N] of the readable photos, each model's probabilities of the second class [N], and its seconds.

    The others are added to `skipped`.
    """
    labels: list[int] = []
    rows: list[list[np.ndarray]] = [[] for _ in predictors]
    seconds = [0.0] * len(predictors)
    remaining = decoded(records, None, _BATCH)
    with progress_bar("photos") as progress:
        task = progress.add_task("evaluate", total=len(records))
        while batch := list(itertools.islice(remaining, _BATCH)):
            photos = [one.pixels for one in batch if one.pixels is not None]
            labels += [one.record.label for one in batch if one.pixels is not None]
            skipped += [{"id": one.record.id, "reason": one.reason} for one in batch if one.pixels is None]
            for i, predictor in enumerate(predictors if photos else []):
                start = time.perf_counter()
                rows[i].append(predictor(np.stack(photos))[:, 1].astype(np.float64))
                seconds[i] += time.perf_counter() - start
            progress.advance(task, len(batch))
    return np.array(labels), [np.concatenate(row) if row else np.zeros(0) for row in rows], seconds


def table(result: dict[str, Any]) -> Table:
    """The models as they are printed, a row each."""
    names = ("accuracy", "f1", "log_loss", "ece")
    shown = Table(title=f"{result['n']:,} {result['split']} photos", pad_edge=False)
    for title in ("Model", "MB", "Photos/s", *(report.METRICS[name].title for name in names), "Differs"):
        shown.add_column(title, justify="left" if title == "Model" else "right", overflow="fold")
    for one in result["models"]:
        figures = [
            f"{report.format_value(name, one['metrics'][name]['value'])}\n{report.format_interval(name, one['metrics'][name])}"
            for name in names
        ]
        size, rate = f"{one['bytes'] / 1e6:.1f}", f"{one['photos_per_second']:.1f}"
        shown.add_row(one["precision"] + "\n" + one["model"], size, rate, *figures, str(one["decides_otherwise"]))
    return shown
