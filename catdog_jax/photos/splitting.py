"""Splits that nobody named are drawn from the photos of train, class by class, in the order of the photos' hashes.

The first tenth of each class is test and the next tenth validation; where one of the two is there
already, the first tenth is the other. So names and order do not matter, identical photos stay
together, and photos that are added move hardly any of the others.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import Dataset, LeftOut, Record, collect

AT_LEAST = 10  # different photos of a class, so that each split has one
_FEW = 300  # photos of a test split; 300 tell an accuracy to some three points
_DRAWN = ("test", "validation")


@dataclass(frozen=True)
class Found:
    """What a source holds, before the splits that it does not name are drawn.

    Attributes:
      source: the data set's name, as `sources.load` takes it.
      where: what errors begin with.
      classes: the names of the two classes, sorted.
      records: the photos; those of no split are in train.
      advice: what to do about a class without photos.
      lacking: the splits that are to be drawn, of `lacking`.
      cut: the splits that the source does not name either, and has cut off by itself.
      names_splits: whether it names any split.
      notes: how it was understood.
      left_out: what it holds and is not taken.
    """

    source: str
    where: str
    classes: tuple[str, str]
    records: Sequence[Record]
    advice: str
    lacking: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    names_splits: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def divide(found: Found, needed: Sequence[str], undivided: bool = False) -> Dataset:
    """The photos of a source as a data set: splits that it does not name are drawn, or left in train.

    Args:
      found: what the source holds.
      needed: the splits that must not lack a class.
      undivided: draw none.

    Raises:
      CatdogError: see `draw` and `dataset.collect`.
    """
    drawn = () if undivided else found.lacking
    records, notes = found.records, found.notes
    if undivided:
        records = [dataclasses.replace(one, split="train") if one.split in found.cut else one for one in records]
        notes += _undivided_notes(found, records)
    else:
        records = draw(records, drawn, found.classes, found.where, needed)
    dataset = collect(found.source, found.where, found.classes, records, found.advice, needed)
    if found.names_splits and drawn:
        notes += drawn_notes(dataset.records, drawn, found.classes)
    return dataclasses.replace(dataset, drawn=drawn, notes=notes, left_out=found.left_out)


def lacking(named: Sequence[str | None]) -> tuple[str, ...]:
    """The splits to draw where only these are named; train cannot be drawn."""
    return tuple(split for split in _DRAWN if split not in named)


def draw(
    records: Sequence[Record], splits: Sequence[str], classes: Sequence[str], where: str, needed: Sequence[str]
) -> list[Record]:
    """Moves a tenth of the photos of train into each of `splits`.

    Copies count as one photo and stay together; a photo of both classes counts in both. A group
    (`Record.group`) stays together too, and may fill more than a tenth.

    Args:
      records: of all splits; those of no split are in train.
      splits: what `lacking` gave.
      classes: the names of the two classes.
      where: what errors begin with.
      needed: the splits that must not lack a class.

    Raises:
      CatdogError: a class has too few photos for a split that is needed, or the system cannot read
        a photo.
    """
    train = [record for record in records if record.split == "train"]
    if not splits or {record.label for record in train} != {0, 1}:
        return [*records]
    units = _units(train, where)
    counts = [Counter(label for _, label in {(digest, record.label) for digest, record in unit}) for unit in units]
    different = sum(counts, Counter[int]())
    if min(different[0], different[1]) < AT_LEAST and {*splits} & {*needed}:
        raise CatdogError(
            f"{where}: expected at least {AT_LEAST} different photos of each class, to draw the {' and '.join(splits)} "
            f"split{'s' * (len(splits) > 1)} from, found {different[0]:,} of {classes[0]!r} and {different[1]:,} of "
            f"{classes[1]!r}. Add photos of the smaller class."
        )
    room = {split: Counter({label: _tenth(different[label]) for label in (0, 1)}) for split in splits}
    drawn: dict[str, str] = {}
    for unit, count in zip(units, counts, strict=True):
        split = next((split for split in splits if all(room[split][label] > 0 for label in count)), None)
        if split is not None:
            room[split].subtract(count)
            drawn.update((record.id, split) for _, record in unit)
    return [dataclasses.replace(record, split=drawn.get(record.id, record.split)) for record in records]


def _units(train: Sequence[Record], where: str) -> list[list[tuple[bytes, Record]]]:
    """What must stay together: (hash, photo) of the same bytes or the same group; in the order of hashes."""
    above: dict[bytes, bytes] = {}  # a tree for each unit, of the hashes of photos and of the names of groups

    def top(key: bytes) -> bytes:
        while (higher := above.setdefault(key, key)) != key:
            key = higher
        return key

    found = []
    for record in train:
        if digest := _digest(record, where):
            name = digest if record.group is None else hashlib.sha256(record.group.encode(errors="replace")).digest()
            found.append((digest, name, record))
            above[top(digest)] = top(name)
    units: dict[bytes, list[tuple[bytes, Record]]] = {}
    for digest, _, record in sorted(found, key=lambda one: one[:2]):
        units.setdefault(top(digest), []).append((digest, record))
    first: dict[bytes, bytes] = {}
    for digest, name, _ in found:
        first[top(digest)] = min(name, first.get(top(digest), name))
    return [units[unit] for unit in sorted(units, key=first.__getitem__)]


def _undivided_notes(found: Found, records: Sequence[Record]) -> tuple[str, ...]:
    """What stays in train, where splits could have been drawn."""
    open_splits = (*found.lacking, *found.cut)
    if not open_splits:
        return ()
    counts = Counter(record.label for record in records if record.split == "train")
    return (
        f"undivided: no {' and no '.join(open_splits)} split was drawn; train has {counts.total():,} photos "
        f"({counts[0]:,} {found.classes[0]!r}, {counts[1]:,} {found.classes[1]!r})",
    )


def drawn_notes(records: Sequence[Record], splits: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each split that was drawn, with counts."""
    said = []
    for split in splits:
        counts = Counter(record.label for record in records if record.split == split)
        number = f"{counts.total():,} photos of train ({counts[0]:,} {classes[0]!r}, {counts[1]:,} {classes[1]!r})"
        rough = split == "test" and counts.total() < _FEW
        said.append(
            f"found no {split} split: {number} were drawn for it{'; so small a test gives rough figures' * rough}"
        )
    return tuple(said)


def _tenth(photos: int) -> int:
    """A tenth, rounded; nothing where there are too few to divide."""
    return (photos + 5) // 10 if photos >= AT_LEAST else 0


def _digest(record: Record, where: str) -> bytes:
    """The hash of a photo's bytes; nothing where there is no photo, which is listed with its reason when it is decoded."""
    try:
        return hashlib.sha256(record.read()).digest()
    except decoding.UnreadableError as error:  # another time it would lie in another split
        raise CatdogError(
            f"{where}: {record.id}: {error}. Repair the disk or correct the permissions, or remove it."
        ) from None
    except decoding.ImageError:
        return b""
