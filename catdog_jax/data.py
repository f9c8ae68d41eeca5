"""Where photos come from: a folder of two classes, a TFDS data set or the demo -> records in a fixed order.

The positive class is the second in sorted order (cats, dogs -> dogs). Records are ordered by a hash of their id, so that
every shard of features mixes the classes and the order depends on nothing but the inputs.
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from catdog_jax import demo, images, tfds_source
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.records import SPLITS, Dataset, Record, collect

__all__ = ["SPLITS", "Dataset", "Record", "load", "load_folder", "locate", "photos_below", "read_patiently"]

_SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
_BEFORE_RETRY = 0.5  # seconds
_TRAIN_SHARE, _VALIDATION_SHARE = 0.8, 0.1  # of a folder without splits; the rest is the test split


def read_patiently(record: Record) -> bytes:
    """The undecoded photo, asked for twice where the disk fails: what may come back must not count as undecodable.

    Raises:
      ImageError: there is no photo to be had.
      CatdogError: the system cannot read it, twice.
    """
    with contextlib.suppress(images.UnreadableError):
        return record.read()
    time.sleep(_BEFORE_RETRY)
    try:
        return record.read()
    except images.UnreadableError as error:
        raise CatdogError(
            f"{record.id!r}: {error}, twice. Mend the disk or the permissions, or remove the photo; then go on."
        ) from None


def locate(source: str, data_dir: Path | None) -> str:
    """The name of a data set together with where TFDS keeps it, as `load` takes it.

    Raises:
      UsageError: `data_dir` is given and `source` is no TFDS data set.
    """
    if data_dir is None:
        return source
    if not source.startswith(tfds_source.PREFIX):
        raise UsageError(f"--data-dir: expected --data tfds:NAME beside it, found --data {source}. Leave --data-dir out.")
    return tfds_source.locate(source, data_dir)


def load(source: str) -> Dataset:
    """Loads a data set by its name: `demo`, `tfds:NAME` (see `tfds_source`), or the path of a folder.

    Raises:
      CatdogError: the data set is missing or empty, or does not hold two classes, each in every split.
      UsageError: the extra `tfds` is needed and not installed.
    """
    if source.startswith(tfds_source.PREFIX):
        return tfds_source.load(source)
    if source == "demo":
        return load_folder(demo.draw_once(), source)
    return load_folder(Path(source), source)


def load_folder(root: Path, source: str | None = None) -> Dataset:
    """Loads ROOT/{train,validation,test}/CLASS/*, or ROOT/CLASS/* split by content.

    Without split folders a photo's split follows from the hash of its bytes (80/10/10), so identical photos never lie on two
    sides and the split stays when photos are added.

    Args:
      root: the folder.
      source: the name to remember it by; by default the path.

    Raises:
      CatdogError: see `load`.
    """
    source = source or str(root)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise CatdogError(f"{root}: expected a folder of photos, found {kind}. Check --data.")
    split_folders = {
        folder: _SPLIT_NAMES[folder.name.lower()]
        for folder in _folders(root)
        if folder.name.lower() in _SPLIT_NAMES and _folders(folder)
    }
    class_folders = [c for folder in split_folders or [root] for c in _folders(folder)]
    classes = _two_classes(root, {folder.name for folder in class_folders})
    found = _walk_splits(split_folders) if split_folders else _walk_classes(root)
    records = [_record(root, photo, split, classes.index(class_name)) for photo, split, class_name in found]
    advice = f"Add some ({', '.join(images.SUFFIXES)}) or check the folder names."
    return collect(source, str(root), classes, records, advice)


def _record(root: Path, photo: Path, split: str, label: int) -> Record:
    name = photo.relative_to(root).as_posix()
    size = photo.stat().st_size if photo.exists() else 0
    return Record(name, label, split, size, functools.partial(_read_below, root, name))


def _read_below(root: Path, name: str) -> bytes:
    """A path of its own for each of many photos would take more memory than all the rest of their records."""
    return images.read_photo(root / name)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def photos_below(folder: Path) -> list[Path]:
    """The photos of a folder and its subfolders, by suffix (`images.SUFFIXES`), sorted; what is hidden is left out."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder, followlinks=False):
        folders[:] = (name for name in folders if not name.startswith("."))
        found += (Path(parent, name) for name in files if not name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() in images.SUFFIXES)


def _refuse_folder(error: OSError) -> None:
    raise CatdogError(f"{error.filename}: expected a folder that can be read, found: {error.strerror}. Mend its permissions.")


def _walk_splits(split_folders: dict[Path, str]) -> Iterator[tuple[Path, str, str]]:
    for folder, split in split_folders.items():
        for class_folder in _folders(folder):
            for photo in photos_below(class_folder):
                yield photo, split, class_folder.name


def _walk_classes(root: Path) -> Iterator[tuple[Path, str, str]]:
    for class_folder in _folders(root):
        for photo in photos_below(class_folder):
            yield photo, _split_by_content(photo), class_folder.name


def _split_by_content(photo: Path) -> str:
    try:
        digest = hashlib.sha256(images.read_photo(photo)).digest()
    except images.UnreadableError as error:  # another time it would lie in another split
        raise CatdogError(f"{photo}: {error}. Mend the disk or the permissions, or remove it.") from None
    except images.ImageError:  # listed with its reason when it is decoded; until then any split will do
        return "train"
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < _TRAIN_SHARE else "validation" if share < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


def _two_classes(root: Path, names: set[str]) -> tuple[str, str]:
    if len(names) != 2:
        found = ", ".join(sorted(names)) or "none"
        raise CatdogError(f"{root}: expected folders of two classes, found {len(names)}: {found}. Keep two.")
    first, second = sorted(names)
    return first, second
