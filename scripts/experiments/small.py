"""How good heads are by the number of photos: ours, ours of before, and scikit-learn's logistic regression.

    python -m scripts.experiments.small --features artifacts/features

Draws training photos of a cache, as many of one class as of the other, trains on them in several
ways, and judges on all validation photos. Heads that stop early are stopped by the same photos,
which flatters them and not the exact ones. Every way sees the same draws. Rows that small.csv has
are not computed again, so that a run may be cut into several; delete it to begin anew."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table
from scipy import special
from sklearn.linear_model import LogisticRegression

from catdog_jax import jax_environment
from catdog_jax.config import FEW, PRESETS
from catdog_jax.console import console, progress_bar, show
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads import fitting, search, training
from catdog_jax.heads.rows import Chunk, Loaders
from catdog_jax.reporting import plots
from catdog_jax.reporting.html import PALETTE
from scripts.experiments import tables

ROOT = Path(__file__).parents[2]
SKLEARN = "scikit-learn"
LINES = {"default": "accent", SKLEARN: "error", "before": "muted"}  # of the picture, and their colours
_TITLES = {"default": "default preset", "before": "default preset of before"}
_BAND = (0.1, 0.9)  # quantiles over the draws


@dataclasses.dataclass(frozen=True)
class SmallConfig:
    """Measure heads on few photos."""

    features: Path = ROOT / "artifacts" / "features"
    """A feature cache."""
    pool: str = "avg"
    """What the heads see of it."""
    photos: tuple[int, ...] = (20, 50, 100, 200, 500, 2_000, 15_000)
    """How many training photos; all are taken once, where there are no more."""
    draws: int = 10
    """How often so many photos are drawn."""
    ways: tuple[str, ...] = ("linear", SKLEARN, "before", "mlp")
    """linear and mlp are heads of today's default preset, before is its MLP with 40 passes at most however few photos; folds
    is the linear head as a cross-validation calibrates it, unweighted the linear head with --class-weight none."""
    ratio: float = 1.0
    """Photos of the first class for each of the second, in training and in what the accuracy is of."""
    wrong: float = 0.0
    """The share of the training labels that are swapped."""
    out: Path = ROOT / "artifacts" / "small"
    """Where small.csv and small.png go."""


class Row(NamedTuple):
    """A row of small.csv: one way to train, on one draw. The log loss is that before calibration, but of folds."""

    photos: int
    draw: int
    way: str
    accuracy: float
    log_loss: float


Pair = tuple[np.ndarray, np.ndarray]  # features [N, columns] and labels [N]
Judge = Callable[[Pair, Pair, str], np.ndarray]  # training and validation rows, pooling -> validation logits


def main(config: SmallConfig) -> list[Row]:
    """Computes every row that is missing, and writes the CSV after each.

    Raises:
      CatdogError: the cache cannot be used.
      UsageError: an option is out of its range.
    """
    if unknown := [way for way in config.ways if way not in WAYS]:
        raise UsageError(f"--ways: expected some of {', '.join(WAYS)}, found {unknown[0]!r}.")
    if not 0 <= config.wrong < 0.5:
        raise UsageError(f"--wrong: expected 0 or more, and less than 0.5, found {config.wrong}.")
    if config.draws < 1 or min(config.photos) < 4:
        raise UsageError(f"--draws and --photos: expected 1 and 4 or more, found {config.draws} and {config.photos}.")
    jax_environment.prepare()
    jax_environment.require_devices()
    cache = FeatureCache.open(str(config.features))
    whole, judged = ((cache.load(split, config.pool)[:, 0], cache.labels(split)) for split in ("train", "validation"))
    path = config.out / "small.csv"
    rows = {row[:3]: row for row in tables.read(path, Row)}
    wanted = [
        (count, draw, way)
        for count in config.photos
        for draw in range(config.draws if count < len(whole[1]) else 1)
        for way in config.ways
    ]
    with progress_bar("heads") as progress:
        for count, draw, way in progress.track([one for one in wanted if one not in rows], description="small"):
            x, labels = drawn(whole, count, draw, config.ratio)
            labels = labels ^ (np.random.default_rng([draw, count, 1]).random(len(labels)) < config.wrong)
            logits = WAYS[way]((x, labels), judged, config.pool)
            signed = np.where(judged[1] == 1, logits, -logits)
            right = (logits >= 0) == (judged[1] == 1)
            accuracy = float(np.average(right, weights=np.where(judged[1] == 1, 1.0, config.ratio)))
            rows[count, draw, way] = Row(count, draw, way, accuracy, float(np.logaddexp(0, -signed).mean()))
            atomic.write_bytes(path, tables.as_csv(Row._fields, sorted(rows.values()), digits=5))
    found = sorted(rows.values())
    atomic.write_bytes(config.out / "small.png", plot(found))
    show(shown(found))
    return found


def drawn(whole: Pair, count: int, draw: int, ratio: float = 1.0) -> Pair:
    """So many rows, `ratio` of the first class for each of the second; all where there are no more."""
    x, y = whole
    if count >= len(y):
        return whole
    rng = np.random.default_rng([draw, count])
    second = int(count / (1 + ratio))
    each = (second if ratio == 1 else count - second, second)
    places = np.concatenate([rng.permutation(np.flatnonzero(y == label))[: each[label]] for label in (0, 1)])
    return x[places], y[places]


def _ours(way: str) -> Judge:
    def judge(train: Pair, judged: Pair, pool: str) -> np.ndarray:
        if way == "before":
            recipe = dataclasses.replace(PRESETS["default"], pool=pool, min_steps=1)  # type: ignore[arg-type]
        else:
            given = {"pool": pool, "class_weight": "none" if way == "unweighted" else None}
            kind = "linear" if way == "unweighted" else way
            recipe = training.resolve("default", kind, given, rows=len(train[1]))
        parts = {"train": train, "validation": judged}

        def load(split: str, _: str) -> Loaders:
            chunk = Chunk(parts[split][0].astype(np.float32), parts[split][1].astype(np.float32))
            return [lambda: chunk]

        found = search.fit_one(recipe, load, seed=0)
        return fitting.logits(found.fit.params, load("validation", pool), found.scaling)[0].astype(np.float64)

    return judge


def _folds(train: Pair, judged: Pair, pool: str) -> np.ndarray:
    fitted = training.train(train, folds=5, pool=pool)
    return special.logit(np.clip(fitted(judged[0]), 1e-15, 1 - 1e-15))


def _sklearn(train: Pair, judged: Pair, _: str) -> np.ndarray:
    fitted = LogisticRegression(max_iter=5_000).fit(train[0].astype(np.float64), train[1])
    return fitted.decision_function(judged[0].astype(np.float64))


WAYS: dict[str, Judge] = {
    **{way: _ours(way) for way in ("linear", "unweighted", "mlp", "before")},
    SKLEARN: _sklearn,
    "folds": _folds,
}


def of_line(rows: Sequence[Row], line: str) -> dict[int, list[Row]]:
    """The rows of a line of the picture, by the number of photos; the default's are those of the way that it takes."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        way = line if line != "default" else "linear" if row.photos < FEW else "mlp"
        if row.way == way:
            found.setdefault(row.photos, []).append(row)
    return found


def plot(rows: Sequence[Row]) -> bytes:
    """The mean accuracy of each line by the number of photos, and a band that has eight of ten draws, as PNG."""
    figure = Figure(figsize=(7.5, 4), dpi=110, layout="constrained", facecolor=PALETTE["paper"][0])
    axes = figure.subplots()
    plots.style(axes)
    for line, name in LINES.items():
        by_count = of_line(rows, line)
        if not by_count:
            continue
        counts = sorted(by_count)
        shares = [[row.accuracy for row in by_count[count]] for count in counts]
        colour, title = PALETTE[name][0], _TITLES.get(line, line)
        low, high = (np.array([np.quantile(share, end) for share in shares]) for end in _BAND)
        axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            counts,
            [np.mean(share) for share in shares],
            "o-",
            color=colour,
            linewidth=4 if line == "default" else 1.5,
            markersize=4,
            label=title,
        )
    axes.set_xscale("log")
    ticks = sorted({row.photos for row in rows})
    axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training photos", color=PALETTE["ink"][0])
    axes.set_ylabel("validation accuracy", color=PALETTE["ink"][0])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.legend(frameon=False, loc="lower right", labelcolor=PALETTE["ink"][0])
    return plots.png(figure)


def shown(rows: Sequence[Row]) -> Table:
    """The lines of the picture for a terminal, and the default against scikit-learn, draw by draw."""
    found = Table("photos", "draws", *LINES, "default - scikit-learn, points")
    lines = {line: of_line(rows, line) for line in LINES}
    for count in sorted({row.photos for row in rows}):
        of_count = {line: {row.draw: row for row in lines[line].get(count, [])} for line in LINES}
        means = [_means(list(by.values())) for by in of_count.values()]
        both = sorted(of_count["default"].keys() & of_count[SKLEARN].keys())
        gained = np.array([100 * (of_count["default"][i].accuracy - of_count[SKLEARN][i].accuracy) for i in both])
        error = gained.std(ddof=1) / np.sqrt(len(gained)) if len(gained) > 1 else np.nan
        told = f"{gained.mean():+.2f} ± {error:.2f}" if len(gained) else ""
        found.add_row(f"{count:,}", str(len(of_count["default"])), *means, told)
    return found


def _means(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"{np.mean([row.accuracy for row in rows]):.2%}, {np.mean([row.log_loss for row in rows]):.3f}"


if __name__ == "__main__":
    try:
        main(tyro.cli(SmallConfig, prog="python -m scripts.experiments.small", description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(error.exit_status) from None
