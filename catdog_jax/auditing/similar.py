"""Which photos look most like a photo: copies under other names, and photos that their neighbours' labels contradict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.config import SimilarConfig
from catdog_jax.errors import CatdogError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files.buckets import Location, location
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import embeddings, inputs, prediction
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.embeddings import Embeddings, Neighbour
from catdog_jax.runtime.predictor import Predictor

# The cosine from which on two photos are likely copies. Of 4,000 photos of cats and dogs the nearest
# other photo has 0.92 (99.9 %), but for one pair of copies; 192 photos have 0.90 to 0.99 with
# themselves scaled down and saved again, and are the nearest to themselves all.
COPY = 0.94


def similar(
    photos: Any,
    among: "FeatureCache | Embeddings | Location | str",
    *,
    model: Predictor | Path | str | None = None,
    top: int = 10,
) -> list[Neighbour] | list[list[Neighbour]]:
    """The photos that look most like a photo, or like each of many, nearest first.

    How near two photos are is the cosine of their averaged features.

    Args:
      photos: a photo, or many, as `Predictor` takes them.
      among: where to look: a feature cache or its path, or the .npy file of `catdog embed`.
      model: the exported model or its file; it must have the weights that `among` was computed with.
        By default that of a run here, else the published one.
      top: how many.

    Returns:
      A list of `Neighbour` (similarity, id, label, same) of one photo, a list of those of many. The
      label is known in a feature cache.

    Raises:
      CatdogError: a photo, the model or `among` cannot be read, or it is of other weights or of photos of
        another size or resize.
      UsageError: a number is out of range, or there is no photo.

    Example:
      >>> import catdog_jax as cd
      >>> nearest = cd.similar("cat.jpg", features, model="run/model.onnx", top=3)
      >>> nearest[0].same, nearest[0].label
      (True, 'cats')
    """
    check_arguments(SimilarConfig, top=top)
    opened = model if isinstance(model, Predictor) else Predictor(find_model(None if model is None else Path(model)))
    known = among if isinstance(among, Embeddings) else look_in(among)
    embeddings.check_comparable(known, "among", opened)
    if prediction.is_one(photos):
        return embeddings.nearest(opened.embed(photos), known, top, [inputs.digest(photos)])[0]
    photos = list(prediction.many(photos, opened.recipe.size))
    return embeddings.nearest(opened.embed(photos), known, top, [inputs.digest(photo) for photo in photos])


def look_in(among: FeatureCache | Location | str) -> Embeddings:
    """The rows of a feature cache, or of a file of `catdog embed`.

    Raises:
      CatdogError: there is neither, it is damaged, or the cache does not give averaged features of
        the photos themselves.
    """
    path = location(among) if isinstance(among, str) else among
    if isinstance(path, Path) and (path.suffix == ".npy" or path.is_file()):
        return embeddings.load(path)
    cache = path if isinstance(path, FeatureCache) else FeatureCache.open(path)
    if "original" not in cache.views:
        raise CatdogError(f"{cache.path}: expected features of the view original, found {', '.join(cache.views)}.")
    return _of_cache(cache)


def _of_cache(cache: FeatureCache) -> Embeddings:
    view = cache.views.index("original")
    rows: list[np.ndarray] = []
    ids: list[str] = []
    hashes: list[str] = []
    labels: list[str] = []
    for name in (name for split in cache.manifest["splits"] for name in cache.shard_names(split)):
        sidecar = cache.sidecar(name)
        rows.append(np.asarray(cache.load_shard(name, "avg")[:, view], np.float32))
        ids += sidecar["ids"]
        hashes += sidecar["source_sha256"]
        labels += [cache.classes[label] for label in cache.shard_labels(name)]
    return Embeddings(
        np.concatenate(rows),
        ids,
        cache.fingerprint.weights_sha256,
        str(cache.fingerprint.precision),
        labels,
        hashes,
        recipe=cache.fingerprint.recipe,
    )


def remarks(name: str, found: Sequence[Neighbour]) -> list[str]:
    """What the nearest photos say of a photo's label, in words: that most of them, or copies of it, have another."""
    own = [near for near in found if near.same and near.label is not None]
    others = [near.label for near in found if near.label is not None and not near.same]
    said = []
    if odd := [near for near in own if near.label != own[0].label]:
        said.append(
            f"{name}: the same file is labelled {own[0].label} as {own[0].id} and {odd[0].label} as {odd[0].id}."
        )
    if own and others:
        other = max(sorted(set(others)), key=others.count)
        count = others.count(other)
        if other != own[0].label and 2 * count > len(others):
            said.append(
                f"{name}: labelled {own[0].label} as {own[0].id}, but {count} of the {len(others)} nearest others are {other}. "
                "Look at its label."
            )
    return said
