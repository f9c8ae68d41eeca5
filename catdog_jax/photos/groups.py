"""What belongs together, such as photos of one animal: by the folders that photos lie in, or by a pattern in their names."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos.dataset import SPLITS, Record

FOLDER = "folder"


def named(
    records: Sequence[Record], groups: str | None, where: str, folder_of: Callable[[str], str | None]
) -> Sequence[Record]:
    """The photos with the names of their groups.

    Args:
      records: of all splits.
      groups: "folder"; or a regular expression that is searched in a photo's id, whose first group
        (or whole match) is the name; or None, which leaves the photos as they are.
      where: what errors begin with.
      folder_of: the group of a photo's id by folders, None where it lies in none.

    Raises:
      UsageError: it is no regular expression, or fits no photo; or the source names groups itself.
    """
    if groups is None:
        return records
    if any(record.group for record in records):
        raise UsageError(
            f"--groups: expected none beside the groups that {where} names itself, found {groups!r}. Leave out one of them."
        )
    name = folder_of if groups == FOLDER else _by_pattern(groups)
    found = [dataclasses.replace(record, group=name(record.id)) for record in records]
    if not any(record.group for record in found):
        example = f"for example {records[0].id!r}" if records else "none"
        if groups == FOLDER:
            raise UsageError(
                f"--groups folder: expected folders below those of the classes in {where}, found that no photo lies in one, "
                f"{example}. Sort them into folders, or give a pattern."
            )
        raise UsageError(
            f"--groups: expected a pattern that is found in the paths of photos, found {groups!r}, which is in none of "
            f"{len(records):,}, {example}. Correct it."
        )
    return found


def _by_pattern(groups: str) -> Callable[[str], str | None]:
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise UsageError(
            f"--groups: expected folder or a regular expression, found {groups!r}: {error}. Correct it."
        ) from None

    def name(photo: str) -> str | None:
        match = pattern.search(photo)
        return (match and (match[1] if pattern.groups else match[0])) or None

    return name


def check_whole(records: Sequence[Record], classes: Sequence[str], where: str) -> None:
    """Checks that no group holds all photos of a class of train, which could not be divided then.

    Raises:
      CatdogError: one does; the message names it and the class.
    """
    for label, name in enumerate(classes):
        names = {record.group for record in records if (record.label, record.split) == (label, "train")}
        if len(names) == 1 and (only := names.pop()):
            raise CatdogError(
                f"{where}: expected several groups of {name!r}, found that group {only!r} holds all of its photos. A group is "
                f"never divided: make the groups smaller."
            )


def notes(records: Sequence[Record]) -> tuple[str, ...]:
    """How many groups there are, and which lie in several splits that were named; nothing where there are none."""
    sizes = Counter(record.group for record in records if record.group)
    if not sizes:
        return ()
    alone = sum(not record.group for record in records)
    many = f"groups: {sizes.total():,} photos in {len(sizes):,}, the largest {max(sizes.values()):,}"
    said = [many + f"; {alone:,} photos in none" * bool(alone)]
    places: dict[str, set[str]] = {}
    for record in records:
        if record.group:
            places.setdefault(record.group, set()).add(record.split)
    torn = {name: split for name, split in places.items() if len(split) > 1}
    if torn:
        first, photos = min(torn), sum(sizes[name] for name in torn)
        said.append(
            f"{len(torn):,} group{'s' * (len(torn) > 1)} with {photos:,} photos in several splits, for "
            f"example {first!r} in {' and '.join(sorted(torn[first], key=SPLITS.index))}: the splits that are named stay, and "
            f"figures may be too good"
        )
    return tuple(said)
