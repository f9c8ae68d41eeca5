"""What each choice of the recipe is worth: one changed at a time, with several seeds and a paired test.

    python -m scripts.experiments.ablate --features runs/reproduce/features --forms runs/reproduce/photos \\
        --data dogs-vs-cats --keras-weights keras

Heads are trained on the training photos, stopped on the validation photos, and evaluated on the test
photos, by which no row chooses anything; ablation_rows.py lists them. Most rows share the cache
that reproduce.py extracts (7x7x512 cells, original and mirror images). Where other pixels go into
the convolutions they have to be computed again, so those rows, and a baseline of theirs, train on
fewer photos. The paired test is McNemar's exact one (1947; binomial on the photos that only one of
two heads gets right), seed 0 of a row against seed 0 of its baseline. Everything goes into one CSV
and one plot; a run that was cut off goes on from its rows. On 2 fast cores a row of the cache takes
one to three minutes, features of the first photos two to three, those of all photos with Keras'
weights seventeen, and those of 320 pixels half an hour; --precision bfloat16 takes a quarter of that on
a processor with AMX."""

import dataclasses
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tyro
from rich.table import Table
from scipy.stats import binomtest

from catdog_jax import jax_environment
from catdog_jax.config import THRESHOLD
from catdog_jax.console import console, progress_bar, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import calibration, fitting, rows
from catdog_jax.reporting import intervals
from catdog_jax.reporting.metrics import METRICS
from catdog_jax.reporting.predictions import Predictions
from scripts.experiments import figures, tables
from scripts.experiments.ablation_rows import AblateConfig, Variant, load, mixed, originals, variants


class Row(NamedTuple):
    """A row of ablation.csv: means over the seeds, and their extremes; `only_*` and `p_value` are McNemar's.

    The last three are of the validation photos, which stopped and calibrated the heads: the mistakes
    on squashed photos and on those at original size, and the log loss of all.
    """

    variant: str
    baseline: str
    train_rows: int
    test_photos: int
    seeds: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    interval_low: float
    interval_high: float
    log_loss: float
    ece: float
    only_right: int
    only_baseline_right: int
    p_value: float
    validation_mistakes: float
    original_mistakes: float
    validation_log_loss: float


def main(config: AblateConfig) -> list[Row]:
    """Fits every row that is missing, and writes the CSV after each.

    Raises:
      CatdogError: the cache or the photos cannot be used.
      UsageError: an option is out of its range.
    """
    if config.seeds < 1 or min(config.photos) < 2:
        raise UsageError(f"--seeds and --photos: expected 1 and 2 or more, found {config.seeds} and {config.photos}.")
    rows_of = variants(config.data is not None, config.keras_weights is not None, config.forms is not None)
    known = {one.name: one for one in rows_of}
    if unknown := [name for name in config.only if name not in known]:
        raise UsageError(f"--only: expected names of rows, found {unknown[0]!r}. They are: {'; '.join(known)}.")
    jax_environment.prepare()
    jax_environment.require_devices()
    chosen = [known[name] for name in known if not config.only or name in _with_baselines(config.only, known)]
    path = config.out / "ablation.csv"
    rows = {one.variant: one for one in tables.read(path, Row)} if config.only else {}
    judged: dict[str, dict[str, np.ndarray]] = {}
    with progress_bar("rows") as progress:
        task = progress.add_task("ablation", total=len(chosen))
        for place, variant in enumerate(chosen):
            progress.update(task, description=variant.name, completed=place)
            judged[variant.name] = _kept(variant, config)
            rows[variant.name] = row(variant, judged[variant.name], judged[variant.baseline])
            rows = {name: rows[name] for name in dict.fromkeys([*_names(), *rows]) if name in rows}
            atomic.write_bytes(path, tables.as_csv(Row._fields, rows.values(), digits=5))
        progress.update(task, description="ablation", completed=len(chosen))
    found = list(rows.values())
    atomic.write_bytes(config.out / "ablation.png", plot(found))
    show(shown(found))
    return found


def _names() -> list[str]:
    return [one.name for one in variants(subset=True, keras=True, sizes=True)]


def _with_baselines(names: Sequence[str], known: dict[str, Variant]) -> set[str]:
    baselines = {known[name].baseline for name in names}
    return set(names) | baselines | {known[name].baseline for name in baselines}


def _kept(variant: Variant, config: AblateConfig) -> dict[str, np.ndarray]:
    """What `fit` returns, from an earlier run where it is there."""
    key = sealed.sha256_of_json([dataclasses.asdict(variant), config.seeds, list(config.photos), config.precision])[:16]
    path = config.work / "judged" / f"{key}.npz"
    if not path.exists():
        buffer = io.BytesIO()
        np.savez(buffer, **fit(variant, config))
        atomic.write_bytes(path, buffer.getvalue())
    with np.load(path) as file:
        return dict(file)


def fit(variant: Variant, config: AblateConfig) -> dict[str, np.ndarray]:
    """Calibrated probabilities [seeds, test photos] of the second class, the labels, and the count of training rows;
    the same of the validation photos, and which of those are at their original size."""
    training, validation, tests = load(variant, config)
    scaling = rows.measure(training) if variant.recipe.standardise else rows.UNSCALED
    count = np.array(sum(len(load_chunk().y) for load_chunk in training))
    if variant.mixup:
        training = mixed(training, variant.mixup)
    probabilities, validated, validation_labels = [], [], np.zeros(0)
    for seed in range(1 if variant.recipe.pool == "none" else config.seeds):
        fitted = fitting.fit(variant.recipe, training, validation, scaling, seed)
        of_validation, validation_labels = fitting.logits(fitted.params, validation, scaling)
        told = calibration.calibrate(of_validation, validation_labels)
        validated.append(_probability(of_validation, told.temperature))
        logits, labels = zip(*(fitting.logits(fitted.params, test, scaling) for test in tests), strict=True)
        probabilities.append(_probability(np.mean(logits, axis=0, dtype=np.float64), told.temperature))
    if variant.averaged:
        probabilities, validated = ([np.mean(each, axis=0)] for each in (probabilities, validated))
    return {
        "probabilities": np.stack(probabilities),
        "labels": labels[0],
        "train_rows": count,
        "validated": np.stack(validated),
        "validation_labels": validation_labels,
        "validation_originals": originals(variant, config),
    }


def _probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))


def row(variant: Variant, judged: dict[str, np.ndarray], baseline: dict[str, np.ndarray]) -> Row:
    """What a variant's probabilities are worth, beside those of its baseline.

    Args:
      variant: the row's.
      judged: of `fit`.
      baseline: of `fit`, on the same test photos.
    """
    labels = judged["labels"]
    checked = [Predictions.checked(labels, probabilities) for probabilities in judged["probabilities"]]
    each = [{name: float(METRICS[name].compute(rows)) for name in ("accuracy", "log_loss", "ece")} for rows in checked]
    accuracies = np.array([row["accuracy"] for row in each])
    ours, theirs = ((one["probabilities"][0] >= THRESHOLD) == (labels > 0.5) for one in (judged, baseline))
    only, only_baseline = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = binomtest(only, only + only_baseline).pvalue if only + only_baseline else 1.0
    low, high = intervals.wilson(accuracies.mean(), len(labels))
    wrong = (judged["validated"] >= THRESHOLD) != (judged["validation_labels"] > 0.5)
    of_originals = judged["validation_originals"]
    signed = np.where(judged["validation_labels"] > 0.5, judged["validated"], 1 - judged["validated"])
    return Row(
        variant=variant.name,
        baseline=variant.baseline,
        train_rows=int(judged["train_rows"]),
        test_photos=len(labels),
        seeds=len(each),
        accuracy=float(accuracies.mean()),
        accuracy_low=float(accuracies.min()),
        accuracy_high=float(accuracies.max()),
        interval_low=float(low),
        interval_high=float(high),
        log_loss=float(np.mean([row["log_loss"] for row in each])),
        ece=float(np.mean([row["ece"] for row in each])),
        only_right=only,
        only_baseline_right=only_baseline,
        p_value=float(p_value),
        validation_mistakes=float(wrong[:, ~of_originals].sum(axis=1).mean()),
        original_mistakes=float(wrong[:, of_originals].sum(axis=1).mean()),
        validation_log_loss=float(-np.log(np.maximum(signed, np.finfo(np.float64).tiny)).mean()),
    )


def plot(rows: Sequence[Row]) -> bytes:
    """The accuracy of each row with its 95 % Wilson interval, as PNG."""
    return figures.dots(
        [(one.variant, one.accuracy, one.interval_low, one.interval_high) for one in rows], "test accuracy"
    )


def shown(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    found = Table(
        "",
        "training rows",
        "accuracy",
        "of the seeds",
        "log loss",
        "only it | only its baseline right",
        "McNemar p",
        "validation mistakes, originals, log loss",
    )
    for one in rows:
        found.add_row(
            one.variant,
            f"{one.train_rows:,}",
            f"{one.accuracy:.2%} ({one.interval_low:.1%} - {one.interval_high:.1%})",
            f"{one.accuracy_low:.2%} - {one.accuracy_high:.2%}",
            f"{one.log_loss:.4f}",
            "" if one.variant == one.baseline else f"{one.only_right} | {one.only_baseline_right} of {one.baseline}",
            "" if one.variant == one.baseline else f"{one.p_value:.2g}",
            f"{one.validation_mistakes:.1f}, {one.original_mistakes:.1f}, {one.validation_log_loss:.4f}",
        )
    return found


if __name__ == "__main__":
    try:
        main(tyro.cli(AblateConfig, prog="python -m scripts.experiments.ablate", description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(error.exit_status) from None
