"""A folder of photos as a data set: ROOT/SPLIT/CLASS/* (see `layout`), or ROOT/CLASS/* split by content."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import SPLITS, Dataset, Record, collect, is_class_name
from catdog_jax.photos.layout import Layout, read_layout
from catdog_jax.photos.walk import Walk, subfolders, told

_TRAIN_SHARE, _VALIDATION_SHARE = 0.8, 0.1  # of a folder without splits; the rest is the test split


def load(source: str, needed: Sequence[str] = SPLITS) -> Dataset:
    """Loads the folder that is named, see `load_folder`."""
    return load_folder(Path(source), source, needed)


def load_folder(root: Path, source: str | None = None, needed: Sequence[str] = SPLITS) -> Dataset:
    """Loads ROOT/SPLIT/CLASS/* (see `layout.read_layout`), or ROOT/CLASS/* split by content.

    Without split folders a photo's split follows from the hash of its bytes (80/10/10), so
    identical photos never lie on two sides and the split stays when photos are added. `source` is the name to remember it by.

    Raises:
      CatdogError: see `sources.load`.
    """
    source = source or str(root)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise CatdogError(f"{root}: expected a folder of photos, found {kind}. Check --data.")
    layout, walk = read_layout(root), Walk(root)
    classes = _two_classes(layout)
    records = list(_records(layout, classes, walk))
    walk.leave_others(root, {place / name for place in layout.places for name in classes})
    left_out = tuple(walk.left_out.values())
    advice = _advice_on_splits(layout, classes, needed, told(left_out))
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
                yield _record(layout.root, photo, split or split_by_content(photo), label)


def _record(root: Path, photo: Path, split: str, label: int) -> Record:
    name = photo.relative_to(root).as_posix()
    return Record(name, label, split, size_of(photo), functools.partial(_read_below, root, name))


def size_of(photo: Path) -> int:
    """The length of a file in bytes; 0 where there is none."""
    return photo.stat().st_size if photo.exists() else 0


def _read_below(root: Path, name: str) -> bytes:
    """A path of its own for each of many photos would take more memory than all the rest of their records."""
    return decoding.read_photo(root / name)


def split_by_content(photo: Path) -> str:
    """The split that follows from the hash of a photo's bytes.

    Raises:
      CatdogError: the system cannot read the photo.
    """
    try:
        digest = hashlib.sha256(decoding.read_photo(photo)).digest()
    except decoding.UnreadableError as error:  # another time it would lie in another split
        raise CatdogError(f"{photo}: {error}. Repair the disk or correct the permissions, or remove it.") from None
    except decoding.ImageError:  # listed with its reason when it is decoded; until then any split will do
        return "train"
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < _TRAIN_SHARE else "validation" if share < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


def _two_classes(layout: Layout) -> tuple[str, str]:
    """The names of the class folders; of more than two, those that hold pictures."""
    folders = [folder for place in layout.places for folder in subfolders(place)]
    names = {folder.name for folder in folders}
    if len(names) > 2:
        names = {folder.name for folder in folders if _holds_pictures(folder)}
    for name in names:
        if not is_class_name(name):
            raise CatdogError(
                f"{layout.root}: expected class folders named in UTF-8 without control characters, found {name!r}. "
                f"Rename it, for example with `convmv -f cp437 -t utf8`."
            )
    if len(names) != 2:
        listed = ", ".join(sorted(names)) or "none"
        raise CatdogError(
            f"{layout.root}: expected folders of two classes, found {len(names)}: {listed}. {_advice(layout.root, folders)}"
        )
    first, second = sorted(names)
    return first, second


def _holds_pictures(folder: Path) -> bool:
    walk = Walk()
    return bool(walk.photos(folder)) or any(kind.pictures for kind in walk.left_out.values())


def _advice(root: Path, folders: Sequence[Path]) -> str:
    """What to do where there are not two class folders."""
    match folders:
        case []:
            return "Put the photos of each class into a folder of its own, and name the folder above the two."
        case [only] if len(subfolders(only)) > 1:
            return f"Perhaps --data {only} is meant."
    return "Keep two."
