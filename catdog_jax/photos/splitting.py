"""Splits that nobody named are drawn from the photos of train, class by class, in the order of the photos' hashes.

The first tenth of each class is test and the next tenth validation; where one of the two is there
already, the first tenth is the other. So names and order do not matter, identical photos and near
copies stay together, groups too, and photos that are added move hardly any of the others.
"""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, near_copies
from catdog_jax.photos import groups as grouping
from catdog_jax.photos.dataset import Dataset, LeftOut, Record, collect
from catdog_jax.photos.near_copies import Units

AT_LEAST = 10  # different photos of a class, so that each split has one
_FEW = 300  # photos of a test split; 300 tell an accuracy to some three points
_DRAWN = ("test", "validation")


def folder_of(name: str) -> str | None:
    """The folder that a photo lies in, by its id; None where there is none."""
    folder = PurePosixPath(name).parent.as_posix()
    return None if folder in (".", "/") else folder


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
      folder_of: the folder that groups a photo, by its id; None where it lies in none.
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
    folder_of: Callable[[str], str | None] = folder_of


class Drawn(NamedTuple):
    """The photos of all splits, and how many of those that were divided are near copies; None where nobody looked."""

    records: list[Record]
    near_copies: int | None


def divide(found: Found, needed: Sequence[str], groups: str | None = None, undivided: bool = False) -> Dataset:
    """The photos of a source as a data set: splits that it does not name are drawn, or left in train.

    Args:
      found: what the source holds.
      needed: the splits that must not lack a class.
      groups: what belongs together, see `groups.named`.
      undivided: draw none.

    Raises:
      CatdogError: a group holds a whole class that is to be divided; or see `draw` and
        `dataset.collect`.
      UsageError: see `groups.named`.
    """
    drawn = () if undivided else found.lacking
    records, notes = grouping.named(found.records, groups, found.where, found.folder_of), found.notes
    if undivided:
        records = [dataclasses.replace(one, split="train") if one.split in found.cut else one for one in records]
        notes += _undivided_notes(found, records)
    if {*found.lacking, *found.cut} and (undivided or {*drawn} & {*needed}):
        grouping.check_whole(records, found.classes, found.where)
    near: int | None = 0
    if drawn:
        records, near = draw(records, drawn, found.classes, found.where, needed)
    dataset = collect(found.source, found.where, found.classes, records, found.advice, needed)
    if found.names_splits and drawn:
        notes += drawn_notes(dataset.records, drawn, found.classes)
    notes += _copies_notes(near, len(found.records)) + grouping.notes(dataset.records)
    return dataclasses.replace(dataset, drawn=drawn, notes=notes, left_out=found.left_out)


def lacking(named: Sequence[str | None]) -> tuple[str, ...]:
    """The splits to draw where only these are named; train cannot be drawn."""
    return tuple(split for split in _DRAWN if split not in named)


def draw(
    records: Sequence[Record], splits: Sequence[str], classes: Sequence[str], where: str, needed: Sequence[str]
) -> Drawn:
    """Moves a tenth of the photos of train into each of `splits`.

    Identical photos count as one; a photo of both classes counts in both. What belongs together,
    which are copies, near copies and groups (`Record.group`), is not divided: it is drawn where it
    fits into the tenth.

    Args:
      records: of all splits; those of no split are in train.
      splits: what `lacking` gave.
      classes: the names of the two classes.
      where: what errors begin with.
      needed: the splits that must not lack a class.

    Raises:
      CatdogError: a class has too few photos, or too few that do not belong together, for a split
        that is needed; or the system cannot read a photo.
    """
    train = [record for record in records if record.split == "train"]
    if not splits or {record.label for record in train} != {0, 1}:
        return Drawn([*records], 0)
    units, near = _units(train, where)
    counts = [Counter(label for _, label in {(digest, record.label) for digest, record in unit}) for unit in units]
    different = sum(counts, Counter[int]())
    if min(different[0], different[1]) < AT_LEAST and {*splits} & {*needed}:
        raise CatdogError(
            f"{where}: expected at least {AT_LEAST} different photos of each class, to draw the {' and '.join(splits)} "
            f"split{'s' * (len(splits) > 1)} from, found {different[0]:,} of {classes[0]!r} and {different[1]:,} of "
            f"{classes[1]!r}. Add photos of the smaller class."
        )
    for label, name in enumerate(classes):
        apart, least = sum(bool(count[label]) for count in counts), 1 + len({*splits} & {*needed})
        if apart < least and {*splits} & {*needed}:
            raise CatdogError(
                f"{where}: expected photos of {name!r} in at least {least} groups, to draw the {' and '.join(splits)} "
                f"split{'s' * (len(splits) > 1)} from, found {different[label]:,} in {apart}. Groups, copies and near copies "
                f"are not divided: make the groups smaller, add photos, or name the splits."
            )
    placed = _placed(counts, splits, different)
    drawn = {record.id: split for unit, split in placed.items() for _, record in units[unit]}
    moved = [dataclasses.replace(record, split=drawn.get(record.id, record.split)) for record in records]
    return Drawn(moved, near)


def _placed(counts: Sequence[Counter[int]], splits: Sequence[str], different: Counter[int]) -> dict[int, str]:
    """The units that leave train, by their places: those that fit into the tenth of each class, in order.

    A split that has no photo of a class then, because all units are larger, gets the smallest.
    """
    tenth = Counter({label: _tenth(different[label]) for label in (0, 1)})
    room = {split: tenth.copy() for split in splits}
    placed: dict[int, str] = {}
    for unit, count in enumerate(counts):
        split = next((split for split in splits if all(room[split][label] >= count[label] for label in count)), None)
        if split is not None:
            room[split].subtract(count)
            placed[unit] = split
    for split, label in itertools.product(splits, (0, 1)):
        free = [unit for unit, count in enumerate(counts) if unit not in placed and count[label]]
        if room[split][label] == tenth[label] > 0 and len(free) > 1:
            unit = min(free, key=lambda unit: (counts[unit].total(), unit))
            room[split].subtract(counts[unit])
            placed[unit] = split
    return placed


def _units(train: Sequence[Record], where: str) -> tuple[list[list[tuple[bytes, Record]]], int | None]:
    """What must stay together, and how many photos are near copies, None where there are too many photos to look.

    A unit has (hash, photo) of the same bytes, of near copies, or of the same group. Units are in
    the order of hashes.
    """
    look_for_near = len(train) <= near_copies.MAX_PHOTOS
    looks = near_copies.look(train, look_for_near)
    units = Units[bytes]()  # of the hashes of photos and of the names of groups
    found, grey = [], dict[bytes, np.ndarray]()
    for record in train:
        try:
            digest, picture = next(looks)
        except decoding.UnreadableError as error:  # another time it would lie in another split
            raise CatdogError(
                f"{where}: {record.id}: {error}. Repair the disk or correct the permissions, or remove it."
            ) from None
        if digest:  # where there is no photo, it is listed with its reason when it is decoded
            name = digest if record.group is None else hashlib.sha256(record.group.encode(errors="replace")).digest()
            found.append((digest, name, record))
            units.join(digest, name)
        if picture is not None:
            grey[digest] = picture
    near = near_copies.join(units, grey)
    together: dict[bytes, list[tuple[bytes, Record]]] = {}
    for digest, _, record in sorted(found, key=lambda one: one[:2]):
        together.setdefault(units.top(digest), []).append((digest, record))
    first: dict[bytes, bytes] = {}
    for digest, name, _ in found:
        first[units.top(digest)] = min(name, first.get(units.top(digest), name))
    return [together[unit] for unit in sorted(together, key=first.__getitem__)], near if look_for_near else None


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


def _copies_notes(near: int | None, photos: int) -> tuple[str, ...]:
    """What the drawing knows of near copies."""
    if near is None:
        return (
            f"near copies were not looked for among {photos:,} photos, because they are more than {near_copies.MAX_PHOTOS:,}; "
            "identical photos lie in one split. `catdog audit` finds both",
        )
    return (f"{near:,} photos are near copies of others, and lie in one split with them",) if near else ()


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
