"""`catdog evaluate`: how good a head or a model file is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from catdog_jax import jax_environment
from catdog_jax.config import THRESHOLD, EvaluateConfig
from catdog_jax.console import printable, say, show, warn
from catdog_jax.errors import UsageError
from catdog_jax.evaluation import page, run_files
from catdog_jax.evaluation.compare import Comparison, compare
from catdog_jax.evaluation.evaluate import FOLDS
from catdog_jax.evaluation.evaluate import evaluate as evaluate_head
from catdog_jax.evaluation.result import Evaluation
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import TEST, RunDirectory
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset
from catdog_jax.reporting.metrics import METRICS, Measured, photos_of

_COMPARED = ("accuracy", "balanced_accuracy", "f1", "log_loss", "ece")


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates a head, prints the metrics, and writes metrics.json and report.html into the run directory.

    With --model it compares exported models instead, and writes models.json.

    Raises:
      CatdogError: the run or the features are missing or do not go together, or a row is missing.
      UsageError: options do not go together.
    """
    if config.data is not None and config.features is not None:
        raise UsageError("--data and --features: expected one of them, found both. Evaluate photos or cached features.")
    if config.split == FOLDS and (config.data is not None or config.model):
        raise UsageError(
            "--split folds: expected a run, whose cross-validation is judged, found photos or models beside it. Leave them "
            "out, or choose another split."
        )
    if config.model:
        return _compare(config)
    jax_environment.require_devices()
    run = RunDirectory(config.run)
    fitted = head.load(run.head)
    photos: Dataset | FeatureCache
    split = config.split or TEST
    if config.data is None:
        photos = FeatureCache.open(config.features or run_files.features_of(run, fitted))
        if config.split is None and fitted.recipe.get("folds") and not photos.rows(TEST):
            split = FOLDS
        if split == FOLDS:
            fitted = dataclasses.replace(fitted, out_of_fold=run_files.read_out_of_fold(run, fitted))
    else:
        photos = _photos(config)
    result = evaluate_head(
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


def _compare(config: EvaluateConfig) -> dict[str, Any]:
    if config.data is None:
        raise UsageError(
            "--model: expected --data, and no --features: exported models are compared on photos. "
            "Name some with --data."
        )
    result = compare(
        config.model, _photos(config), split=config.split or "test", bootstrap=config.bootstrap, seed=config.seed
    )
    say(result.photos)
    out = result.save(config.out or config.run)
    show(compared(result))
    warn(result.warnings)
    if result.skipped:
        show(f"photos that could not be read and count nowhere: {len(result.skipped)}, listed in {out.name}")
    say(f"Written to {out}")
    return result.to_json()


def _photos(config: EvaluateConfig) -> Dataset:
    dataset = sources.load(sources.locate(config.data, config.data_dir), ())
    sources.tell(dataset)
    return dataset


def table(result: Evaluation) -> Table:
    """The metrics of a head with their intervals, to be printed."""
    shown = Table("Metric", pad_edge=False, title=f"{result.n:,} {photos_of(result.split)}", caption_justify="left")
    columns: dict[str, Mapping[str, Measured]] = {"Value": result.metrics}
    if result.views_averaged:
        columns = {"Original": result.metrics, "Averaged": result.views_averaged}
    for name in columns:
        shown.add_column(name, justify="right")
        shown.add_column("95 % interval", justify="right", style="dim")
    for name in result.metrics:
        cells = [cell for column in columns.values() for cell in page.shown(name, column[name])]
        shown.add_row(Text(METRICS[name].titled(result.classes)), *cells)
        if name == "accuracy":
            guess = [METRICS[name].shown(result.baseline.accuracy), ""] * len(columns)
            shown.add_row(Text(f"  always {printable(result.baseline.name)}", "dim"), *guess)
    if result.threshold != THRESHOLD:
        second = printable(result.classes[1])
        shown.caption = Text(f"{second} from a probability of {result.threshold:.3g} on")
    return shown


def compared(result: Comparison) -> Table:
    """The models as they are printed, a row each."""
    shown = Table(title=f"{result.n:,} {photos_of(result.split)}", pad_edge=False, caption_justify="left")
    shown.caption = Text(f"Baseline, {result.baseline}")
    titles = [METRICS[name].titled(result.classes) for name in _COMPARED]
    for title in map(printable, ("Model", "MB", "Photos/s", *titles, "Differs")):
        shown.add_column(title, justify="left" if title == "Model" else "right", overflow="fold")
    for model in result.models:
        figures = ["\n".join(page.shown(name, model.metrics[name])) for name in _COMPARED]
        size, rate = f"{model.size / 1e6:.1f}", f"{model.photos_per_second:.1f}"
        named = f"{model.precision}\n{model.name}"
        if model.threshold != THRESHOLD:
            named += f"\n{result.classes[1]} from {model.threshold:.3g} on"
        shown.add_row(Text(named), size, rate, *figures, str(model.decides_otherwise))
    return shown
