"""What every source of photos gives: records that are not read yet, in a fixed order."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catdog_jax.errors import CatdogError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Record:
    """One photo that is not read yet.

    Attributes:
      id: a name that is unique in the data set: the path below its root, with "/", or what a TFDS data set calls it.
      label: 0 or 1, the index into `Dataset.classes`.
      split: "train", "validation" or "test".
      size: the length of the undecoded photo in bytes.
      read: returns the undecoded photo, or raises `images.ImageError`.
    """

    id: str
    label: int
    split: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Dataset:
    """Two classes of photos.

    Attributes:
      source: what the data set was loaded from, as `data.load` takes it.
      classes: the names of the two classes; the second is the positive one.
      records: sorted by split, then by the hash of the id.
    """

    source: str
    classes: tuple[str, str]
    records: tuple[Record, ...]

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one split, in their fixed order."""
        return self._by_split[name]

    @functools.cached_property
    def _by_split(self) -> dict[str, tuple[Record, ...]]:
        return {name: tuple(record for record in self.records if record.split == name) for name in SPLITS}


def collect(source: str, where: str, classes: tuple[str, str], records: Iterable[Record], advice: str) -> Dataset:
    """The records in their fixed order, where each class has photos in each split.

    Args:
      source: what `Dataset.source` becomes.
      where: what the errors begin with.
      classes: the names of the two classes, sorted.
      records: in any order.
      advice: what to do about a class without photos.

    Raises:
      CatdogError: a split has no photo of a class.
    """
    ordered = sorted(records, key=lambda record: (SPLITS.index(record.split), hashlib.sha256(os.fsencode(record.id)).digest()))
    filled = {(record.split, record.label) for record in ordered}
    for split in SPLITS:
        for label, name in enumerate(classes):
            if (split, label) not in filled:
                raise CatdogError(f"{where}: expected photos of {name!r} in the {split} split, found none. {advice}")
    return Dataset(source, classes, tuple(ordered))
