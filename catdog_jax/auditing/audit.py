"""`catdog audit`: is this data set fit to train on? Broken files, copies, leakage, suspicious labels, drift."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from catdog_jax.auditing import duplicates, file_faults, findings
from catdog_jax.auditing.findings import Drift, Findings, Suspicion
from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Location
from catdog_jax.photos import folders
from catdog_jax.photos.sources import Dataset

if TYPE_CHECKING:
    from catdog_jax.auditing.label_errors import Labels

FORMAT = 1
FOUND = 3  # the exit status of --strict where something was found
LOOKED_AT = 50  # labels that the page shows at least, the most suspicious ones
_WITHOUT = (
    "Labels and drift were not looked at: they need features. Run `catdog extract --out CACHE`, then `catdog audit "
    "--features CACHE`."
)


def inspect(dataset: Dataset, features: Location | None = None, workers: int | None = None, seed: int = 0) -> Findings:
    """Everything that can be found out about a data set.

    Args:
      dataset: the photos.
      features: a feature cache that has them, or some of them; without one labels and drift are not
        looked at.
      workers: decoding threads; None for one a core.
      seed: decides the folds.

    Raises:
      CatdogError: the cache is unfinished or damaged, or has none of the photos.
    """
    looks = file_faults.survey(dataset, workers)
    of = findings.photos(dataset)
    faulty = findings.faulty(of, looks)
    found = Findings(dataset.source, dataset.classes, findings.counts(dataset), faulty, (), left_out=dataset.left_out)
    notes = [*dataset.notes, *filter(None, [folders.told(dataset.left_out)])]
    notes += [
        f"No photos of {name!r} in the {split} split: `catdog extract` needs some." for split, name in found.lacking
    ]
    if features is None:
        copies = findings.copies(of, looks, duplicates.find(looks))
        return dataclasses.replace(found, copies=copies, notes=(*notes, _WITHOUT))
    from catdog_jax.auditing import label_errors  # brings JAX, which nothing else here needs
    from catdog_jax.features.cache import FeatureCache

    rows = label_errors.features_of(FeatureCache.open(features), looks)
    if not rows:
        raise CatdogError(
            f"{features}: expected features of photos of {dataset.source}, found those of others. Run `catdog extract` on it."
        )
    groups = duplicates.find(looks, rows)
    found = dataclasses.replace(found, copies=findings.copies(of, looks, groups), judged=len(rows))
    if missing := len(of) - len(rows):
        notes.append(f"{missing:,} of {len(of):,} photos have no features: their labels were not judged.")
    judged = label_errors.judge_labels(dataset, rows, groups, seed)
    if judged is None:
        notes.append(
            f"Labels were not judged: that needs {label_errors.MIN_PHOTOS} photos of each class with features."
        )
        return dataclasses.replace(found, judged=0, notes=tuple(notes))
    labels = judged[0]
    drift = tuple(Drift(*one) for one in label_errors.drifts(dataset, rows, groups, seed))
    return dataclasses.replace(
        found,
        accuracy=float((labels.other < 0.5).mean()),
        suspicions=tuple(_suspicions(dataset, list(rows), labels)),
        drift=drift,
        notes=tuple(notes),
    )


def _suspicions(dataset: Dataset, rows: Sequence[int], labels: "Labels") -> list[Suspicion]:
    """All suspects, and the most improbable labels up to `LOOKED_AT`, in the order of how improbable they are."""
    of = findings.photos(dataset)
    order = sorted(range(len(rows)), key=lambda index: (not labels.suspect[index], -labels.other[index], rows[index]))
    chosen = [
        index
        for place, index in enumerate(order)
        if labels.suspect[index] or (place < LOOKED_AT and labels.other[index] > 0.5)
    ]
    return [
        Suspicion(
            photo=of[rows[index]],
            other=dataset.classes[1 - dataset.records[rows[index]].label],
            probability=float(labels.other[index]),
            suspect=bool(labels.suspect[index]),
        )
        for index in chosen
    ]
