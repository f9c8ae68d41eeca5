"""The plots of the report: inline SVG whose colours are the page's CSS variables, so that they follow its light or dark mode.

They are drawn with matplotlib's objects; its global state is left alone. No text of strangers
enters them.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from sklearn.metrics import roc_curve

from catdog_jax.config import THRESHOLD
from catdog_jax.reporting.html import PALETTE
from catdog_jax.reporting.intervals import wilson

Json = Mapping[str, Any]
History = Mapping[str, Sequence[float]]  # a column of history.csv -> one value an epoch
_INK, _MUTED, _LINE, _PAPER, _CARD, _ACCENT, _ERROR = (light for light, _ in PALETTE.values())


def roc(labels: np.ndarray, probabilities: np.ndarray, threshold: float = THRESHOLD) -> Markup:
    """The ROC curve with the threshold in use marked; a good one is also shown enlarged, as it hugs the corner."""
    false_positive, true_positive, _ = roc_curve(labels, probabilities)
    positive = probabilities >= threshold
    here = positive[labels == 0].mean(), positive[labels == 1].mean()
    figure, axes = _axes("False positive rate", "True positive rate")
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, dashes=(4, 3))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    both = [axes]
    if here[0] <= 0.1 and here[1] >= 0.9:
        corner = axes.inset_axes((0.36, 0.16, 0.58, 0.56), xlim=(-0.002, 0.102), ylim=(0.898, 1.002))
        corner.set(xticks=[0, 0.05, 0.1], yticks=[0.9, 0.95, 1])
        style(corner)
        corner.set_facecolor(_PAPER)
        corner.text(0.1, 0.902, "the corner, enlarged", fontsize=7.5, color=_MUTED, ha="right")
        both.append(corner)
    for drawn in both:
        drawn.plot(false_positive, true_positive, color=_ACCENT, linewidth=1.6, clip_on=drawn is not axes)
        drawn.plot(*here, "o", color=_ERROR, markersize=4.5)
    return _svg(figure, "roc", "ROC curve: true positive rate against false positive rate")


def reliability(bins: Sequence[Json]) -> Markup:
    """Accuracy against confidence for each bin, with 95 % Wilson intervals, over a histogram of the confidences."""
    filled = [bin for bin in bins if bin["count"]]
    count, x, y = (np.array([bin[key] for bin in filled], float) for key in ("count", "confidence", "accuracy"))
    figure = Figure(figsize=(4.2, 3.7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    low, high = wilson(y, count)
    upper.plot([0.5, 1], [0.5, 1], color=_MUTED, linewidth=0.8, dashes=(4, 3))
    upper.vlines(x, low, high, color=_ACCENT, linewidth=1.2, alpha=0.55)
    upper.plot(x, y, "o-", color=_ACCENT, linewidth=1.2, markersize=4)
    upper.set(ylabel="Accuracy", xlim=(0.49, 1.01), ylim=(min(0.45, low.min() - 0.03), 1.03))
    left = np.array([max(bin["low"], 0.5) for bin in filled])
    width = np.array([bin["high"] for bin in filled]) - left
    lower.bar(left, count, width=width, align="edge", color=_ACCENT, alpha=0.75, edgecolor=_PAPER, linewidth=0.8)
    lower.set(
        xlabel="Confidence in the more probable class", ylabel="Photos", yscale="log", ylim=(0.7, 2 * count.max())
    )
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lower.yaxis.set_minor_locator(NullLocator())
    style(upper)
    style(lower)
    return _svg(figure, "reliability", "Reliability diagram: accuracy against confidence, and how many photos have it")


def curves(history: History, metric: str, title: str) -> Markup:
    """A metric of training over the epochs, for training and validation where the history has both.

    `metric` is "loss" or "accuracy", `history` has the columns of history.csv, and `title` is
    the label of the vertical axis.
    """
    figure, axes = _axes("Epoch", title, height=2.3)
    for split, colour in (("train", _MUTED), ("validation", _ACCENT)):
        if column := history.get(f"{split}_{metric}"):
            axes.plot(
                history["epoch"],
                column,
                color=colour,
                linewidth=1.5,
                label=split,
                marker="o" if len(column) < 2 else None,
            )
    best = history["epoch"][int(np.argmin(history["validation_loss"]))]
    axes.axvline(best, color=_ERROR, linewidth=0.8, dashes=(4, 3), label=f"best epoch: {best:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=7.5, labelcolor=_INK)
    return _svg(figure, metric, f"{title} over the epochs of training")


def parallel(settings: Mapping[str, Sequence[Any]], losses: Sequence[float], name: str) -> bytes:
    """Parallel coordinates of a sweep, as PNG: a line a head through its settings to its loss; the best tenth stands out.

    The settings have a column of values each: numbers are placed by size, on a logarithmic axis
    where they span more than a factor of 30, anything else by kind. The losses [heads], of that
    name, are on the last axis, which ends at twice the lowest.
    """
    axes_of = {
        **{title: list(values) for title, values in settings.items()},
        name: np.clip(losses, None, 2 * min(losses)).tolist(),
    }
    figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    places = np.array([_places(axes, position, values) for position, values in enumerate(axes_of.values())])
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, places.shape)  # heads of equal settings stay apart
    best = set(np.argsort(losses)[: max(1, len(losses) // 10)].tolist())
    for i in sorted(range(len(losses)), key=lambda i: i in best):
        style: dict[str, Any] = (
            {"color": _ERROR, "linewidth": 1.4} if i in best else {"color": _ACCENT, "linewidth": 0.7, "alpha": 0.35}
        )
        axes.plot(range(len(axes_of)), (places + jitter)[:, i], **style)
    axes.set(xlim=(-0.3, len(axes_of) - 0.4), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(len(axes_of)), [title.replace("_", " ") for title in axes_of], color=_INK, fontsize=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for position in range(len(axes_of)):
        axes.axvline(position, color=_LINE, linewidth=0.8, zorder=0)
    return png(figure)


def _places(axes: Axes, position: int, values: Sequence[Any]) -> np.ndarray:
    """Where values stand on an axis from 0 to 1, with labels written beside it."""
    numbers = all(isinstance(value, int | float) for value in values)
    ticks = sorted(set(values)) if numbers else sorted(set(values), key=lambda value: (len(str(value)), str(value)))
    if not numbers or len(ticks) <= 6:
        place = {tick: i / max(1, len(ticks) - 1) for i, tick in enumerate(ticks)}
        places, labels = np.array([place[value] for value in values]), {f"{tick}": place[tick] for tick in ticks}
    else:
        logarithmic = ticks[0] > 0 and ticks[-1] > 30 * ticks[0]
        scaled = np.log(values) if logarithmic else np.array(values, np.float64)
        places = (scaled - scaled.min()) / (np.ptp(scaled) or 1)
        labels = {f"{ticks[0]:.3g}": 0.0, f"{ticks[-1]:.3g}": 1.0}
    for text, height in labels.items():
        axes.text(position + 0.04, height, text, fontsize=7, color=_MUTED, va="center")
    return places


def _axes(x: str, y: str, height: float = 3.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Gives axes the look of the report."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(colors=_MUTED, labelsize=7.5, width=0.8, length=3, color=_LINE)
    axes.grid(color=_LINE, linewidth=0.5)
    axes.set(axisbelow=True, facecolor="none")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=_INK, fontsize=8.5)


def png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=_PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure, name: str, description: str) -> Markup:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name}
    ):  # text stays text; the same plot, the same bytes
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)
    # Ids are unique in the page, not only in the plot
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;?|<style.*?</style>", "", svg)
    for variable, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{variable})")
    return Markup(svg)
