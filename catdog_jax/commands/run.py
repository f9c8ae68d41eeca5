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

from catdog_jax import __version__, settings_file
from catdog_jax.commands import evaluate as evaluate_command
from catdog_jax.commands import export, extract, train
from catdog_jax.config import (
    PRESETS,
    THRESHOLD,
    EvaluateConfig,
    ExportConfig,
    ExtractConfig,
    HeadSettings,
    Pool,
    Recipe,
    RunConfig,
    TrainConfig,
)
from catdog_jax.console import console, say, show, warn
from catdog_jax.errors import UsageError
from catdog_jax.evaluation import run_files
from catdog_jax.features import shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import sealed
from catdog_jax.files.buckets import Location
from catdog_jax.heads import calibration, cross_validation, head, training
from catdog_jax.heads.run_directory import FOLDS, TEST, RunDirectory
from catdog_jax.heads.training_log import TrainingLog
from catdog_jax.photos import decoding, exclude_list, sources, splitting
from catdog_jax.photos.dataset import SPLITS, Dataset
from catdog_jax.reporting.metrics import METRICS, Baseline, Measured, photos_of
from catdog_jax.runtime import decision
from catdog_jax.runtime.predictor import Predictor

_SHOWN = 6  # unseen photos that the exported model classifies at the end
FEW = 500  # photos to train on below which splits are not drawn from them
_HEADLINE = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "ece")


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
    calibration.check_decision(config.decide_by, config.threshold, config.costs)
    TrainingLog(config.log_dir)  # another log there is told before photos are computed
    photos, undivided = _photos(config)
    times: dict[str, float] = {}
    with _stage(times, "extract", f"features of {config.data}"):
        features = extract.extract(
            ExtractConfig(
                data=photos.source,
                out=cache,
                weights=config.weights,
                pool=pool,
                views=config.views,
                exclude=config.exclude,
                groups=config.groups,
                undivided=undivided,
                reuse=config.reuse,
                size=config.size,
                resize=config.resize,
            ),
            photos,
        )
    assert features is not None  # there is one process
    judged = "by its folds" if undivided and not features.rows(TEST) else "on the test split"
    with _stage(times, "train", f"a head, preset {config.preset}"):
        folds = _folds(config, features) if undivided else None
        train.train(TrainConfig(features=cache, out=config.out, **_of_head(config) | {"folds": folds}))
        whole = {
            "version": __version__,
            "settings": settings_file.recorded(dataclasses.replace(config, log_dir=None), config.out),
        }
        sealed.write_sealed_json(RunDirectory(config.out).whole, whole)
    with _stage(times, "evaluate", judged):
        result = evaluate_command.evaluate(EvaluateConfig(run=config.out))
    with _stage(times, "export", "to ONNX, checked against JAX"):
        model = export.export(ExportConfig(run=config.out, weights=config.weights), photos)
    if result["split"] == FOLDS:
        with _stage(times, "predict", "photos by heads that had not seen them"):
            show(_out_of_fold(config, model))
    else:
        with _stage(times, "predict", "unseen photos, with the exported file alone"):
            show(_unseen(photos, model))
    show(_summary(config, result, times))
    warn(result["warnings"])


def _photos(config: RunConfig) -> tuple[Dataset, bool]:
    """The photos, which are looked up once, and whether they are cross-validated rather than divided.

    Raises as `sources.load_photos` and `_cross_validates`.
    """
    found = sources.find(sources.locate(config.data, config.data_dir))
    if config.folds != 0:
        whole = splitting.divide(found, ("train",) if config.folds else (), config.groups, undivided=True)
        whole = exclude_list.without(whole, config.exclude)
        if _cross_validates(config, whole):
            return whole, True
    return exclude_list.without(splitting.divide(found, SPLITS, config.groups), config.exclude), False


def _cross_validates(config: RunConfig, photos: Dataset) -> bool:
    """Whether the photos are cross-validated rather than divided, with a sentence where nobody asked for it.

    They are where `folds` asks for it, and where there are few photos, a split would have to be
    drawn from them, and the settings of the head allow it.

    Raises:
      UsageError: there are fewer photos of a class than folds, or the settings do not allow folds that are asked for.
    """
    if config.folds:
        _check_folded(config)
    records = [record for split in cross_validation.SPLITS for record in photos.split(split)]
    drawn = [split for split in SPLITS[1:] if not photos.split(split)]
    if config.folds is None and not (drawn and len(records) < FEW and _can_be_folded(config)):
        return False
    labels = np.array([record.label for record in records], np.int64)
    names = [record.group or f"\0{record.id}" for record in records]  # a photo of no group is one by itself
    cross_validation.check_folds(labels, np.unique(names, return_inverse=True)[1], photos.classes, config.folds)
    if config.folds is None:
        say(
            f"{len(records):,} photos to train on, fewer than {FEW}, and no {' and no '.join(drawn)} split: cross-validating, "
            "so that each photo trains and each is judged by heads that have not seen it; --folds 0 draws splits instead"
        )
    return True


def _check_folded(config: RunConfig) -> None:
    """Checks that a head of these settings can be cross-validated.

    Raises:
      UsageError: it cannot.
    """
    given = {field.name: getattr(config, field.name, None) for field in dataclasses.fields(Recipe)}
    training.resolve(config.preset, *training.for_folds(config.preset, config.head, given, config.sweep))


def _can_be_folded(config: RunConfig) -> bool:
    try:
        _check_folded(config)
    except UsageError:
        return False
    return True


def _folds(config: RunConfig, features: FeatureCache) -> int:
    """How many folds: as many as are asked for, else `cross_validation.FOLDS`, or fewer where a class has fewer photos."""
    if config.folds is not None:
        return config.folds
    return max(2, min(cross_validation.FOLDS, cross_validation.most_folds(features)))


def _pool_there(cache: Location, preset: str) -> Pool:
    """The pooling that the preset needs, or none, where the cache is there and keeps all cells.

    Raises:
      UsageError: the cache is there and cannot give what the preset needs.
    """
    needed = PRESETS[preset].pool
    kept = shards.kept(cache)
    there = kept and kept.pool
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


def _out_of_fold(config: RunConfig, model: Path) -> Table:
    """What heads that had not seen them say of a few photos of a cross-validation, taken evenly from it."""
    run, predictor = RunDirectory(config.out), Predictor(model)
    judged = run_files.read_out_of_fold(run, head.load(run.head))
    assert judged is not None  # it was trained so
    table = Table("photo", "is", "heads of other folds say", "probability")
    for row in range(0, len(judged.ids), max(1, len(judged.ids) // _SHOWN))[:_SHOWN]:
        probability = judged.probabilities[row]
        verdict = predictor.rule.decide(np.array([1 - probability, probability]))
        table.add_row(*_shown(judged.ids[row], predictor.classes[judged.labels[row]], verdict))
    return table


def _shown(name: str, truth: str, verdict: decision.Verdict) -> tuple[Text, Text, Text, str]:
    """A row of a table of verdicts."""
    doubtful = verdict.neither or verdict.sure is False
    style = "yellow" if doubtful else "green" if verdict.name == truth else "red"
    said = Text(decision.said(verdict.name, verdict.sure, verdict.neither), style)
    return Text(name), Text(truth), said, f"{verdict.probability:.1%}"


def _unseen(photos: Dataset, model: Path) -> Table:
    """What the exported model says of a few photos of the test split, taken evenly from it."""
    records = photos.split(TEST)
    predictor = Predictor(model)
    table = Table("photo", "is", "model says", "probability")
    for record in records[:: max(1, len(records) // _SHOWN)][:_SHOWN]:
        truth = predictor.classes[record.label]
        try:
            pixels = decoding.decode(record.read(), predictor.recipe)
        except decoding.ImageError as error:
            table.add_row(Text(record.id), Text(truth), Text(f"cannot be read: {error}", "yellow"))
            continue
        computed = predictor.compute(pixels[np.newaxis])
        strange = None if computed.strangeness is None else computed.strangeness[0]
        verdict = predictor.rule.decide(computed.probabilities[0], strange)
        table.add_row(*_shown(record.id, truth, verdict))
    return table


def _summary(config: RunConfig, result: dict[str, Any], times: dict[str, float]) -> Table:
    run = RunDirectory(config.out)
    model, page = run.model(), run.report(result["split"])
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
