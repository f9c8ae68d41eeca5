"""What each choice of the recipe is worth: one changed at a time, with several seeds and a paired test.

    python scripts/ablate.py --features runs/reproduce/features --data dogs-vs-cats

Heads are trained on the training photos, stopped on the validation photos, and judged on the test photos, by which no row
chooses anything. Most rows share the cache that reproduce.py extracts (7x7x512 cells, original and mirror images). Where other
pixels go into the convolutions they have to be computed anew, so those rows, and a baseline of theirs, train on fewer photos.
The paired test is McNemar's exact one (1947; binomial on the photos that only one of two heads gets right), seed 0 of a row
against seed 0 of its baseline. Everything goes into one CSV and one plot; a run that was cut off goes on from its rows.
On 2 fast cores about 40 minutes, half of them for the convolutions.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image
from rich.table import Table
from scipy.stats import binomtest

from catdog_jax import calibration, data, features, fitting, images, plots, storage, weights
from catdog_jax.cache import FeatureCache
from catdog_jax.cli import prepare_jax
from catdog_jax.config import PRESETS, THRESHOLD, ExtractConfig, Preprocessing, Recipe
from catdog_jax.console import console, progress_bar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.fitting import Chunk, Loaders
from catdog_jax.metrics import metrics
from catdog_jax.vgg16 import CHANNELS, GRID

ROOT = Path(__file__).parents[1]
DEFAULT, REFERENCE = PRESETS["default"], PRESETS["reference"]
_BATCH = 64


@dataclass(frozen=True)
class AblateConfig:
    """Measure what each choice of the recipe is worth."""

    features: Path = ROOT / "runs" / "reproduce" / "features"
    """A cache of `catdog extract --pool none --views original,mirror`."""
    data: Path | None = None
    """The folder of photos, for the rows whose pixels differ; without it they are left out."""
    photos: tuple[int, int, int] = (2000, 500, 1000)
    """How many training, validation and test photos the rows whose pixels differ are given."""
    seeds: int = 3
    """Heads a row; the heads of the reference, which see 25,088 columns, are fitted once."""
    work: Path = ROOT / "runs" / "ablation"
    """Where the photos and features of the second kind of rows go."""
    out: Path = ROOT / "artifacts" / "ablation"
    """Where ablation.csv and ablation.png go."""


@dataclass(frozen=True)
class Variant:
    """A row: what it changes, the recipe, and what goes into it.

    Attributes:
      name: as it is shown.
      baseline: the name of the row that it is compared with.
      recipe: how its heads are trained.
      mirror: whether mirror images are trained on too.
      preprocessing: how pixels are normalised; None for the cache's own.
      nearest: whether photos are resized by the nearest pixel instead of bicubic interpolation.
      subset: whether it trains on the subset.
      size: of the square that photos are squashed to; another than 224 makes more cells, which are pooled alike.
      cells: what is made of the 7x7 cells where it is none of the tool's poolings: "gem" (generalised mean, p = 3: Radenović et
        al., 2019) or "quadrants" (the average of all and of each quarter).
      both_views: whether photos are judged by the mean logit of the original and its mirror image.
      averaged: whether the seeds' heads are averaged into one.
    """

    name: str
    baseline: str
    recipe: Recipe
    mirror: bool = True
    preprocessing: Preprocessing | None = None
    nearest: bool = False
    subset: bool = False
    size: int = images.SIZE
    cells: Literal["", "gem", "quadrants"] = ""
    both_views: bool = False
    averaged: bool = False


class Row(NamedTuple):
    """A row of ablation.csv: means over the seeds, and their extremes; `only_*` and `p_value` are McNemar's."""

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


def variants(subset: bool) -> list[Variant]:
    """The rows, a baseline before those that are compared with it."""

    def ours(name: str, mirror: bool = True, **changes: object) -> Variant:
        return Variant(name, "default", dataclasses.replace(DEFAULT, **changes), mirror)

    def beyond(name: str, **changes: object) -> Variant:
        return dataclasses.replace(ours(name), **changes)

    found = [
        ours("default"),
        ours("no mirror images", mirror=False),
        ours("average pooling alone", pool="avg"),
        ours("maximum pooling alone", pool="max"),
        ours("linear head", hidden=(), dropout=0.0),
        ours("256 units, dropout 0.5", hidden=(256,), dropout=0.5),
        ours("no dropout", dropout=0.0),
        ours("no standardisation", standardise=False),
        *(ours(f"L2 {l2:g}", l2=l2) for l2 in (0.0, 1e-4, 1e-2, 5e-2)),
        beyond("judged in both views", both_views=True),
        beyond("heads of all seeds averaged", averaged=True),
        beyond("generalised mean, p = 3", cells="gem"),
        beyond("average and quadrants", cells="quadrants"),
        Variant("reference", "default", REFERENCE, mirror=False),
        Variant("reference, L2 0.001", "reference", dataclasses.replace(REFERENCE, l2=1e-3), mirror=False),
        Variant("reference, averaged features", "reference", dataclasses.replace(REFERENCE, pool="avg"), mirror=False),
    ]
    if subset:
        few = "few photos"
        found.append(Variant(few, few, DEFAULT, False, "torch", subset=True))
        found += [
            Variant(f"{few}, pixels / 255", few, DEFAULT, False, "unit", subset=True),
            Variant(f"{few}, caffe's means and BGR", few, DEFAULT, False, "caffe", subset=True),
            Variant(f"{few}, nearest pixel", few, DEFAULT, False, "torch", nearest=True, subset=True),
        ]
        found += [Variant(f"{few}, {size} pixels", few, DEFAULT, False, "torch", subset=True, size=size) for size in (288, 336)]
        for name, mode in (("", "torch"), (", pixels / 255", "unit")):
            changed = dataclasses.replace(REFERENCE, batch_size=32)  # as many steps of few photos as it takes to converge
            found.append(Variant(f"{few}, reference{name}", few, changed, False, mode, subset=True))  # type: ignore[arg-type]
    return found


def main(config: AblateConfig) -> list[Row]:
    """Fits every row that is missing, and writes the CSV after each.

    Raises:
      CatdogError: the cache or the photos cannot be used.
      UsageError: an option is out of its range.
    """
    if config.seeds < 1 or min(config.photos) < 2:
        raise UsageError(f"--seeds and --photos: expected 1 and 2 or more, found {config.seeds} and {config.photos}.")
    prepare_jax()
    work = variants(config.data is not None)
    kept = {path.stem: np.load(path) for path in (config.work / "judged").glob("*.npz")}
    with progress_bar("rows") as progress:
        task = progress.add_task("ablation", total=len(work))
        for place, variant in enumerate(work):
            progress.update(task, description=variant.name, completed=place)
            key = storage.sha256_of_json([dataclasses.asdict(variant), config.seeds, list(config.photos)])[:16]
            if key not in kept:
                kept[key] = fit(variant, config)
                buffer = io.BytesIO()
                np.savez(buffer, **kept[key])
                storage.write_bytes(config.work / "judged" / f"{key}.npz", buffer.getvalue())
            kept[variant.name] = kept[key]
            rows = [row(one, kept[one.name], kept[one.baseline]) for one in work[: place + 1]]
            storage.write_bytes(config.out / "ablation.csv", table(rows).encode())
        progress.update(task, description="ablation", completed=len(work))
    storage.write_bytes(config.out / "ablation.png", plot(rows))
    console.print(shown(rows))
    return rows


def fit(variant: Variant, config: AblateConfig) -> dict[str, np.ndarray]:
    """Calibrated probabilities [seeds, test photos] of the second class, the labels, and the count of training rows."""
    if variant.size != images.SIZE:
        training, validation, test = enlarged(variant, config)
    else:
        cache = subset(variant, config) if variant.subset else FeatureCache.open(config.features)
        training, validation, test = (_loaders(cache, split, variant, 0) for split in data.SPLITS)
    scaling = fitting.measure(training) if variant.recipe.standardise else fitting.UNSCALED
    judged = []
    for seed in range(1 if variant.recipe.pool == "none" else config.seeds):
        fitted = fitting.fit(variant.recipe, training, validation, scaling, seed)
        told = calibration.calibrate(*fitting.judge(fitted.params, validation, scaling))
        logits, labels = fitting.judge(fitted.params, test, scaling)
        if variant.both_views:
            logits = (logits + fitting.judge(fitted.params, _loaders(cache, "test", variant, 1), scaling)[0]) / 2
        judged.append(1 / (1 + np.exp(-logits.astype(np.float64) / told.temperature)))
    if variant.averaged:
        judged = [np.mean(judged, axis=0)]
    return {
        "probabilities": np.stack(judged),
        "labels": labels,
        "train_rows": np.array(sum(len(load().y) for load in training)),
    }


def _loaders(cache: FeatureCache, split: str, variant: Variant, view: int) -> Loaders:
    """One chunk: the rows of a split, of all views in training where mirror images are wanted, else of one."""
    views = slice(None) if split == "train" and variant.mirror else slice(view, view + 1)
    parts, labels = [], []
    for name in cache.shard_names(split):
        x = np.asarray(cache.load_shard(name, "none" if variant.cells else variant.recipe.pool))[:, views]
        x = x.reshape(len(x), x.shape[1], -1)
        labels.append(np.repeat(cache.shard_labels(name), x.shape[1]))
        x = x.reshape(-1, x.shape[-1])
        parts.append(_pooled(x, variant.cells) if variant.cells else x)
    chunk = Chunk(jnp.asarray(np.concatenate(parts)), jnp.asarray(np.concatenate(labels).astype(np.float32)))
    return [lambda: chunk]


def _pooled(x: np.ndarray, cells: str) -> np.ndarray:
    """Columns [rows, 7 * 7 * 512] -> what `Variant.cells` says, float32."""
    grid = x.reshape(len(x), GRID, GRID, CHANNELS).astype(np.float32)
    if cells == "gem":
        return np.cbrt((grid**3).mean(axis=(1, 2)))
    halves = (slice(None, GRID // 2 + 1), slice(GRID // 2, None))  # the middle row and column are of both
    parts = [grid, *(grid[:, down, across] for down in halves for across in halves)]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts], axis=1)


def subset(variant: Variant, config: AblateConfig) -> FeatureCache:
    """The features of the first photos of each split, with the pixels that a variant wants."""
    resize = "nearest" if variant.nearest else "bicubic"
    folder, _ = _placed(config, variant.nearest)
    out = config.work / f"features-{resize}-{variant.preprocessing}"
    found = features.extract(ExtractConfig(str(folder), out, preprocessing=variant.preprocessing, pool="none"))
    if found is None:
        raise CatdogError(f"{out}: expected that nothing else extracts there, found another process. Wait for it.")
    return found


def _placed(config: AblateConfig, nearest: bool) -> tuple[Path, dict[str, list[data.Record]]]:
    """A folder of the first photos of each split, resized, half of them of each class; and their records, in its order."""
    assert config.data is not None
    folder = config.work / ("photos-nearest" if nearest else "photos-bicubic")
    dataset = data.load(str(config.data))
    for split, count in zip(data.SPLITS, config.photos, strict=True):
        for label in (0, 1):
            for record in [one for one in dataset.split(split) if one.label == label][: count // 2]:
                path = folder / f"{record.id}.png"
                if not path.exists():
                    storage.write_bytes(path, _resized(record.read(), nearest))
    known = {f"{record.id}.png": record for record in dataset.records}
    return folder, {split: [known[one.id] for one in data.load(str(folder)).split(split)] for split in data.SPLITS}


def enlarged(variant: Variant, config: AblateConfig) -> list[Loaders]:
    """What `_loaders` gives for each split, of the same photos as `subset`, squashed to a larger square."""
    extractor = features.Extractor(weights.load("auto", variant.preprocessing), variant.recipe.pool)
    found: list[Loaders] = []
    with progress_bar("photos") as progress:
        for split, records in _placed(config, variant.nearest)[1].items():
            parts = []
            for start in progress.track(range(0, len(records), _BATCH), description=f"{variant.name}: {split}"):
                photos = np.stack([images.decode(one.read(), variant.size) for one in records[start : start + _BATCH]])
                parts.append(extractor(photos))
            chunk = Chunk(jnp.asarray(np.concatenate(parts)), jnp.asarray([one.label for one in records], jnp.float32))
            found.append([lambda chunk=chunk: chunk])  # type: ignore[misc]
    return found


def _resized(photo: bytes, nearest: bool) -> bytes:
    """A photo of the size that the network sees, which `images.decode` then leaves as it is."""
    resample = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    file = io.BytesIO()
    images.load(photo).image.resize((images.SIZE, images.SIZE), resample).save(file, "PNG", compress_level=1)
    return file.getvalue()


def row(variant: Variant, judged: dict[str, np.ndarray], baseline: dict[str, np.ndarray]) -> Row:
    """What a variant's probabilities are worth, beside those of its baseline.

    Args:
      variant: the row's.
      judged: of `fit`.
      baseline: of `fit`, on the same test photos.
    """
    labels = judged["labels"]
    each = [metrics(labels, one) for one in judged["probabilities"]]
    accuracies = np.array([one["accuracy"] for one in each])
    ours, theirs = ((one["probabilities"][0] >= THRESHOLD) == (labels > 0.5) for one in (judged, baseline))
    only, only_baseline = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = binomtest(only, only + only_baseline).pvalue if only + only_baseline else 1.0
    low, high = plots.wilson(accuracies.mean(), np.array(len(labels)))
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
        log_loss=float(np.mean([one["log_loss"] for one in each])),
        ece=float(np.mean([one["ece"] for one in each])),
        only_right=only,
        only_baseline_right=only_baseline,
        p_value=float(p_value),
    )


def table(rows: Sequence[Row]) -> str:
    """All rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows([f"{value:.5g}" if isinstance(value, float) else value for value in one] for one in rows)
    return text.getvalue()


def plot(rows: Sequence[Row]) -> bytes:
    """The accuracy of each row with its 95 % Wilson interval, as PNG."""
    return plots.dots([(one.variant, one.accuracy, one.interval_low, one.interval_high) for one in rows], "test accuracy")


def shown(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    found = Table("", "training rows", "accuracy", "of the seeds", "log loss", "only it | only its baseline right", "McNemar p")
    for one in rows:
        found.add_row(
            one.variant,
            f"{one.train_rows:,}",
            f"{one.accuracy:.2%} ({one.interval_low:.1%} - {one.interval_high:.1%})",
            f"{one.accuracy_low:.2%} - {one.accuracy_high:.2%}",
            f"{one.log_loss:.4f}",
            "" if one.variant == one.baseline else f"{one.only_right} | {one.only_baseline_right} of {one.baseline}",
            "" if one.variant == one.baseline else f"{one.p_value:.2g}",
        )
    return found


if __name__ == "__main__":
    try:
        main(tyro.cli(AblateConfig, description=__doc__))
    except CatdogError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(error.exit_status) from None
