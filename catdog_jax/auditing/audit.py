"""Is a data set fit to train on? The list of checks, and the call that runs them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from catdog_jax.auditing import duplicates, file_faults
from catdog_jax.auditing.drift import Drifts
from catdog_jax.auditing.evidence import Evidence, Look
from catdog_jax.auditing.findings import Check, Findings
from catdog_jax.auditing.label_errors import LabelErrors
from catdog_jax.config import AuditConfig
from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Location
from catdog_jax.photos.dataset import SPLITS, Dataset
from catdog_jax.photos.walk import told
from catdog_jax.ranges import check_arguments

if TYPE_CHECKING:
    from catdog_jax.features.cache import FeatureCache

CHECKS: tuple[type[Check], ...] = (
    file_faults.FileFaults,
    duplicates.Duplicates,
    LabelErrors,
    Drifts,
)
"""Every check of a data set, in the order of audit.json and of the terminal."""


def audit(
    photos: Dataset,
    *,
    features: "FeatureCache | Location | str | None" = None,
    workers: int | None = None,
    seed: int = 0,
) -> Findings:
    """Looks for what speaks against training on a data set: faulty files, copies, label errors, drift.

    Example:
      >>> import catdog_jax as cd
      >>> findings = cd.audit(cd.load_photos("demo"))
      >>> findings.anything(), findings["copies"]
      (False, ())

    Args:
      photos: the data set.
      features: a feature cache that has the photos, or some of them, or its path; without one
        labels and drift are not looked at, and JAX is not needed.
      workers: decoding threads; None for one a core.
      seed: decides the folds.

    Raises:
      CatdogError: the cache is unfinished or damaged, or has none of the photos.
      UsageError: an argument is out of its range.
      TypeError: the photos are no data set.
    """
    if not isinstance(photos, Dataset):
        raise TypeError(f"photos: expected a Dataset, found {type(photos).__name__}. Load one.")
    check_arguments(AuditConfig, workers=workers, seed=seed)
    looks = file_faults.survey(photos, workers)
    columns = None if features is None else _features_of(features, photos, looks)
    evidence = Evidence(photos, looks, duplicates.find(looks, columns), columns, seed)
    return Findings(
        source=photos.source,
        classes=photos.classes,
        counts=_counts(photos),
        checks=tuple(check.find(evidence) for check in CHECKS),
        told=(*photos.notes, *filter(None, [told(photos.left_out)])),
        left_out=photos.left_out,
        dataset=photos,
    )


def _features_of(
    features: "FeatureCache | Location | str", photos: Dataset, looks: Sequence[Look]
) -> dict[int, np.ndarray]:
    """Averaged features, float [512], by the place of a photo, found by its bytes: renaming and moving lose none.

    Raises:
      CatdogError: the cache is damaged, cannot give averaged features, or has none of the photos.
    """
    from catdog_jax.features.cache import FeatureCache  # brings JAX, which nothing else here needs

    cache = features if isinstance(features, FeatureCache) else FeatureCache.open(features)
    places: dict[str, list[int]] = {}
    for place, seen in enumerate(looks):
        if seen.grey is not None:
            places.setdefault(seen.sha256, []).append(place)
    columns: dict[int, np.ndarray] = {}
    for name in (name for split in SPLITS for name in cache.shard_names(split)):
        rows = np.asarray(cache.load_shard(name, "avg")[:, 0])
        for digest, row in zip(cache.sidecar(name)["source_sha256"], rows, strict=True):
            columns.update(dict.fromkeys(places.get(digest, ()), row))
    if not columns:
        raise CatdogError(
            f"{cache.path}: expected features of photos of {photos.source}, found those of others. "
            f"Run `catdog extract` on it."
        )
    return columns


def _counts(photos: Dataset) -> dict[str, dict[str, int]]:
    """Photos by split and class."""
    pairs = [(record.split, record.label) for record in photos.records]
    return {split: {name: pairs.count((split, label)) for label, name in enumerate(photos.classes)} for split in SPLITS}
