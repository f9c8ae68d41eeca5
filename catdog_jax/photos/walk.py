"""Which files of a folder are photos, and what is left out and why."""

import os
import re
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import LeftOut

# Of operating systems
_CLUTTER = re.compile(r"\._.*|_?\.?ds_store|thumbs\.db|desktop\.ini|icon\r|__macosx|@eadir", re.IGNORECASE)
_TOLD = 8  # kinds of what is left out that are told on one line


class Walk:
    """Finds the photos below folders, and counts what is not taken by kind, in `left_out`."""

    def __init__(self, root: Path | None = None):
        """Names what is left out by its path below `root`, or by the path that it was found at."""
        self.left_out: dict[str, LeftOut] = {}
        self._root = root
        self._walked: set[tuple[int, int]] = set()

    def photos(self, folder: Path) -> list[Path]:
        """The photos of a folder and its subfolders, see `decoding.is_taken`, sorted.

        Links to folders are followed last; each folder is walked once, so that a loop ends.

        Raises:
          CatdogError: a folder cannot be read.
        """
        walked: set[tuple[int, int]] = set()
        photos = self._below(folder, walked, ())
        self._walked |= walked
        return photos

    def leave_others(self, folder: Path, taken: Collection[Path]) -> None:
        """Counts the photos, and whatever else, that are below `folder` and in none of the folders that were taken."""
        for path in self._below(folder, set(self._walked), taken):
            self._leave(path, "outside the class folders")

    def _below(self, folder: Path, walked: set[tuple[int, int]], without: Collection[Path]) -> list[Path]:
        photos: list[Path] = []
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
                elif decoding.is_taken(path):
                    photos.append(path)
                else:
                    self._leave(path, path.suffix.lower() or "without a suffix")
        return sorted(photos)

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
    kinds = sorted(left_out, key=lambda kind: (-kind.pictures, -kind.count, kind.kind))
    if not kinds:
        return ""
    counts = [
        f"{kind.count:,} {kind.kind}{'s' * (kind.kind == 'hidden folder' and kind.count > 1)}" for kind in kinds[:_TOLD]
    ]
    counts += [f"{sum(kind.count for kind in kinds[_TOLD:]):,} others"] if kinds[_TOLD:] else []
    pictures = sum(kind.pictures for kind in kinds)
    are = f"; {pictures:,} of them look like pictures, for example {kinds[0].example!r}" if pictures else ""
    heic = sum(kind.count for kind in kinds if decoding.SUFFIXES.get(kind.kind) == decoding.HEIC)
    extra = f"; for the {heic:,} HEIC, run pip install 'catdog-jax[heic]'" if heic else ""
    return f"left out: {', '.join(counts)}{are}{extra}"
