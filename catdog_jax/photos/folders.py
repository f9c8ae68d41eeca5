"""Folders of photos: what is taken of them, what is left out and why, and which of them are splits and which classes.

ROOT/SPLIT/CLASS/* or ROOT/CLASS/*. Splits are known by their names, however they are spelt; an
archive's habit of a folder in a folder of its own name is seen through. Folders that look like
splits and are not called so are refused: trained against each other they would make a model that
tells nothing.
"""

import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import SPLITS, LeftOut

_SPLIT_NAMES = {  # in lower case, without separators and without "set" or "data" at the end
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}
# Of systems
_CLUTTER = re.compile(r"\._.*|_?\.?ds_store|thumbs\.db|desktop\.ini|icon\r|__macosx|@eadir", re.IGNORECASE)
_TOLD = 8  # kinds of what is left out that are told on one line


class Walk:
    """Walks folders for their photos, and counts what is not taken.

    Attributes:
      left_out: so far, by kind.
    """

    def __init__(self, root: Path | None = None):
        """Names what is left out by its path below `root`, or by the path that it was found at."""
        self.left_out: dict[str, LeftOut] = {}
        self._root = root
        self._walked: set[tuple[int, int]] = set()

    def photos(self, folder: Path) -> list[Path]:
        """The photos of a folder and its subfolders, by suffix (`decoding.SUFFIXES`), sorted.

        Links to folders are followed, after what is no link; each folder is walked once, so that a
        loop ends.

        Raises:
          CatdogError: a folder cannot be read.
        """
        walked: set[tuple[int, int]] = set()
        found = self._below(folder, walked, ())
        self._walked |= walked
        return found

    def leave_others(self, folder: Path, taken: Collection[Path]) -> None:
        """Counts the photos, and whatever else, that are below `folder` and in none of the folders that were taken."""
        for path in self._below(folder, set(self._walked), taken):
            self._leave(path, "outside the class folders")

    def _below(self, folder: Path, walked: set[tuple[int, int]], without: Collection[Path]) -> list[Path]:
        found: list[Path] = []
        pending = deque([folder])
        while pending:
            parent = pending.popleft()
            status = _status(parent)
            if status in walked or parent in without:
                continue
            walked.add(status)
            for entry in _entries(parent):
                path = parent / entry.name
                if _is_folder(entry):
                    if entry.name.startswith("."):
                        self._leave(path, "hidden folder")
                    elif entry.is_symlink():
                        pending.append(path)
                    else:
                        pending.appendleft(path)
                elif entry.name.startswith("."):
                    self._leave(path, "hidden")
                elif path.suffix.lower() in decoding.SUFFIXES:
                    found.append(path)
                else:
                    self._leave(path, path.suffix.lower() or "without a suffix")
        return sorted(found)

    def _leave(self, path: Path, kind: str) -> None:
        name = str(path) if self._root is None else path.relative_to(self._root).as_posix()
        picture = decoding.is_picture(path)
        before = self.left_out.get(kind, LeftOut(kind, 0, 0, name))
        example = name if picture and not before.pictures else before.example
        self.left_out[kind] = LeftOut(kind, before.count + 1, before.pictures + picture, example)


def _status(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _unreadable(folder, error) from None
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without the clutter of operating systems."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not _CLUTTER.fullmatch(entry.name)), key=lambda entry: entry.name
            )
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: OSError) -> CatdogError:
    return CatdogError(f"{folder}: expected a folder that can be read, found: {error.strerror}. Check its permissions.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, and links to such, sorted; without hidden ones."""
    return [folder / entry.name for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith(".")]


def told(left_out: Iterable[LeftOut]) -> str:
    """What is left out, on one line; empty where there is nothing."""
    kinds = sorted(left_out, key=lambda one: (-one.pictures, -one.count, one.kind))
    if not kinds:
        return ""
    counts = [
        f"{one.count:,} {one.kind}{'s' * (one.kind == 'hidden folder' and one.count > 1)}" for one in kinds[:_TOLD]
    ]
    counts += [f"{sum(one.count for one in kinds[_TOLD:]):,} others"] if kinds[_TOLD:] else []
    pictures = sum(one.pictures for one in kinds)
    are = f"; {pictures:,} of them look like pictures, for example {kinds[0].example!r}" if pictures else ""
    return f"left out: {', '.join(counts)}{are}"


class Layout(NamedTuple):
    """What the folders of a data set mean.

    Attributes:
      root: the data set's folder, from which the others are named.
      places: the folders that hold the class folders, and the split of each; None where no folder
        says.
    """

    root: Path
    places: dict[Path, str | None]

    @property
    def has_splits(self) -> bool:
        """Whether there are folders of splits."""
        return None not in self.places.values()

    def described(self) -> str:
        """Which folder is which, to be told."""
        named = [(place.relative_to(self.root).as_posix(), split) for place, split in self.places.items()]
        named.sort(key=lambda one: SPLITS.index(one[1]) if one[1] else 0)
        return ", ".join(f"{split or 'class folders'} in {name!r}" for name, split in named)

    def notes(self) -> tuple[str, ...]:
        """How the folders were understood, where their names alone do not say it."""
        plain = all(place == self.root / (split or "") for place, split in self.places.items())
        return () if plain else (f"found {self.described()}",)


def read_layout(root: Path) -> Layout:
    """Finds the splits of a data set, or that it has none.

    Raises:
      CatdogError: the folders look like splits under names that are not known, or like classes that
        each hold splits.
    """
    inner = _unwrapped(root)
    named = {folder: split_named(folder.name) for folder in subfolders(inner)}
    splits = {_unwrapped(folder): split for folder, split in named.items() if split and subfolders(folder)}
    if not splits:
        _refuse_unnamed_splits(inner)
    return Layout(root, {**splits} or {inner: None})


def split_named(name: str) -> str | None:
    """The split that a folder of this name is: "Training_Set" -> "train"; None for other names."""
    word = re.sub(r"[\W_]", "", name.lower())
    return _SPLIT_NAMES.get(re.sub(r"(data)?(set)?$", "", word))


def _unwrapped(folder: Path) -> Path:
    """The folder itself, or the only one in it where that has the same name or holds splits (dataset/dataset/training_set)."""
    match subfolders(folder):
        case [only] if subfolders(only):
            inner = _unwrapped(only)
            holds_splits = any(split_named(one.name) and subfolders(one) for one in subfolders(inner))
            if folder.resolve().name.lower() == only.name.lower() or (holds_splits and not split_named(only.name)):
                return inner
    return folder


def _refuse_unnamed_splits(root: Path) -> None:
    holds = {folder.name: frozenset(one.name for one in subfolders(_unwrapped(folder))) for folder in subfolders(root)}
    for shared, count in Counter(holds.values()).items():
        spelt = all(map(split_named, shared))
        if count < 2 or len(shared) < 2 or not (len(shared) == 2 or spelt):
            continue
        outer, held = (
            " and ".join(map(repr, sorted(names))) for names in ((n for n in holds if holds[n] == shared), shared)
        )
        found = f"{root}: expected SPLIT/CLASS/* or CLASS/*, found that {outer} each hold {held}"
        if spelt:
            raise CatdogError(
                f"{found}: splits inside classes. Turn it round: train/CLASS, validation/CLASS, test/CLASS."
            )
        raise CatdogError(
            f"{found}, as splits do. Rename them to train, validation and test; or, if they are the classes, move their photos "
            f"out of the subfolders."
        )
