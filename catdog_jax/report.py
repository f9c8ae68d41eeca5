"""One self-contained HTML page that shows how good a head is: figures, plots, the worst mistakes with their photos.

Pure functions of plain data. The plots are inline SVG whose colours are the page's CSS variables, so they follow the light
or dark mode of the reader. Names of photos and classes come from strangers: every one is escaped, none enters a plot, and
the page's content security policy admits no script and nothing from outside.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from catdog_jax import __version__, images
from catdog_jax.config import THRESHOLD
from catdog_jax.plots import PALETTE, History, Json, curves, reliability, roc

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
    title = _text(" or ".join(metrics["classes"]))
    sections = [
        _section("Metrics", _metrics_table(metrics)),
        _pair(
            _section("Confusion matrix", _confusion_table(metrics)),
            _section("ROC curve", _figure(roc(labels, probabilities), _ROC)),
        ),
        _pair(
            _section("Calibration", _figure(reliability(metrics["calibration"]), _CALIBRATION)),
            _section("Training", _training(history)),
        ),
        _section("Worst mistakes", _gallery(metrics, photos or {}, photos_note)),
        _section("Photos left out", _skipped(metrics["skipped"])),
        _section("Configuration", "".join(_details(name, values) for name, values in (configuration or {}).items())),
    ]
    return _PAGE.format(
        title=title, style=_stylesheet(), header=_header(title, metrics), sections="\n".join(sections), version=__version__
    )


def thumbnail(photo: bytes) -> bytes:
    """A photo as the model sees it, squashed to a square, as a small JPEG.

    Raises:
      images.ImageError: the photo cannot be decoded.
    """
    buffer = io.BytesIO()
    Image.fromarray(images.decode(photo, THUMBNAIL)).save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def format_value(name: str, value: float) -> str:
    """A metric's value as it is printed: shares in per cent, the rest with four decimals."""
    return f"{100 * value:.2f}{_PERCENT}" if METRICS[name].percent else f"{value:.4f}"


def format_interval(name: str, metric: Json) -> str:
    """A metric's interval as it is printed."""
    return f"{format_value(name, metric['low']).removesuffix(_PERCENT)} – {format_value(name, metric['high'])}"


def _text(value: object) -> str:
    return html.escape(str(value))


def _code(name: str) -> str:
    return f"<code>{_text(name).replace('/', '/<wbr>')}</code>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _pair(*sections: str) -> str:
    return f'<div class="pair">{"".join(sections)}</div>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _table(rows: Iterable[str], head: Sequence[str] = (), caption: str = "", kind: str = "") -> str:
    """A table of rows that are cells already; the first column of the head is the rows' own."""
    parts = [f"<caption>{caption}</caption>"] if caption else []
    if head:
        cells = (f'<th scope="col">{name}</th>' if name else "<td></td>" for name in head)
        parts.append(f"<thead><tr>{''.join(cells)}</tr></thead>")
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="{kind}">{"".join(parts)}<tbody>{body}</tbody></table>'


def _header(title: str, metrics: Json) -> str:
    mistakes = metrics["confusion"][0][1] + metrics["confusion"][1][0]
    count = f"{mistakes:,} mistake{'' if mistakes == 1 else 's'} in {metrics['n']:,} {metrics['split']} photos"
    cards = "".join(
        f'<div class="card"><dt>{METRICS[name].title}</dt><dd>{format_value(name, metrics["metrics"][name]["value"])}</dd>'
        f"<dd>{format_interval(name, metrics['metrics'][name])}</dd></div>"
        for name in _CARDS
    )
    note = f'<p class="note">{_NOTES[metrics["split"]]}</p>' if metrics["split"] in _NOTES else ""
    return f'<header><p>Evaluation report</p><h1>{title}</h1><p>{count}.</p>{note}<dl class="cards">{cards}</dl></header>'


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

    caption = (
        f"Positive: {_text(metrics['classes'][1])}, at a probability of {metrics['threshold']:g} or more. Percentile intervals "
        f"over {metrics['bootstrap']['resamples']:,} resamples of the photos."
    )
    head = ["Metric", *(f"{name}<small>95{_PERCENT} interval</small>" for name in columns)]
    return _table(map(row, metrics["metrics"]), head, caption, "metrics")


def _confusion_table(metrics: Json) -> str:
    classes = [_text(name) for name in metrics["classes"]]

    def row(true: int) -> str:
        counts = metrics["confusion"][true]
        cells = (
            f'<td class="{"right" if true == judged else "wrong"}" style="--share:{count / sum(counts):.3f}">'
            f"{count:,}<small>{100 * count / sum(counts):.1f}{_PERCENT}</small></td>"
            for judged, count in enumerate(counts)
        )
        return f'<th scope="row">{classes[true]}</th>{"".join(cells)}'

    head = ["", *(f"judged {name}" for name in classes)]
    return _table(map(row, (0, 1)), head, "A row holds the photos of one class; shares are of the row.", "confusion")


def _training(history: History | None) -> str:
    if not history:
        return "<p>The run directory holds no history.csv.</p>"
    return _figure(curves(history, "loss", "Loss") + curves(history, "accuracy", "Accuracy"), _TRAINING)


def _gallery(metrics: Json, photos: Mapping[str, bytes], note: str) -> str:
    if not metrics["worst"]:
        return "<p>There is none: every photo is judged right.</p>"

    def item(one: Json) -> str:
        sure = one["probability"] if one["prediction"] == metrics["classes"][1] else 1 - one["probability"]
        picture = '<span class="missing">no photo</span>'
        if jpeg := photos.get(one["id"]):
            source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
            picture = (
                f'<img src="{source}" width="{THUMBNAIL}" height="{THUMBNAIL}" alt="Photo labelled {_text(one["label"])}">'
            )
        return (
            f"<li><figure>{picture}<figcaption><b>{_text(one['prediction'])}</b> {_percent(sure)}"
            f"<br>labelled {_text(one['label'])}{_code(one['id'])}</figcaption></figure></li>"
        )

    intro = "The most confident mistakes first, as the model sees them, with the probability of the class it chose."
    missing = f'<p class="note">{_text(note)}</p>' if note else ""
    return f'<p>{intro}</p>{missing}<ul class="gallery">{"".join(map(item, metrics["worst"]))}</ul>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}{_PERCENT}" if share < 0.9999 else f"over 99.99{_PERCENT}"


def _skipped(skipped: Sequence[Json]) -> str:
    if not skipped:
        return "<p>None: every photo of the split was judged.</p>"
    rows = (f'<th scope="row">{_code(one["id"])}</th><td>{_text(one["reason"])}</td>' for one in skipped)
    return f"<p>{len(skipped):,} could not be decoded and count nowhere.</p>{_table(rows, ('Photo', 'Reason'))}"


def _details(title: str, values: Json) -> str:
    def row(key: str) -> str:
        value = values[key] if isinstance(values[key], str) else json.dumps(values[key], default=str)
        shown = value if len(value) <= 300 else f"{value[:300]}… ({len(value):,} characters)"
        return f'<th scope="row">{_text(key)}</th><td>{_code(shown)}</td>'

    return f"<details><summary>{_text(title)}</summary>{_table(map(row, sorted(values)))}</details>"


def _stylesheet() -> str:
    light, dark = ("".join(f"--{name}:{pair[mode]};" for name, pair in PALETTE.items()) for mode in (0, 1))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}"


_CSS = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:3rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
 font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
header>p:first-child{margin:0;color:var(--muted);font-size:.8rem;letter-spacing:.08em;text-transform:uppercase}
h1{margin:.2rem 0 .3rem;font-size:2.25rem;line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:0 0 .9rem;font-size:1.15rem;letter-spacing:-.01em}
p{margin:0 0 1rem;overflow-wrap:anywhere}
section{margin-top:2.75rem;min-width:0}
small,caption,figcaption,footer{color:var(--muted);font-size:.82rem;font-weight:400;line-height:1.45}
small,.gallery code{display:block}
code{overflow-wrap:anywhere;unicode-bidi:isolate;font:.78rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{margin-top:3.5rem}
.note{padding-left:.8rem;border-left:3px solid var(--error)}
.pair{display:grid;grid-template-columns:1fr 1fr;column-gap:3rem}

.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:.9rem;margin:1.75rem 0 0}
.card{padding:1rem 1.1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.card :is(dt,dd){margin:0;color:var(--muted);font-size:.82rem}
.card dt+dd{color:var(--ink);font-size:1.75rem;font-weight:600;letter-spacing:-.02em;line-height:1.35}

table{width:100%;border-collapse:collapse}
caption{padding-bottom:.6rem;text-align:left}
th,td{padding:.5rem .75rem .5rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400}
thead th{font-size:.85rem}
.metrics tbody th{font-weight:600}
.metrics :is(td,th+th){text-align:right}
.metrics td small{white-space:nowrap}
.metrics :is(td,th):last-child{padding-right:0}
.confusion{border-collapse:separate;border-spacing:.3rem;table-layout:fixed}
.confusion :is(td,th){padding:.4rem;border:0;overflow-wrap:anywhere;vertical-align:middle}
.confusion th+th,.confusion thead th{text-align:center}
.confusion tbody td{padding:2.2rem .4rem;border-radius:.4rem;text-align:center;font-size:1.5rem;font-weight:600;line-height:1.3;
 background:color-mix(in srgb,var(--tint) calc(10% + 25%*var(--share)),var(--card))}
.right{--tint:var(--accent)}
.wrong{--tint:var(--error)}

figure{margin:0}
svg{display:block;width:100%;height:auto}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.25rem,1fr));gap:1.4rem 1rem;
 margin:0;padding:0;list-style:none}
.gallery :is(img,.missing){display:grid;place-items:center;width:100%;max-width:160px;height:auto;aspect-ratio:1;
 margin-bottom:.45rem;border-radius:.4rem}
.missing{border:1px dashed var(--line);color:var(--muted);font-size:.82rem}
.gallery b{color:var(--error)}

details{border-top:1px solid var(--line)}
details:last-child{border-bottom:1px solid var(--line)}
details table{margin:0 0 1.2rem;table-layout:fixed}
details th{width:30%;color:var(--muted);font-size:.85rem;overflow-wrap:anywhere}
summary{padding:.6rem 0;cursor:pointer}

@media(max-width:46rem){
 body{padding-top:1.75rem}
 h1{font-size:1.8rem}
 .cards{grid-template-columns:1fr 1fr}
 .card dt+dd{font-size:1.4rem}
 .pair{display:block}
 .gallery{grid-template-columns:1fr 1fr}
}
@media print{body{max-width:none;padding:0}section,li{break-inside:avoid}}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: evaluation report</title>
<style>{style}</style>
</head>
<body>
{header}
<main>
{sections}
</main>
<footer>catdog_jax {version}</footer>
</body>
</html>
"""
