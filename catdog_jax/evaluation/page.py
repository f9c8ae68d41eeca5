"""One self-contained HTML page that shows how good a head is: figures, plots, the worst mistakes with their photos.

Pure functions of plain data. The plots are inline SVG whose colours are the page's CSS variables,
so they follow the light or dark mode of the reader. Names of photos and classes come from
strangers: every one is escaped, none enters a plot, and the page's content security policy admits
no script and nothing from outside.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from catdog_jax.config import THRESHOLD
from catdog_jax.photos import decoding
from catdog_jax.reporting.html import code, jpeg, page, picture, section, table, text
from catdog_jax.reporting.intervals import METHODS
from catdog_jax.reporting.plots import History, Json, curves, reliability, roc

THUMBNAIL = 160  # width and height in pixels
_PERCENT = "\u202f%"  # after a narrow space that does not break


class Metric(NamedTuple):
    """How a metric is shown."""

    title: str
    meaning: str
    percent: bool


METRICS = {
    "accuracy": Metric("Accuracy", "share of the photos that are judged right", True),
    "precision": Metric("Precision", "of the photos judged positive, the share that are", True),
    "recall": Metric("Recall", "of the positive photos, the share that are found", True),
    "f1": Metric("F1", "harmonic mean of precision and recall", True),
    "roc_auc": Metric("ROC AUC", "how often a positive photo ranks above a negative one", False),
    "log_loss": Metric("Log loss", "mean surprise at the right class, in nats; lower is better", False),
    "brier": Metric("Brier score", "mean squared error of the probability; lower is better", False),
    "ece": Metric("Calibration error", "mean gap between confidence and accuracy; lower is better", False),
}
_CARDS = ("accuracy", "f1", "roc_auc", "ece")
_ROC = f"Each point is a threshold; the dot is the one in use, {THRESHOLD}."
_CALIBRATION = (
    "On the dashed line the model is right as often as it is sure. Lines: 95 % Wilson intervals. Counts on a log scale."
)
_TRAINING = "The epoch with the lowest validation loss is the one that was kept."
_NOTES = {
    "train": "The head was trained on these photos: the figures say nothing about new ones.",
    "validation": "Training stopped by the loss on these photos, so the figures flatter it a little. Judge the test split too.",
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

    Args:
      metrics: what `evaluate.summarise` returns, the contents of metrics.json.
      labels: [N], 0 or 1.
      probabilities: [N], of class 1.
      history: the columns of history.csv, where there is one.
      photos: JPEG thumbnails by the id of the photo (see `thumbnail`); an id may lack one.
      photos_note: why thumbnails are missing, in a sentence.
      configuration: what is listed at the end: heading -> its keys and values.
    """
    title = text(" or ".join(metrics["classes"]))
    sections = [
        section("Metrics", _metrics_table(metrics)),
        _pair(
            section("Confusion matrix", _confusion_table(metrics)),
            section("ROC curve", _figure(roc(labels, probabilities), _ROC)),
        ),
        _pair(
            section("Calibration", _figure(reliability(metrics["calibration"]), _CALIBRATION)),
            section("Training", _training(history)),
        ),
        section("Worst mistakes", _gallery(metrics, photos or {}, photos_note)),
        section("Photos left out", _skipped(metrics["skipped"])),
        section("Configuration", "".join(_details(name, values) for name, values in (configuration or {}).items())),
    ]
    return page(f"{title}: evaluation report", _header(title, metrics), sections)


def thumbnail(photo: bytes) -> bytes:
    """A photo as the model sees it, squashed to a square, as a small JPEG.

    Raises:
      images.ImageError: the photo cannot be decoded.
    """
    return jpeg(Image.fromarray(decoding.decode(photo, THUMBNAIL)))


def format_value(name: str, value: float) -> str:
    """A metric's value as it is printed: shares in per cent, the rest with four decimals."""
    return f"{100 * value:.2f}{_PERCENT}" if METRICS[name].percent else f"{value:.4f}"


def format_interval(name: str, metric: Json) -> str:
    """A metric's interval as it is printed, or what stands in its place."""
    if metric["low"] is None:
        return f"chance ≤ {format_value(name, metric['by_chance'])}" if "by_chance" in metric else "few mistakes"
    return f"{format_value(name, metric['low']).removesuffix(_PERCENT)} – {format_value(name, metric['high'])}"


def abstention(sure: Json) -> str:
    """How good a head is where it does not abstain, in one line; of a file written before, without intervals."""

    def shown(name: str) -> str:
        share = f"{100 * sure[name]:.2f}{_PERCENT}"
        if f"{name}_low" not in sure:
            return share
        return f"{share} ({100 * sure[f'{name}_low']:.2f} – {100 * sure[f'{name}_high']:.2f}{_PERCENT})"

    return f"confidence {sure['abstain_below']:.3f} or more: {shown('coverage')} of them, {shown('accuracy')} right"


def _pair(*sections: str) -> str:
    return f'<div class="pair">{"".join(sections)}</div>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _header(title: str, metrics: Json) -> str:
    mistakes = _mistakes(metrics)
    count = f"{mistakes:,} mistake{'' if mistakes == 1 else 's'} in {metrics['n']:,} {metrics['split']} photos"
    cards = "".join(
        f'<div class="card"><dt>{METRICS[name].title}</dt><dd>{format_value(name, metrics["metrics"][name]["value"])}</dd>'
        f"<dd>{format_interval(name, metrics['metrics'][name])}</dd></div>"
        for name in _CARDS
    )
    said = [_NOTES[metrics["split"]]] if metrics["split"] in _NOTES else []
    notes = "".join(f'<p class="note">{text(one)}</p>' for one in [*said, *metrics.get("warnings", [])])
    sure = f"<p>{text(abstention(metrics['abstention'])).capitalize()}.</p>" if "abstention" in metrics else ""
    top = f"<p>Evaluation report</p><h1>{title}</h1><p>{count}.</p>{sure}{notes}"
    return f'<header>{top}<dl class="cards">{cards}</dl></header>'


def _mistakes(metrics: Json) -> int:
    return metrics["confusion"][0][1] + metrics["confusion"][1][0]


def _metrics_table(metrics: Json) -> str:
    columns = {"Value": metrics["metrics"]}
    if averaged := metrics.get("views_averaged"):
        columns = {"Original photo": metrics["metrics"], f"Mean of {averaged['views']} views": averaged["metrics"]}

    def row(name: str) -> str:
        cells = (
            f"<td>{format_value(name, one[name]['value'])}<small>{format_interval(name, one[name])}</small></td>"
            for one in columns.values()
        )
        return f'<th scope="row">{METRICS[name].title}<small>{METRICS[name].meaning}</small></th>{"".join(cells)}'

    positive = f"Positive: {text(metrics['classes'][1])}, at a probability of {metrics['threshold']:g} or more."
    caption = f"{positive} Intervals: {_methods(metrics)}"
    head = ["Metric", *(f"{name}<small>95{_PERCENT} interval</small>" for name in columns)]
    return table(map(row, metrics["metrics"]), head, caption, "metrics")


def _methods(metrics: Json) -> str:
    """How the intervals were made, as a footnote; files written before have percentiles of resamples throughout."""
    titles: dict[str, list[str]] = {}
    for name, one in metrics["metrics"].items():
        titles.setdefault(one.get("method", ""), []).append(METRICS[name].title)
    if "" in titles:
        return f"percentiles over {metrics['bootstrap']['resamples']:,} resamples of the photos."
    return " ".join(f"{', '.join(names)}: {text(METHODS.get(method, method))}" for method, names in titles.items())


def _confusion_table(metrics: Json) -> str:
    classes = [text(name) for name in metrics["classes"]]

    def row(true: int) -> str:
        counts = metrics["confusion"][true]
        cells = (
            f'<td class="{"right" if true == judged else "wrong"}" style="--share:{count / sum(counts):.3f}">'
            f"{count:,}<small>{100 * count / sum(counts):.1f}{_PERCENT}</small></td>"
            for judged, count in enumerate(counts)
        )
        return f'<th scope="row">{classes[true]}</th>{"".join(cells)}'

    head = ["", *(f"judged {name}" for name in classes)]
    return table(map(row, (0, 1)), head, "A row holds the photos of one class; shares are of the row.", "confusion")


def _training(history: History | None) -> str:
    if not history:
        return "<p>The run directory holds no history.csv.</p>"
    return _figure(curves(history, "loss", "Loss") + curves(history, "accuracy", "Accuracy"), _TRAINING)


def _gallery(metrics: Json, photos: Mapping[str, bytes], note: str) -> str:
    if not metrics["worst"]:
        return "<p>There is none: every photo is judged right.</p>"

    def item(one: Json) -> str:
        sure = one["probability"] if one["prediction"] == metrics["classes"][1] else 1 - one["probability"]
        shown = picture(photos.get(one["id"]), (THUMBNAIL, THUMBNAIL), f"Photo labelled {one['label']}")
        return (
            f"<li><figure>{shown}<figcaption><b>{text(one['prediction'])}</b> {_percent(sure)}"
            f"<br>labelled {text(one['label'])}{code(one['id'])}</figcaption></figure></li>"
        )

    given, made = len(metrics["worst"]), _mistakes(metrics)
    which = "The" if given == made else f"{given:,} of {made:,}, the"
    intro = (
        f"{which} most confident mistakes first, as the model sees them, with the probability of the class it chose."
    )
    missing = f'<p class="note">{text(note)}</p>' if note else ""
    return f'<p>{intro}</p>{missing}<ul class="gallery">{"".join(map(item, metrics["worst"]))}</ul>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}{_PERCENT}" if share < 0.9999 else f"over 99.99{_PERCENT}"


def _skipped(skipped: Sequence[Json]) -> str:
    if not skipped:
        return "<p>None: every photo of the split was judged.</p>"
    rows = (f'<th scope="row">{code(one["id"])}</th><td>{text(one["reason"])}</td>' for one in skipped)
    return f"<p>{len(skipped):,} could not be decoded and count nowhere.</p>{table(rows, ('Photo', 'Reason'))}"


def _details(title: str, values: Json) -> str:
    def row(key: str) -> str:
        value = values[key] if isinstance(values[key], str) else json.dumps(values[key], default=str)
        shown = value if len(value) <= 300 else f"{value[:300]}… ({len(value):,} characters)"
        return f'<th scope="row">{text(key)}</th><td>{code(shown)}</td>'

    return f"<details><summary>{text(title)}</summary>{table(map(row, sorted(values)))}</details>"
