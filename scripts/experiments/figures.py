"""The plots of the experiments, as PNG: shares with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from catdog_jax.reporting import plots
from catdog_jax.reporting.html import PALETTE


def panels(rows: Mapping[str, Sequence[tuple[str, float, float, float]]], quantity: str) -> bytes:
    """A panel a series of shares with their intervals, all on one scale, as PNG.

    Args:
      rows: a panel's title -> its points from left to right: the label, the share, its lowest and
        its highest value.
      quantity: what the share is of, for the axis.
    """
    across = 3
    down = -(-len(rows) // across)
    figure = Figure(figsize=(10, 2.3 * down), dpi=110, layout="constrained", facecolor=PALETTE["paper"][0])
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, (title, points) in zip(grid.flat, rows.items(), strict=False):
        plots.style(axes)
        labels, share, low, high = zip(*points, strict=True)
        places = np.arange(len(points))
        axes.fill_between(places, low, high, color=PALETTE["accent"][0], alpha=0.18, linewidth=0)
        axes.plot(places, share, "o-", color=PALETTE["accent"][0], linewidth=1.4, markersize=3.5)
        axes.set_xticks(places, labels)
        axes.set_title(title, fontsize=9, color=PALETTE["ink"][0], loc="left")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    for axes in grid.flat[len(rows) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(quantity, color=PALETTE["ink"][0])
    return plots.png(figure)


def dots(rows: Sequence[tuple[str, float, float, float]], quantity: str) -> bytes:
    """A line a share with its interval, one below the other, the first marked as what the others compare with; as PNG.

    Args:
      rows: from top to bottom: the label, the share, its lowest and its highest value.
      quantity: what the share is of, for the axis.
    """
    figure = Figure(figsize=(7.5, 0.6 + 0.27 * len(rows)), dpi=110, layout="constrained", facecolor=PALETTE["paper"][0])
    axes = figure.subplots()
    plots.style(axes)
    names, share, low, high = zip(*rows, strict=True)
    places = np.arange(len(rows))
    axes.axvline(share[0], color=PALETTE["muted"][0], linewidth=0.8, dashes=(4, 3))
    axes.hlines(places, low, high, color=PALETTE["accent"][0], linewidth=1.6, alpha=0.45)
    axes.plot(share, places, "o", color=PALETTE["accent"][0], markersize=4.5)
    axes.set_yticks(places, names)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # from top to bottom, and no point on the frame
    axes.set_xlabel(quantity, color=PALETTE["ink"][0])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    return plots.png(figure)
