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
    EvaluateConfig,
    ExportConfig,
    ExtractConfig,
    HeadSettings,
    Pool,
    RunConfig,
    TrainConfig,
)
from catdog_jax.console import console, show, warn
from catdog_jax.errors import UsageError
from catdog_jax.features import shards
from catdog_jax.files.buckets import Location
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import decoding, exclude_list, sources
from catdog_jax.reporting.metrics import METRICS, Measured
from catdog_jax.runtime import decision
from catdog_jax.runtime.predictor import Predictor

_SHOWN = 6  # unseen photos that the exported model classifies at the end
_HEADLINE = ("accuracy", "f1", "roc_auc", "log_loss", "ece")


def run(config: RunConfig) -> None:
    """Turns photos into a deployable model. An interrupted extraction resumes when the same command runs again.

    Raises:
      CatdogError: of any stage; what the stages before wrote stays.
    """
    cache = config.features or config.out / "features"
    needed = PRESETS[config.preset].pool
    pool = config.pool or _pool_there(cache, config.preset)
    if pool not in (needed, "none"):
        raise UsageError(
            f"--pool: expected {needed} or none with --preset {config.preset}, found {pool}. Leave it out."
        )
    source = sources.locate(config.data, config.data_dir)
    times: dict[str, float] = {}
    with _stage(times, "extract", f"features of {config.data}"):
        extract.extract(
            ExtractConfig(
                data=source,
                out=cache,
                weights=config.weights,
                pool=pool,
                views=config.views,
                exclude=config.exclude,
                reuse=config.reuse,
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


def _pool_there(cache: Location, preset: str) -> Pool:
    """The pooling that the preset needs, or none, where the cache is there and keeps all cells.

    Raises:
      UsageError: the cache is there and cannot give what the preset needs.
    """
    needed = PRESETS[preset].pool
    there = shards.kept_pool(cache)
    if there not in (None, needed, "none"):
        able = "none" if needed == "none" else f"{needed} or none"
        raise UsageError(
            f"{cache}: expected features of pool {able} for --preset {preset}, found {there}. Keep these for other presets, "
            "and name another place with --features; there, --pool none serves every preset."
        )
    return "none" if there == "none" else needed


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
    table = Table(title=f"{result['n']:,} test photos", show_header=False, title_justify="left", title_style="bold")
    for name in _HEADLINE:
        metric, measured = METRICS[name], Measured.from_json(result["metrics"][name])
        table.add_row(metric.title, metric.shown(measured.value), metric.shown_interval(measured))
    if result["skipped"]:
        table.add_row("left out", f"{len(result['skipped'])} photos", "unreadable; the report says why")
    table.add_section()
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items())
    table.add_row("time", f"{sum(times.values()):.0f} s", stages)
    table.add_section()
    table.add_row("report", Text(str(page), "bold"), "open it in a browser")
    table.add_row("model", Text(str(model), "bold"), Text(f"catdog predict --model {model} PHOTOS"))
    return table
