"""Exported models side by side on photos that they have not seen: what `catdog evaluate --model` measures.

The files alone are judged, as a deployment runs them: decoded by `images.decode`, computed by ONNX
Runtime.
"""

from typing import Any

from rich.table import Table

from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import console, show, warn
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation import page as evaluation_page
from catdog_jax.files import atomic, sealed
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import sources
from catdog_jax.reporting import metrics
from catdog_jax.runtime import side_by_side
from catdog_jax.runtime.predictor import Predictor


def judge_models(config: EvaluateConfig) -> dict[str, Any]:
    """Judges exported models on photos of --data (see `data.load_to_judge`), prints a table and writes models.json.

    Returns:
      The contents of models.json: "split", "photos" (which these are), "n", and "models": for each
        its file's name and bytes,
      its precision, the metrics with their intervals, photos a second (inference alone), and on how
      many photos it decides
      otherwise than the first; "skipped": the photos that could not be read, {"id", "reason"};
      "warnings": see
      `metrics.warnings`.

    Raises:
      CatdogError: a model cannot be used, is of other classes than the photos, or no photo can be
        read.
      UsageError: --data is missing, or does not go with the other options.
    """
    if config.data is None or config.features is not None:
        raise UsageError(
            "--model: expected --data, and no --features: exported models judge photos. Name some with --data."
        )
    predictors = [Predictor(path, batch_size=side_by_side.BATCH) for path in config.model]
    trained_on = {predictor.fingerprint.inputs_sha256 for predictor in predictors}
    dataset = sources.load_to_judge(sources.locate(config.data, config.data_dir), config.split, trained_on)
    sources.tell(dataset)
    for path, predictor in zip(config.model, predictors, strict=True):
        if predictor.classes != dataset.classes:
            raise CatdogError(
                f"{path}: expected a model of {dataset.classes}, found {predictor.classes}. Check --data."
            )
    left_out: dict[str, str] = {}
    records = dataset.split(config.split)
    models_in_turns = [predictor.probabilities for predictor in predictors]
    labels, rows, seconds = side_by_side.in_turns(
        models_in_turns, side_by_side.readable(records, left_out), len(records), "evaluate"
    )
    skipped = [{"id": photo, "reason": reason} for photo, reason in left_out.items()]
    if not len(labels):
        raise CatdogError(f"{config.data}: expected {config.split} photos that can be read, found none. Check --data.")
    models = [
        {
            "model": path.name,
            "bytes": path.stat().st_size,
            "sha256": atomic.sha256_of_file(path),
            "precision": predictor.metadata.get("precision", "fp32"),
            "metrics": metrics.with_intervals(labels, row, config.bootstrap, config.seed),
            "photos_per_second": len(labels) / took,
            "decides_otherwise": int(((row >= THRESHOLD) != (rows[0] >= THRESHOLD)).sum()),
        }
        for path, predictor, row, took in zip(config.model, predictors, rows, seconds, strict=True)
    ]
    told = [
        one for row in rows for one in metrics.warnings(metrics.confusion(labels, row), dataset.classes, config.split)
    ]
    judged = {
        "split": config.split,
        "photos": dataset.notes[-1],
        "n": len(labels),
        "warnings": list(dict.fromkeys(told)),
    }
    result: dict[str, Any] = {**judged, "models": models, "skipped": skipped}
    out = RunDirectory(config.out or config.run).comparison
    sealed.write_sealed_json(out, result)
    show(table(result))
    warn(result["warnings"])
    if skipped:
        show(f"photos that could not be read and count nowhere: {len(skipped)}, listed in {out.name}")
    console.print(f"Written to {out}", markup=False, soft_wrap=True)
    return result


def table(result: dict[str, Any]) -> Table:
    """The models as they are printed, a row each."""
    names = ("accuracy", "f1", "log_loss", "ece")
    shown = Table(title=f"{result['n']:,} {result['split']} photos", pad_edge=False)
    for title in ("Model", "MB", "Photos/s", *(evaluation_page.METRICS[name].title for name in names), "Differs"):
        shown.add_column(title, justify="left" if title == "Model" else "right", overflow="fold")
    for one in result["models"]:
        figures = [
            f"{evaluation_page.format_value(name, one['metrics'][name]['value'])}\n"
            f"{evaluation_page.format_interval(name, one['metrics'][name])}"
            for name in names
        ]
        size, rate = f"{one['bytes'] / 1e6:.1f}", f"{one['photos_per_second']:.1f}"
        shown.add_row(one["precision"] + "\n" + one["model"], size, rate, *figures, str(one["decides_otherwise"]))
    return shown
