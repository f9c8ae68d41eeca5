"""Where photos come from: a folder of two classes, a TFDS data set or the demo -> records in a fixed order.

The positive class is the second in sorted order (cats, dogs -> dogs). Records are ordered by a hash
of their id, so that every shard of features mixes the classes and the order depends on nothing but
the inputs.
"""

import contextlib
import dataclasses
import functools
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from catdog_jax.console import console, printable
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, folders, tfds
from catdog_jax.photos.dataset import SPLITS, Dataset, Record, collect, is_class_name
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.folders import Layout, Walk

__all__ = ["SPLITS", "Dataset", "Record", "load", "load_folder", "locate", "read_patiently", "tell"]

_BEFORE_RETRY = 0.5  # seconds
_TRAIN_SHARE, _VALIDATION_SHARE = 0.8, 0.1  # of a folder without splits; the rest is the test split


def read_patiently(record: Record) -> bytes:
    """The undecoded photo, asked for twice where the disk fails: what may come back must not count as undecodable.

    Raises:
      ImageError: there is no photo to be had.
      CatdogError: the system cannot read it, twice.
    """
    with contextlib.suppress(decoding.UnreadableError):
        return record.read()
    time.sleep(_BEFORE_RETRY)
    try:
        return record.read()
    except decoding.UnreadableError as error:
        raise CatdogError(
            f"{record.id!r}: {error}, twice. Mend the disk or the permissions, or remove the photo; then go on."
        ) from None


def locate(source: str | None, data_dir: Path | None) -> str:
    """The name of a data set together with where TFDS keeps it, as `load` takes it.

    Raises:
      UsageError: no data set is named, or `data_dir` is given and `source` is no TFDS data set.
    """
    if source is None:
        raise UsageError(
            "--data: expected photos, found none named. Give --data FOLDER, or --data demo for the drawings."
        )
    if data_dir is None:
        return source
    if not source.startswith(tfds.PREFIX):
        raise UsageError(
            f"--data-dir: expected --data tfds:NAME beside it, found --data {source}. Leave --data-dir out."
        )
    return tfds.locate(source, data_dir)


def load(source: str, needed: Sequence[str] = SPLITS) -> Dataset:
    """Loads a data set by its name: `demo`, `tfds:NAME` (see `tfds_source`), or the path of a folder.

    Args:
      source: the name.
      needed: the splits that are used, in which each class must have photos.

    Raises:
      CatdogError: the data set is missing or empty, or does not hold two classes, each in every
        split that is needed.
      UsageError: the extra `tfds` is needed and not installed.
    """
    if source.startswith(tfds.PREFIX):
        return tfds.load(source, needed)
    if source == "demo":
        return load_folder(drawing.draw_once(), source, needed)
    return load_folder(Path(source), source, needed)


def tell(dataset: Dataset) -> None:
    """Prints how the folders of a data set were understood, and what of them is left out."""
    for line in filter(None, (*dataset.notes, folders.told(dataset.left_out))):
        console.print(printable(line), markup=False, soft_wrap=True)


def load_folder(root: Path, source: str | None = None, needed: Sequence[str] = SPLITS) -> Dataset:
    """Loads ROOT/SPLIT/CLASS/* (see `folders.read_layout`), or ROOT/CLASS/* split by content.

    Without split folders a photo's split follows from the hash of its bytes (80/10/10), so
    identical photos never lie on two sides and the split stays when photos are added.

    Args:
      root: the folder.
      source: the name to remember it by; by default the path.
      needed: see `load`.

    Raises:
      CatdogError: see `load`.
    """
    source = source or str(root)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise CatdogError(f"{root}: expected a folder of photos, found {kind}. Check --data.")
    layout, walk = folders.read_layout(root), Walk(root)
    classes = _two_classes(layout)
    records = list(_records(layout, classes, walk))
    walk.leave_others(root, {place / name for place in layout.places for name in classes})
    left_out = tuple(walk.left_out.values())
    advice = _advice_on_splits(layout, classes, needed, folders.told(left_out))
    dataset = collect(source, str(root), classes, records, advice, needed)
    return dataclasses.replace(dataset, by_hash=not layout.has_splits, notes=layout.notes(), left_out=left_out)


def _advice_on_splits(layout: Layout, classes: tuple[str, str], needed: Sequence[str], left_out: str) -> str:
    """What to do where a class has no photos in a split."""
    lacking = [split for split in needed if split not in layout.places.values()]
    advice = f"Put some there ({', '.join(decoding.SUFFIXES)}), or check the names"
    if layout.has_splits and lacking:
        advice = (
            f"Move some, say a tenth, into {' and '.join(f'{split}/{name}' for split in lacking for name in classes)}"
        )
    return f"{advice}: {'; '.join(filter(None, (f'found {layout.described()}', left_out)))}."


def _records(layout: Layout, classes: tuple[str, str], walk: Walk) -> Iterator[Record]:
    for place, split in layout.places.items():
        for label, name in enumerate(classes):
            for photo in walk.photos(place / name) if (place / name).is_dir() else ():
                yield _record(layout.root, photo, split or _split_by_content(photo), label)


def _record(root: Path, photo: Path, split: str, label: int) -> Record:
    name = photo.relative_to(root).as_posix()
    size = photo.stat().st_size if photo.exists() else 0
    return Record(name, label, split, size, functools.partial(_read_below, root, name))


def _read_below(root: Path, name: str) -> bytes:
    """A path of its own for each of many photos would take more memory than all the rest of their records."""
    return decoding.read_photo(root / name)


def _split_by_content(photo: Path) -> str:
    try:
        digest = hashlib.sha256(decoding.read_photo(photo)).digest()
    except decoding.UnreadableError as error:  # another time it would lie in another split
        raise CatdogError(f"{photo}: {error}. Mend the disk or the permissions, or remove it.") from None
    except decoding.ImageError:  # listed with its reason when it is decoded; until then any split will do
        return "train"
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < _TRAIN_SHARE else "validation" if share < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


def _two_classes(layout: Layout) -> tuple[str, str]:
    """The names of the class folders; of more than two, those that hold pictures."""
    found = [folder for place in layout.places for folder in folders.subfolders(place)]
    names = {folder.name for folder in found}
    if len(names) > 2:
        names = {folder.name for folder in found if _holds_pictures(folder)}
    for name in names:
        if not is_class_name(name):
            raise CatdogError(
                f"{layout.root}: expected class folders named in UTF-8 without control characters, found {name!r}. "
                f"Rename it, for example with `convmv -f cp437 -t utf8`."
            )
    if len(names) != 2:
        listed = ", ".join(sorted(names)) or "none"
        raise CatdogError(
            f"{layout.root}: expected folders of two classes, found {len(names)}: {listed}. {_advice(layout.root, found)}"
        )
    first, second = sorted(names)
    return first, second


def _holds_pictures(folder: Path) -> bool:
    walk = Walk()
    return bool(walk.photos(folder)) or any(one.pictures for one in walk.left_out.values())


def _advice(root: Path, found: Sequence[Path]) -> str:
    """What to do where there are not two class folders."""
    match found:
        case []:
            return "Put the photos of each class into a folder of its own, and name the folder above the two."
        case [only] if len(folders.subfolders(only)) > 1:
            return f"Perhaps --data {only} is meant."
    return "Keep two."
