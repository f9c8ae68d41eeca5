"""The settings and the rows of ablate.py: what each changes, and the features that its heads are given."""

import dataclasses
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from catdog_jax.auditing import out_of_fold
from catdog_jax.backbone import vgg16, weights, winograd
from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import CHANNELS, GRID
from catdog_jax.commands import extract
from catdog_jax.config import PRESETS, ExtractConfig, Preprocessing, Recipe
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.features import extractor as features_extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.heads.rows import Chunk, Loaders
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.recipe import SIZE, DecodingRecipe
from scripts.experiments import two_forms

ROOT = Path(__file__).parents[2]
DEFAULT, REFERENCE = PRESETS["default"], PRESETS["reference"]
# Of few photos: epochs of one pass, as of many; and as many steps as the reference takes to converge
FEW_DEFAULT = dataclasses.replace(DEFAULT, min_steps=1)
FEW_REFERENCE = dataclasses.replace(REFERENCE, batch_size=32, min_steps=1)
_BATCH = 64
PROJECTIONS = 64


@dataclass(frozen=True)
class AblateConfig:
    """Measure what each choice of the recipe is worth."""

    features: Path = ROOT / "runs" / "reproduce" / "features"
    """A cache of `catdog extract --pool none --views original,mirror`."""
    data: Path | None = None
    """The folder of photos, for the rows whose pixels differ; without it they are left out."""
    keras_weights: str | None = None
    """Keras' weights as `catdog port` takes them (keras, or the path of a file), for the rows that need them."""
    forms: Path | None = None
    """The photos of `features` in both forms, see two_forms.py, for the rows of another size; without it they are left out."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The type that convolutions compute in for the rows whose pixels differ; bfloat16 is faster where processors have AMX."""
    photos: tuple[int, int, int] = (1200, 400, 800)
    """How many training, validation and test photos the rows whose pixels differ are given."""
    seeds: int = 3
    """Heads a row; the heads of the reference, which see 25,088 columns, are fitted once."""
    only: tuple[str, ...] = ()
    """Rows to compute, along with their baselines; the others stay as they are in ablation.csv. By default all."""
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
      keras: whether the convolutions have Keras' weights instead of torchvision's.
      nearest: whether photos are resized by the nearest pixel instead of bicubic interpolation.
      subset: whether it trains on the first photos of each split alone.
      size: of the square that photos become; another than 224 makes more cells, which are pooled alike.
      both_sizes: whether the features of 224 pixels stand beside those of `size`.
      cells: what is made of the cells where it is none of the tool's poolings: "gem" (generalised
        mean, p = 3: Radenović et al., 2019), "all three" (averages, maxima and that), "second order"
        (averages, maxima, and the products of 64 random projections, averaged over the cells, with
        the root of their size: Gao et al., "Compact Bilinear Pooling", 2016), "quadrants" (the average
        of all and of each quarter), or "block4" (the recipe's pooling of block 5, and beside it that
        of block 4).
      both_views: whether photos are evaluated by the mean logit of the original and its mirror image.
      averaged: whether the seeds' heads are averaged into one.
      mixup: train on mixtures of two rows and their labels, in shares of Beta(mixup, mixup),
        drawn in each epoch (Zhang et al., 2018); 0 for none.
      swapped: the share of training photos that are given the other label.
      doubted: leave out training photos whose label has less than this probability, by a linear head
        that has not seen them, as `catdog audit` finds wrong labels.
      originals: whether photos at their original size are trained on too.
    """

    name: str
    baseline: str
    recipe: Recipe
    mirror: bool = True
    preprocessing: Preprocessing | None = None
    keras: bool = False
    nearest: bool = False
    subset: bool = False
    size: int = SIZE
    both_sizes: bool = False
    cells: Literal["", "gem", "all three", "second order", "quadrants", "block4"] = ""
    both_views: bool = False
    averaged: bool = False
    mixup: float = 0.0
    swapped: float = 0.0
    doubted: float = 0.0
    originals: bool = True


def variants(subset: bool, keras: bool, sizes: bool = False) -> list[Variant]:
    """The rows, a baseline before those that are compared with it; those of other sizes, a subset and Keras on demand."""
    return [
        *_of_the_cache(),
        *(_of_other_sizes() if sizes else []),
        *(_of_the_subset() if subset else []),
        *(_of_keras() if subset and keras else []),
    ]


def _of_the_cache() -> list[Variant]:
    def ours(name: str, mirror: bool = True, **changes: object) -> Variant:
        return Variant(name, "default", dataclasses.replace(DEFAULT, **changes), mirror)

    def beyond(name: str, **changes: object) -> Variant:
        return dataclasses.replace(ours(name), **changes)

    return [
        ours("default"),
        ours("no mirror images", mirror=False),
        ours("average pooling alone", pool="avg"),
        ours("maximum pooling alone", pool="max"),
        ours("linear head", hidden=(), dropout=0.0),
        ours("256 units, dropout 0.5", hidden=(256,), dropout=0.5),
        ours("no dropout", dropout=0.0),
        ours("no standardisation", standardise=False),
        *(ours(f"L2 {l2:g}", l2=l2) for l2 in (0.0, 1e-4, 1e-2, 5e-2)),
        beyond("mixup, Beta(0.2, 0.2)", mixup=0.2),
        beyond("1 % of training labels swapped", swapped=0.01),
        beyond("5 % of training labels swapped", swapped=0.05),
        beyond("labels of probability below 0.05 left out", doubted=0.05),
        ours("label smoothing 0.05", label_smoothing=0.05),
        beyond("squashed photos alone", originals=False),
        beyond("judged in both views", both_views=True),
        beyond("heads of all seeds averaged", averaged=True),
        beyond("generalised mean, p = 3", cells="gem"),
        beyond("averages, maxima and generalised means", cells="all three"),
        beyond("averages, maxima and second order", cells="second order"),
        beyond("average and quadrants", cells="quadrants"),
        Variant("reference", "default", REFERENCE, mirror=False),
        Variant("reference, L2 0.001", "reference", dataclasses.replace(REFERENCE, l2=1e-3), mirror=False),
        Variant("reference, averaged features", "reference", dataclasses.replace(REFERENCE, pool="avg"), mirror=False),
    ]


def _of_other_sizes() -> list[Variant]:
    larger = Variant("320 pixels, no mirror images", "no mirror images", DEFAULT, mirror=False, size=320)
    both = dataclasses.replace(larger, name="224 and 320 pixels, no mirror images", both_sizes=True)
    return [larger, both]


def _of_the_subset() -> list[Variant]:
    few = Variant("few photos", "few photos", FEW_DEFAULT, mirror=False, preprocessing="torch", subset=True)

    def changed(name: str, **changes: object) -> Variant:
        return dataclasses.replace(few, name=f"few photos, {name}", **changes)

    return [
        few,
        changed("pixels / 255", preprocessing="unit"),
        changed("caffe's means and BGR", preprocessing="caffe"),
        changed("nearest pixel", nearest=True),
        changed("288 pixels", size=288),
        changed("352 pixels", size=352),
        changed("block 4 beside block 5", cells="block4"),
        changed("reference", recipe=FEW_REFERENCE),
        changed(
            "reference, pixels / 255", baseline="few photos, reference", recipe=FEW_REFERENCE, preprocessing="unit"
        ),
    ]


def _of_keras() -> list[Variant]:
    few = Variant("Keras' weights", "few photos", FEW_DEFAULT, False, "caffe", keras=True, subset=True)
    reference = dataclasses.replace(few, name="Keras' weights, reference", recipe=FEW_REFERENCE)
    whole = Variant(
        "Keras' weights, reference, pixels / 255, all photos", "reference", REFERENCE, False, "unit", keras=True
    )
    return [
        few,
        dataclasses.replace(few, name=f"{few.name}, pixels / 255", baseline=few.name, preprocessing="unit"),
        reference,
        dataclasses.replace(
            reference, name=f"{reference.name}, pixels / 255", baseline=reference.name, preprocessing="unit"
        ),
        whole,
    ]


def load(variant: Variant, config: AblateConfig) -> tuple[Loaders, Loaders, list[Loaders]]:
    """The training rows, the validation rows, and the test rows in each view that the variant judges."""
    if _pooled_at_once(variant):
        training, validation, test = _computed(variant, config)
        return training, validation, [test]
    caches = _caches(variant, config)
    training, validation = (_loaders(caches, split, variant, 0) for split in ("train", "validation"))
    return training, validation, [_loaders(caches, "test", variant, view) for view in range(1 + variant.both_views)]


def originals(variant: Variant, config: AblateConfig) -> np.ndarray:
    """Which validation photos of `load` are at their original size, bool [N]."""
    if _pooled_at_once(variant):
        return np.zeros(len(_placed(config, variant.nearest)[1]["validation"]), bool)
    ids = _caches(variant, config)[0].ids("validation")
    return np.array([two_forms.is_original(photo) for photo in ids])


def _pooled_at_once(variant: Variant) -> bool:
    """Whether a variant's features go into no cache."""
    return variant.cells == "block4" or (variant.subset and variant.size != SIZE)


def _caches(variant: Variant, config: AblateConfig) -> list[FeatureCache]:
    """What holds a variant's features, side by side, of the same photos in the same order."""
    if variant.subset or variant.keras:
        return [_extracted(variant, config)]
    whole = FeatureCache.open(config.features)
    if variant.size == SIZE:
        return [whole]
    wanted = ExtractConfig(
        data=str(config.forms),
        out=config.work / f"features-{variant.size}",
        pool="avg+max",
        size=variant.size,
        precision=config.precision,
    )
    return [*([whole] if variant.both_sizes else []), _extract(wanted)]


def mixed(training: Loaders, alpha: float) -> Loaders:
    """Loaders of mixtures of each chunk's rows, other ones at each call; see `Variant.mixup`."""
    rng = np.random.default_rng(0)

    def mix(load: Callable[[], Chunk]) -> Chunk:
        x, y = load()
        other, share = rng.permutation(len(y)), rng.beta(alpha, alpha, len(y)).astype(np.float32)
        return Chunk(share[:, None] * x + (1 - share)[:, None] * x[other], share * y + (1 - share) * y[other])

    return [functools.partial(mix, load) for load in training]


def _loaders(caches: list[FeatureCache], split: str, variant: Variant, view: int) -> Loaders:
    """One chunk: the rows of a split, of all views in training where mirror images are wanted, else of one."""
    views = slice(None) if split == "train" and variant.mirror else slice(view, view + 1)
    cache, parts, labels = caches[0], [], []
    kept = _kept(cache, variant) if split == "train" else np.ones(cache.rows(split), bool)
    pool = "none" if variant.cells else variant.recipe.pool
    for name in cache.shard_names(split):
        x = np.concatenate([np.asarray(one.load_shard(name, pool))[:, views] for one in caches], axis=-1)
        of_shard, kept = kept[: len(x)], kept[len(x) :]
        x = x.reshape(len(x), x.shape[1], -1)[of_shard]
        given = _swapped(cache.shard_labels(name), variant.swapped if split == "train" else 0)[of_shard]
        labels.append(np.repeat(given, x.shape[1]))
        x = x.reshape(-1, x.shape[-1])
        parts.append(_pooled(x, variant.cells) if variant.cells else x)
    chunk = Chunk(jnp.asarray(np.concatenate(parts)), jnp.asarray(np.concatenate(labels).astype(np.float32)))
    return [lambda: chunk]


def _kept(cache: FeatureCache, variant: Variant) -> np.ndarray:
    """Which training photos a variant trains on, bool [N]."""
    kept = np.array([variant.originals or not two_forms.is_original(photo) for photo in cache.ids("train")])
    if variant.doubted:
        x, labels = cache.load("train", "avg")[:, 0], cache.labels("train").astype(int)
        both = two_forms.pairs(cache.ids("train"))  # no head may have seen the other form
        told = out_of_fold.out_of_fold(x, labels, out_of_fold.folds(len(x), both, 0)).probabilities
        kept &= np.where(labels == 1, told, 1 - told) >= variant.doubted
    return kept


def _swapped(labels: np.ndarray, share: float) -> np.ndarray:
    return labels ^ (np.random.default_rng(0).random(len(labels)) < share)


def _pooled(x: np.ndarray, cells: str) -> np.ndarray:
    """Columns [rows, 7 * 7 * 512] -> what `Variant.cells` says, float32."""
    grid = x.reshape(len(x), GRID, GRID, CHANNELS).astype(np.float32)
    if cells in ("gem", "all three", "second order"):
        third = _second_order(grid) if cells == "second order" else np.cbrt((grid**3).mean(axis=(1, 2)))
        return third if cells == "gem" else np.concatenate([np.asarray(Pool.AVG_MAX.apply(grid)), third], axis=1)
    halves = (slice(None, GRID // 2 + 1), slice(GRID // 2, None))  # the middle row and column are of both
    parts = [grid, *(grid[:, down, across] for down in halves for across in halves)]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts], axis=1)


def _second_order(grid: np.ndarray) -> np.ndarray:
    """Cells float32 [N, 7, 7, 512] -> the products of random projections, each pair once: [N, 2080]."""
    drawn = np.random.default_rng(0).normal(0, CHANNELS**-0.5, (CHANNELS, PROJECTIONS)).astype(np.float32)
    projected = grid.reshape(len(grid), -1, CHANNELS) @ drawn
    products = (projected.transpose(0, 2, 1) @ projected / projected.shape[1])[:, *np.triu_indices(PROJECTIONS)]
    return np.sign(products) * np.sqrt(np.abs(products))


def _extracted(variant: Variant, config: AblateConfig) -> FeatureCache:
    """The features of all photos, or of the first ones of each split, with the weights and the pixels that a variant wants."""
    resize = "nearest" if variant.nearest else "bicubic"
    folder = _placed(config, variant.nearest)[0] if variant.subset else config.data
    out = (
        config.work
        / f"features-{resize if variant.subset else 'all'}-{'keras-' if variant.keras else ''}{variant.preprocessing}"
    )
    source = config.keras_weights if variant.keras and config.keras_weights else "auto"
    return _extract(
        ExtractConfig(
            data=str(folder),
            out=out,
            weights=source,
            preprocessing=variant.preprocessing,
            pool="none",
            precision=config.precision,
        )
    )


def _extract(wanted: ExtractConfig) -> FeatureCache:
    found = extract.extract(wanted)
    if found is None:
        raise CatdogError(
            f"{wanted.out}: expected that nothing else extracts there, found another process. Wait for it."
        )
    return found


def _placed(config: AblateConfig, nearest: bool) -> tuple[Path, dict[str, list[sources.Record]]]:
    """A folder of the first photos of each split, resized, half of them of each class; and their records, in its order."""
    assert config.data is not None
    folder = config.work / ("photos-nearest" if nearest else "photos-bicubic")
    dataset = sources.load(str(config.data))
    for split, count in zip(sources.SPLITS, config.photos, strict=True):
        for label in (0, 1):
            for record in [one for one in dataset.split(split) if one.label == label][: count // 2]:
                path = folder / f"{record.id}.png"
                if not path.exists():
                    atomic.write_bytes(path, _resized(record.read(), nearest))
    known = {f"{record.id}.png": record for record in dataset.records}
    return folder, {
        split: [known[one.id] for one in sources.load(str(folder)).split(split)] for split in sources.SPLITS
    }


def _computed(variant: Variant, config: AblateConfig) -> list[Loaders]:
    """What `_loaders` gives for each split, of the same photos as `_extracted`, where no cache of 7x7 cells holds it."""
    pretrained = weights.load("auto", variant.preprocessing)
    extractor = (
        _both_blocks(pretrained)
        if variant.cells
        else features_extractor.Extractor(
            pretrained, pool=variant.recipe.pool, size=variant.size, precision=config.precision
        )
    )
    found: list[Loaders] = []
    recipe = DecodingRecipe(size=variant.size)
    with progress_bar("photos") as progress:
        for split, records in _placed(config, variant.nearest)[1].items():
            parts = []
            for start in progress.track(range(0, len(records), _BATCH), description=f"{variant.name}: {split}"):
                photos = np.stack([decoding.decode(one.read(), recipe) for one in records[start : start + _BATCH]])
                parts.append(np.asarray(extractor(photos)))
            chunk = Chunk(jnp.asarray(np.concatenate(parts)), jnp.asarray([one.label for one in records], jnp.float32))
            found.append([lambda chunk=chunk: chunk])  # type: ignore[misc]
    return found


def _both_blocks(pretrained: weights.Weights) -> Callable[[np.ndarray], jax.Array]:
    """Photos, uint8 [N, 224, 224, 3] -> averages and maxima of block 5, then those of block 4: float32 [N, 2048]."""
    params = winograd.transform_kernels(pretrained.params)
    fourth, fifth = vgg16.LAYERS[:10], vgg16.LAYERS[10:]

    @jax.jit
    def compute(photos: jax.Array) -> jax.Array:
        cells = winograd.forward(params, vgg16.normalise(photos, pretrained.mode), fourth)
        pooled = [Pool.AVG_MAX.apply(cells)]
        for layer in fifth:
            cells = winograd.convolve(cells, params[layer.name]["kernel"], params[layer.name]["bias"], layer.pool)
        return jnp.concatenate([Pool.AVG_MAX.apply(cells), *pooled], axis=1)

    return compute


def _resized(photo: bytes, nearest: bool) -> bytes:
    """A photo of the size that the network sees, which `decoding.decode` then leaves as it is."""
    resample = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    file = io.BytesIO()
    decoding.load(photo).image.resize((SIZE, SIZE), resample).save(file, "PNG", compress_level=1)
    return file.getvalue()
