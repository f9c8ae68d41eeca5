"""What every source of photos gives: records that are not read yet, in a fixed order."""

import functools
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from catdog_jax.errors import CatdogError
from catdog_jax.files import sealed

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Record:
    """One photo that is not read yet.

    Attributes:
      id: a name that is unique in the data set: the path below its root, with "/", or what a TFDS
        data set calls it.
      label: 0 or 1, the index into `Dataset.classes`.
      split: "train", "validation" or "test".
      size: the length of the undecoded photo in bytes.
      read: returns the undecoded photo, or raises `decoding.ImageError`.
      group: what belongs together, such as photos of the same animal; None where nobody says.
    """

    id: str
    label: int
    split: str
    size: int
    read: Callable[[], bytes]
    group: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that a folder holds and that are not taken.

    Attributes:
      kind: their suffix, or why they are not taken.
      count: how many there are.
      pictures: how many of them begin like a picture.
      example: one of them, a picture where there is one.
    """

    kind: str
    count: int
    pictures: int
    example: str


@dataclass(frozen=True)
class Dataset:
    """Two classes of photos.

    Attributes:
      source: what the data set was loaded from, as `sources.load` takes it.
      classes: the names of the two classes; the second is the positive one.
      records: sorted by split, then by the hash of the id.
      drawn: the splits that nobody named, so that they were drawn from train (see `splitting`).
      notes: how the folders were understood, a sentence each, where that is not plain.
      left_out: what its folders hold and is not taken.
    """

    source: str
    classes: tuple[str, str]
    records: tuple[Record, ...]
    drawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __repr__(self) -> str:
        lines = [f"Dataset {self.source}: {' and '.join(self.classes)}"]
        for name in SPLITS:
            counts = [sum(record.label == label for record in self.split(name)) for label in (0, 1)]
            lines.append(f"  {name:10} {sum(counts):6,} photos ({counts[0]:,} + {counts[1]:,})")
        return "\n".join(lines)

    @functools.cached_property
    def inputs_sha256(self) -> str:
        """The hash of every photo's id, label, split, size and group: data sets that share it are the same for a training."""
        return sealed.sha256_of_json(
            [
                [record.id, record.label, record.split, record.size, *([record.group] if record.group else ())]
                for record in self.records
            ]
        )

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one split, in their fixed order."""
        return self._by_split[name]

    @functools.cached_property
    def _by_split(self) -> dict[str, tuple[Record, ...]]:
        return {name: tuple(record for record in self.records if record.split == name) for name in SPLITS}


def is_class_name(name: object) -> bool:
    """Whether a name can be written as UTF-8 on one line: it is text without control characters and surrogates."""
    return isinstance(name, str) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in name)


def collect(
    source: str,
    where: str,
    classes: tuple[str, str],
    records: Iterable[Record],
    advice: str,
    needed: Sequence[str] = SPLITS,
) -> Dataset:
    """The records in their fixed order, where each class has photos in each split that is needed.

    `source` becomes that of the data set, `where` begins the errors, and `advice` says what to
    do about a class without photos in a split of `needed`.

    Raises:
      CatdogError: a split that is needed has no photo of a class, or there is no photo at all.
    """
    ordered = sorted(
        records, key=lambda record: (SPLITS.index(record.split), hashlib.sha256(os.fsencode(record.id)).digest())
    )
    filled = {(record.split, record.label) for record in ordered}
    for split in needed:
        for label, name in enumerate(classes):
            if (split, label) not in filled:
                raise CatdogError(f"{where}: expected photos of {name!r} in the {split} split, found none. {advice}")
    if not ordered:
        raise CatdogError(f"{where}: expected photos of {classes[0]!r} and {classes[1]!r}, found none. {advice}")
    return Dataset(source, classes, tuple(ordered))
