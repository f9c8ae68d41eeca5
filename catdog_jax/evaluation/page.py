"""One self-contained HTML page that shows how good a head is: figures, plots, the worst mistakes with their photos.

Pure functions of plain data. The plots are inline SVG whose colours are the page's CSS variables,
so they follow the light or dark mode of the reader; no text of strangers enters them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from catdog_jax.config import THRESHOLD
from catdog_jax.evaluation import explained
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.reporting import html
from catdog_jax.reporting.intervals import METHODS
from catdog_jax.reporting.metrics import METRICS, PERCENT, Measured, baseline, photos_of, shown
from catdog_jax.reporting.plots import History, Json, curves, reliability, roc

THUMBNAIL = 160  # width and height in pixels, as recipes may have it
_CARDS = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "ece")  # the first four that there are
_LONGEST = 300  # characters of a setting that are shown
_NOTES = {
    "train": "The head was trained on these photos: the figures say nothing about new ones.",
    "validation": "Training stopped by the loss on these photos, so the figures flatter it a little. "
    "Evaluate the test split too.",
    "folds": "So the head that is kept should be a little better than the figures say; its temperature was fitted to these "
    "same probabilities.",
}


def render(
    metrics: Json,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    history: History | None = None,
    photos: Mapping[str, bytes] | None = None,
    photos_note: str = "",
    configuration: Mapping[str, Json] | None = None,
) -> str:
    """The page as one HTML document.

    `metrics` are the contents of metrics.json, of this version or an earlier one; `history` has
    the columns of history.csv. `photos` are JPEG thumbnails by the id of the photo, of which
    some may lack one: `photos_note` says why. `configuration` is listed at the end: heading ->
    its keys and values.
    """
    name = " or ".join(metrics["classes"])
    measured = _measured(metrics["metrics"])
    columns = {"Value": measured}
    if averaged := metrics.get("views_averaged"):
        columns = {"Original photo": measured, f"Mean of {averaged['views']} views": _measured(averaged["metrics"])}
    mistakes = metrics["confusion"][0][1] + metrics["confusion"][1][0]
    classes, guess = metrics["classes"], baseline(metrics["confusion"], metrics["classes"])
    threshold = metrics.get("threshold", THRESHOLD)
    epochs = len(history["epoch"]) if history is not None else 0
    told = [f"{metrics['photos']}."] if metrics["split"] == "folds" else []
    told += [_NOTES[metrics["split"]]] if metrics["split"] in _NOTES else []
    return html.render(
        "evaluation.html.j2",
        title=f"{name}: evaluation report",
        name=name,
        count=f"{mistakes:,} mistake{'' if mistakes == 1 else 's'} in {metrics['n']:,} {photos_of(metrics['split'])}",
        guess=f"Always answering “{guess.name}” would be right for {METRICS['accuracy'].shown(guess.accuracy)} of them",
        abstention=abstention(metrics["abstention"]).capitalize() if "abstention" in metrics else "",
        neither=neither(metrics["neither"], metrics["n"]).capitalize() if "neither" in metrics else "",
        notes=[*told, *metrics.get("warnings", [])],
        cards=[
            (METRICS[key].titled(classes), *shown(key, measured[key]))
            for key in [key for key in _CARDS if key in measured][:4]
        ],
        percent=PERCENT,
        columns=list(columns),
        metrics=[
            (
                METRICS[key].titled(classes),
                METRICS[key].explained(classes),
                [shown(key, column[key]) for column in columns.values()],
                f"baseline {METRICS[key].shown(guess.accuracy)}" if key == "accuracy" else "",
            )
            for key in measured
        ],
        caption=_caption(metrics, measured),
        classes=classes,
        confusion=metrics["confusion"],
        roc=roc(labels, probabilities, threshold),
        threshold=f"{threshold:.3g}",
        reliability=reliability(metrics["calibration"]),
        explained={
            "figures": explained.figures(metrics, measured),
            "confusion": explained.confusion(metrics),
            "roc": explained.roc(metrics),
            "calibration": explained.calibration(metrics, measured),
            "training": explained.training(history),
        },
        training=curves(history, "loss", "Loss") + curves(history, "accuracy", "Accuracy")
        if history and epochs > 1
        else "",
        no_training="There is one epoch, and so no curve: a linear head is fitted exactly, at once."
        if epochs
        else "The run directory holds no history.csv.",
        which="The" if len(metrics["worst"]) == mistakes else f"{len(metrics['worst']):,} of {mistakes:,}, the",
        worst=[_mistake(mistake, metrics["classes"], photos or {}) for mistake in metrics["worst"]],
        photos_note=photos_note,
        size=(THUMBNAIL, THUMBNAIL),
        skipped=metrics["skipped"],
        configuration=[(heading, _settings(values)) for heading, values in (configuration or {}).items()],
    )


def thumbnail(photo: bytes, recipe: DecodingRecipe) -> bytes:
    """A photo as the model sees it, a square by its recipe, as a small JPEG.

    Raises:
      decoding.ImageError: the photo cannot be decoded.
    """
    return html.jpeg(Image.fromarray(decoding.decode(photo, dataclasses.replace(recipe, size=THUMBNAIL))))


def abstention(sure: Json) -> str:
    """How good a head is where it does not abstain, in one line; of a file written before, without intervals."""

    def share(name: str) -> str:
        value = f"{100 * sure[name]:.2f}{PERCENT}"
        if f"{name}_low" not in sure:
            return value
        return f"{value} ({100 * sure[f'{name}_low']:.2f} – {100 * sure[f'{name}_high']:.2f}{PERCENT})"

    return f"confidence {sure['abstain_below']:.3f} or more: {share('coverage')} of them, {share('accuracy')} right"


def neither(strangers: Json, photos: int) -> str:
    """How many photos are called neither, in one line."""
    low, high = (f"{100 * strangers[end]:.2f}" for end in ("low", "high"))
    return (
        f"called neither (strangeness above {strangers['strange_above']:.3f}): {strangers['count']:,} of {photos:,}, "
        f"{100 * strangers['share']:.2f}{PERCENT} ({low} – {high}{PERCENT})"
    )


def confidence(probability: float) -> str:
    """How sure a model is, as it is printed: never fully."""
    return f"{100 * probability:.2f}{PERCENT}" if probability < 0.9999 else f"over 99.99{PERCENT}"


def _measured(metrics: Mapping[str, Json]) -> dict[str, Measured]:
    return {name: Measured.from_json(metric) for name, metric in metrics.items()}


def _caption(metrics: Json, measured: Mapping[str, Measured]) -> str:
    """What is positive and how the intervals were made; older files have percentiles of resamples throughout."""
    threshold = metrics.get("threshold", THRESHOLD)
    positive = f"Positive: {metrics['classes'][1]}, at a probability of {threshold:.3g} or more."
    titles: dict[str, list[str]] = {}
    for name, metric in measured.items():
        titles.setdefault(metric.method, []).append(METRICS[name].title)
    methods = " ".join(f"{', '.join(names)}: {METHODS.get(method, method)}" for method, names in titles.items())
    if "" in titles:
        methods = f"percentiles over {metrics['bootstrap']['resamples']:,} resamples of the photos."
    return f"{positive} Intervals: {methods}"


def _mistake(mistake: Json, classes: Sequence[str], photos: Mapping[str, bytes]) -> dict[str, Any]:
    probability = mistake["probability"] if mistake["prediction"] == classes[1] else 1 - mistake["probability"]
    return {**mistake, "sure": confidence(probability), "jpeg": photos.get(mistake["id"])}


def _settings(values: Json) -> list[tuple[str, str]]:
    """Settings in the order of their names, each as text of bounded length."""
    texts = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in values.items()}
    return [
        (key, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)")
        for key, text in sorted(texts.items())
    ]
