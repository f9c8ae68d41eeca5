"""How good a head is on photos that it has not seen: on cached features, on photos end to end, or on arrays."""

import functools
import math

import numpy as np
from numpy.typing import ArrayLike

from catdog_jax.backbone import vgg16
from catdog_jax.backbone import weights as vgg16_weights
from catdog_jax.config import EvaluateConfig
from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.evaluation.result import Evaluation, Predicted
from catdog_jax.evaluation.unseen import unseen
from catdog_jax.features import batches, extraction
from catdog_jax.features import extractor as features_extractor
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import cross_validation
from catdog_jax.heads.head import FittedHead, probabilities
from catdog_jax.heads.rows import Pair, checked
from catdog_jax.heads.run_directory import FOLDS
from catdog_jax.photos.dataset import SPLITS, Dataset
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.ranges import check_arguments

_SHARD = 512  # photos whose features are in memory at once, end to end


def evaluate(
    head: FittedHead,
    photos: FeatureCache | Dataset | tuple[ArrayLike, ArrayLike],
    *,
    split: str = "test",
    weights: str = "auto",
    bootstrap: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Measures how good a head is.

    Example:
      >>> import catdog_jax as cd
      >>> head = cd.train(features)
      >>> result = cd.evaluate(head, features)
      >>> accuracy = result.metrics["accuracy"]
      >>> accuracy.low < accuracy.value < accuracy.high, result.n
      (True, 60)

    Args:
      head: the head.
      photos: a feature cache, of which every view is evaluated; or a data set, whose photos are
        evaluated end to end, from their bytes; or a pair of features [N, columns] and labels [N], 0
        or 1.
      split: which photos of the cache or the data set; of arrays it is but a name. "folds" are the
        photos that the head was cross-validated on, each judged by heads that had not seen it; the
        cache or the arrays are then those of the training.
      weights: where the VGG16 weights come from, for photos; as of `catdog port`.
      bootstrap: resamples for what the calibration error would be by chance.
      seed: decides the resamples.

    Raises:
      CatdogError: the features or the photos do not go with the head, or a row is missing.
      UsageError: an argument is out of its range.
      TypeError: the head or the photos are of another type.
    """
    check_arguments(EvaluateConfig, split=split, bootstrap=bootstrap, seed=seed)
    if not isinstance(head, FittedHead):
        raise TypeError(f"head: expected a FittedHead, found {type(head).__name__}. Train one, or load one.")
    own = False
    if split == FOLDS:
        predicted = of_folds(head, photos)
        own = isinstance(photos, FeatureCache) and photos.fingerprint == head.fingerprint
    elif isinstance(photos, FeatureCache):
        predicted, own = of_cache(head, photos, split), photos.fingerprint == head.fingerprint
    elif isinstance(photos, Dataset):
        predicted = of_photos(head, photos, split, weights)
    elif isinstance(photos, tuple) and len(photos) == 2:
        predicted = of_arrays(head, photos)
    else:
        raise TypeError(
            f"photos: expected a FeatureCache, a Dataset or a pair (features, labels), found {type(photos).__name__}."
        )
    result = Evaluation(head=head, predicted=predicted, split=split, bootstrap=bootstrap, seed=seed, own_features=own)
    assert result.metrics  # measured at once, so that rows that cannot be measured are an error here
    return result


def of_cache(head: FittedHead, cache: FeatureCache, split: str) -> Predicted:
    """What a head predicts for cached features, every view of them.

    Raises:
      CatdogError: the cache is of other weights or preprocessing than the head's, or the rows do
        not match the manifest.
    """
    head.fingerprint.check_compatible(cache.fingerprint)
    if not cache.rows(split):
        filled = ", ".join(name for name in SPLITS if cache.rows(name))
        raise CatdogError(
            f"{cache.path}: expected {split} photos, found none; it has {filled}. Choose with --split, or --split folds where "
            "the head was cross-validated."
        )
    # One in memory at a time
    shards = (cache.load_shard(name, head.own_pool) for name in cache.shard_names(split))
    judged = [(_by_view(head, rows), _strange(head, rows)) for rows in shards]
    predicted = Predicted(
        source=cache.source,
        ids=cache.ids(split),
        labels=cache.labels(split),
        probabilities=np.concatenate([probabilities for probabilities, _ in judged]),
        skipped=cache.skipped(split),
        strangeness=_joined([strange for _, strange in judged]),
    )
    check_rows(predicted, cache.rows(split), f"{split} rows in the manifest")
    return predicted


def of_folds(head: FittedHead, photos: object) -> Predicted:
    """What the heads of a cross-validation predict for the photos that they had not seen.

    `photos` is the cache, or the pair of arrays, of which the head was trained.

    Raises:
      CatdogError: the head was trained without folds, or on other photos.
      TypeError: these are neither.
    """
    judged = head.out_of_fold
    if judged is None:
        raise CatdogError(
            "--split folds: expected a head that was cross-validated in `catdog train --folds`, found one that was not. "
            "Choose test or validation, or train with --folds."
        )
    source, skipped = "", []
    if isinstance(photos, FeatureCache):
        head.fingerprint.check_compatible(photos.fingerprint)
        source, skipped = photos.source, [one for split in cross_validation.SPLITS for one in photos.skipped(split)]
        ids = [name for split in cross_validation.SPLITS for name in photos.ids(split)]
    elif isinstance(photos, tuple) and len(photos) == 2:
        ids = [f"row {row}" for row in range(len(photos[0]))]
    else:
        raise TypeError(
            "photos: expected the FeatureCache or the pair (features, labels) of the cross-validation, found "
            f"{type(photos).__name__}."
        )
    if ids != judged.ids:
        raise CatdogError(
            f"{source or 'photos'}: expected the {len(judged.ids):,} photos of the cross-validation, found {len(ids):,} of "
            "other names or in another order. Evaluate what the head was trained on, or train again."
        )
    repeats, folds = len(judged.folds), int(judged.folds.max()) + 1
    which = cross_validation.said(len(ids), folds, repeats)
    return Predicted(source, ids, judged.labels, judged.probabilities[:, None], skipped, which=which)


def of_photos(head: FittedHead, dataset: Dataset, split: str, weights: str) -> Predicted:
    """What a head predicts for the photos that `unseen` takes: decoded and computed in bounded memory.

    Raises:
      CatdogError: the weights are not the head's, the classes differ, or a photo has neither a row
        nor a reason.
    """
    chosen = unseen(dataset, split, (head.fingerprint.inputs_sha256,))
    extractor = _extractor(head, chosen, weights)
    shards = extraction.plan(chosen, _SHARD)
    ids, labels, skipped, rows_of, strange = [], [], {}, [np.zeros((0, 1))], []
    processes = extraction.in_processes("auto", len(chosen.records))
    with progress_bar("photos") as progress:
        task = progress.add_task("evaluate", total=len(chosen.records))
        advance = functools.partial(progress.advance, task)
        recipe = head.fingerprint.recipe
        for shard, rows in batches.compute_shards(shards, extractor, recipe, None, advance, processes=processes):
            ids += rows.ids
            labels += rows.labels
            skipped[shard.name] = rows.skipped
            extraction.check_readable(chosen, skipped)
            if rows.features:
                features = np.concatenate(rows.features)
                rows_of.append(_by_view(head, features))
                strange.append(_strange(head, features))
    left_out = [photo for photos in skipped.values() for photo in photos]
    predicted = Predicted(
        source=dataset.source,
        ids=ids,
        labels=np.array(labels, np.int8),
        probabilities=np.concatenate(rows_of),
        skipped=left_out,
        which=chosen.notes[-1],
        dataset=dataset,
        strangeness=_joined(strange),
    )
    check_rows(predicted, len(chosen.records) - len(left_out), f"{split} photos that can be decoded")
    return predicted


def of_arrays(head: FittedHead, pair: Pair) -> Predicted:
    """What a head predicts for features in memory, [N, columns], with labels [N]. Raises as `rows.checked` and the head."""
    x, labels = checked("features", pair)
    ids = [f"row {row}" for row in range(len(x))]
    return Predicted("", ids, labels.astype(np.int64), head(x)[:, None], [], strangeness=head.strange(x))


def check_rows(predicted: Predicted, expected: int, of_what: str) -> None:
    """Every row is predicted, none twice: the counts of ids, labels and probabilities must be `expected`.

    Raises:
      CatdogError: a count differs.
    """
    counts = {
        "ids": len(set(predicted.ids)),
        "labels": len(predicted.labels),
        "probabilities": len(predicted.probabilities),
    }
    for name, count in counts.items():
        if count != expected:
            raise CatdogError(
                f"{predicted.source}: expected {name} for the {expected:,} {of_what}, found {count:,}. "
                f"Run `catdog extract` again."
            )


def _by_view(head: FittedHead, rows: np.ndarray) -> np.ndarray:
    """Probabilities of features [N, V, ...]: [N, V]."""
    n, views, *cells = rows.shape
    return probabilities(head.params, rows.reshape(n * views, math.prod(cells))).reshape(n, views)


def _strange(head: FittedHead, rows: np.ndarray) -> np.ndarray | None:
    """The strangeness of the photos themselves, of features [N, V, ...]: [N], or None of a head that does not tell."""
    return head.strange(rows[:, 0].reshape(len(rows), -1))


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """Whole, or None where there is nothing to join."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _extractor(head: FittedHead, dataset: Dataset, weights: str) -> features_extractor.Extractor:
    """The convolutions as the head knows them, once it is certain that photos come to it as its training photos did."""
    pretrained = vgg16_weights.load(weights, head.fingerprint.preprocessing)
    now = Fingerprint(
        weights_sha256=pretrained.sha256,
        preprocessing=pretrained.mode,
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=head.fingerprint.recipe.to_json(),
        classes=dataset.classes,
    )
    head.fingerprint.check_compatible(now)
    return features_extractor.Extractor(pretrained, pool=head.own_pool, size=head.fingerprint.recipe.size)
