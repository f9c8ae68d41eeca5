"""`catdog evaluate` of a trained head, which needs JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import printable, say, show, warn
from catdog_jax.evaluation import page, run_files
from catdog_jax.evaluation.evaluate import evaluate
from catdog_jax.evaluation.result import Evaluation
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import FOLDS, TEST, RunDirectory
from catdog_jax.photos.dataset import Dataset
from catdog_jax.reporting.metrics import METRICS, Measured, photos_of, shown


def evaluate_head(config: EvaluateConfig, dataset: Dataset | None) -> dict[str, Any]:
    """Evaluates a head, prints the metrics, and writes metrics.json and report.html into the run directory.

    `dataset` has the photos of --data, where they are given; else cached features are evaluated.

    Raises:
      CatdogError: the run or the features are missing or do not go together, or a row is missing.
    """
    run = RunDirectory(config.run)
    fitted = head.load(run.head)
    photos: Dataset | FeatureCache
    split = config.split or TEST
    if dataset is None:
        photos = FeatureCache.open(config.features or run_files.features_of(run, fitted))
        if config.split is None and fitted.recipe.get("folds") and not photos.rows(TEST):
            split = FOLDS
        if split == FOLDS:
            fitted = dataclasses.replace(fitted, out_of_fold=run_files.read_out_of_fold(run, fitted))
    else:
        photos = dataset
    result = evaluate(
        fitted,
        photos,
        split=split,
        weights=config.weights,
        bootstrap=config.bootstrap,
        seed=config.seed,
    )
    if result.predicted.which:
        say(result.predicted.which)
    out = result.save(
        config.out or config.run, history=run_files.read_history(run.history), settings=dataclasses.asdict(config)
    )
    show(table(result))
    if result.abstention is not None:
        show(page.abstention(result.abstention))
    if result.strangers is not None:
        show(page.neither(result.strangers, result.n))
    warn(result.warnings)
    if skipped := len(result.predicted.skipped):
        show(f"{skipped} photos could not be read and count nowhere; the report lists them")
    say(f"Report: {out.report(split)}")
    return result.to_json()


def table(result: Evaluation) -> Table:
    """The metrics of a head with their intervals, to be printed."""
    printed = Table("Metric", pad_edge=False, title=f"{result.n:,} {photos_of(result.split)}", caption_justify="left")
    columns: dict[str, Mapping[str, Measured]] = {"Value": result.metrics}
    if result.views_averaged:
        columns = {"Original": result.metrics, "Averaged": result.views_averaged}
    for name in columns:
        printed.add_column(name, justify="right")
        printed.add_column("95 % interval", justify="right", style="dim")
    for name in result.metrics:
        cells = [cell for column in columns.values() for cell in shown(name, column[name])]
        printed.add_row(Text(METRICS[name].titled(result.classes)), *cells)
        if name == "accuracy":
            guess = [METRICS[name].shown(result.baseline.accuracy), ""] * len(columns)
            printed.add_row(Text(f"  always {printable(result.baseline.name)}", "dim"), *guess)
    if result.threshold != THRESHOLD:
        second = printable(result.classes[1])
        printed.caption = Text(f"{second} from a probability of {result.threshold:.3g} on")
    return printed
