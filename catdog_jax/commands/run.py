"""The whole way in one call: extract, train, evaluate, export, and a look at a few unseen photos through the ONNX file."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from catdog_jax.commands import evaluate as evaluate_command
from catdog_jax.commands import export, extract, train
from catdog_jax.config import (
    PRESETS,
    THRESHOLD,
    EvaluateConfig,
    ExportConfig,
    ExtractConfig,
    HeadSettings,
    RunConfig,
    TrainConfig,
)
from catdog_jax.console import console, show, warn
from catdog_jax.errors import UsageError
from catdog_jax.heads import calibration
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import decoding, exclude_list, sources
from catdog_jax.reporting.metrics import METRICS, Baseline, Measured, photos_of
from catdog_jax.runtime import decision
from catdog_jax.runtime.predictor import Predictor

_SHOWN = 6  # unseen photos that the exported model classifies at the end
_HEADLINE = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "ece")


def run(config: RunConfig) -> None:
    """Turns photos into a deployable model. An interrupted extraction resumes when the same command runs again.

    Raises:
      CatdogError: of any stage; what the stages before wrote stays.
    """
    cache = config.features or config.out / "features"
    needed = PRESETS[config.preset].pool
    pool = config.pool or needed
    if pool not in (needed, "none"):
        raise UsageError(
            f"--pool: expected {needed} or none with --preset {config.preset}, found {pool}. Leave it out."
        )
    calibration.check_decision(config.decide_by, config.threshold, config.costs)
    source = sources.locate(config.data, config.data_dir)
    times: dict[str, float] = {}
    with _stage(times, "extract", f"features of {config.data}"):
        extract.extract(
            ExtractConfig(
                data=source, out=cache, weights=config.weights, pool=pool, views=config.views, exclude=config.exclude
            )
        )
    with _stage(times, "train", f"a head, preset {config.preset}"):
        train.train(TrainConfig(features=cache, out=config.out, **_of_head(config)))
    with _stage(times, "evaluate", "on the test split"):
        result = evaluate_command.evaluate(EvaluateConfig(run=config.out))
    with _stage(times, "export", "to ONNX, checked against JAX"):
        model = export.export(ExportConfig(run=config.out, weights=config.weights, data=source))
    with _stage(times, "predict", "unseen photos, with the exported file alone"):
        show(_unseen(source, config, model))
    show(_summary(config, result, times))
    warn(result["warnings"])


def _of_head(config: RunConfig) -> dict[str, Any]:
    """The settings that `run` and `train` share."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(HeadSettings)}


@contextmanager
def _stage(times: dict[str, float], name: str, what: str) -> Iterator[None]:
    console.rule(f"[bold]{name}[/] {escape(what)}", align="left")
    start = time.perf_counter()
    yield
    times[name] = time.perf_counter() - start


def _unseen(source: str, config: RunConfig, model: Path) -> Table:
    """What the exported model says of a few photos of the test split, taken evenly from it."""
    records = exclude_list.without(sources.load(source), config.exclude).split("test")
    predictor = Predictor(model)
    table = Table("photo", "is", "model says", "probability")
    for record in records[:: max(1, len(records) // _SHOWN)][:_SHOWN]:
        truth = predictor.classes[record.label]
        try:
            pixels = decoding.decode(record.read())
        except decoding.ImageError as error:
            table.add_row(Text(record.id), Text(truth), Text(f"cannot be read: {error}", "yellow"))
            continue
        verdict = predictor.rule.decide(predictor.probabilities(pixels[np.newaxis])[0])
        style = "yellow" if verdict.sure is False else "green" if verdict.name == truth else "red"
        said = Text(decision.said(verdict.name, verdict.sure), style)
        table.add_row(Text(record.id), Text(truth), said, f"{verdict.probability:.1%}")
    return table


def _summary(config: RunConfig, result: dict[str, Any], times: dict[str, float]) -> Table:
    run = RunDirectory(config.out)
    model, page = run.model(), run.report()
    classes, guess = result["classes"], Baseline(*result["baseline"].values())
    photos = f"{result['n']:,} {photos_of(result['split'])}"
    table = Table(title=photos, show_header=False, title_justify="left", title_style="bold")
    for name in _HEADLINE:
        metric, measured = METRICS[name], Measured.from_json(result["metrics"][name])
        table.add_row(Text(metric.titled(classes)), metric.shown(measured.value), metric.shown_interval(measured))
        if name == "accuracy":
            table.add_row("Baseline", metric.shown(guess.accuracy), Text(f"always “{guess.name}”"))
    if result["threshold"] != THRESHOLD:
        table.add_row("Threshold", f"{result['threshold']:.3g}", Text(f"{classes[1]} from this probability on"))
    if result["skipped"]:
        table.add_row("left out", f"{len(result['skipped'])} photos", "unreadable; the report says why")
    table.add_section()
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items())
    table.add_row("time", f"{sum(times.values()):.0f} s", stages)
    table.add_section()
    table.add_row("report", Text(str(page), "bold"), "open it in a browser")
    table.add_row("model", Text(str(model), "bold"), Text(f"catdog predict --model {model} PHOTOS"))
    return table
