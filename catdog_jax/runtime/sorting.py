"""Photos into folders by what the model says of them: copies or links. Nothing is moved, written over or deleted."""

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.runtime.decision import Verdict
from catdog_jax.runtime.inputs import Given

UNSURE, NEITHER = "unsure", "neither"
_STEM_BYTES = 200  # of a photo's name that is kept; names end at 255 bytes on most systems
_GONE = "expected a file, found nothing: it has gone since it was predicted"
_UNSURE_KEY, _NEITHER_KEY = "\0unsure", "\0neither"
_REFUSED = ("", ".", "..")


class Sorter:
    """A folder with a folder for each class, one for what the model is unsure of and one for what is of neither class.

    A photo keeps its name; a second one of this name gets a number. What an earlier run put there is
    recognised and not put there twice.
    """

    def __init__(self, folder: Path, how: str, classes: tuple[str, str]):
        """Nothing is created before the first photo. `how` is copy, hardlink or symlink."""
        self._folder = folder
        self._put = _WAYS[how]
        self._how = how
        self._names = _folder_names(classes)
        self._taken: set[str] = set()

    def put(self, photo: Given, verdict: Verdict) -> Path:
        """Puts a photo where it belongs, and returns the path there.

        Raises:
          ImageError: the photo is not there any more.
          CatdogError: the copy or the link cannot be made.
        """
        if not isinstance(photo, bytes) and not os.path.isfile(photo):
            raise decoding.ImageError(_GONE)
        folder = self._folder / self._names[_kind(verdict)]
        put = _bytes if isinstance(photo, bytes) else self._put
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in _candidates(photo):
                target = folder / name
                key = str(target).casefold()
                if key in self._taken:  # by another photo of this run
                    continue
                if put(photo, target):
                    self._taken.add(key)
                    return target
        except OSError as error:
            raise self._failed(photo, folder, error) from None
        raise AssertionError("numbers do not end")

    def _failed(self, photo: Given, folder: Path, error: OSError) -> CatdogError:
        if not isinstance(photo, bytes) and not os.path.isfile(photo):
            return decoding.ImageError(_GONE)
        advice = "Free space, or choose another --sort."
        if self._how != "copy" and error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EACCES, errno.EMLINK):
            advice = "Use --sort-with copy, or a folder on the same disk."
        return CatdogError(
            f"{folder}: a {self._how} of {photo_name(photo)!r} cannot be made: {error.strerror}. {advice}"
        )


def _kind(verdict: Verdict) -> str:
    """The key of the folder's name."""
    return _NEITHER_KEY if verdict.neither else _UNSURE_KEY if verdict.sure is False else verdict.name


def photo_name(photo: Given) -> str:
    """The name of a photo's file; of one that came through stdin, one with the suffix of its format."""
    if not isinstance(photo, bytes):
        return os.path.basename(photo)
    form = decoding.format_of(photo[:16])
    return "stdin" + (decoding.FORMATS[form].suffixes[0] if form else "")


def _candidates(photo: Given) -> Iterator[str]:
    stem, suffix = os.path.splitext(photo_name(photo))
    encoded = os.fsencode(stem)
    if len(encoded) + len(os.fsencode(suffix)) > 255 - 8:
        stem = encoded[:_STEM_BYTES].decode("utf-8", "ignore")
    yield from _numbered(stem, suffix)


def _numbered(stem: str, suffix: str = "") -> Iterator[str]:
    yield f"{stem}{suffix}"
    yield from (f"{stem}-{i}{suffix}" for i in itertools.count(2))


def _folder_names(classes: tuple[str, str]) -> dict[str, str]:
    """The folder's name of each class, and, of keys that no class can have, of what is unsure and of neither: four apart."""
    names: dict[str, str] = {}
    of_classes = ((name, name.replace("/", "_").replace("\\", "_")) for name in classes)
    for key, wanted in (*of_classes, (_UNSURE_KEY, UNSURE), (_NEITHER_KEY, NEITHER)):
        tried = _numbered("_" if wanted in _REFUSED else wanted)
        known = {name.casefold() for name in names.values()}
        names[key] = next(name for name in tried if name.casefold() not in known)
    return names


# Each makes a file from a photo, and says whether it is there: now, or from before. False where the
# name is another file's.


def _symlink(photo: Given, target: Path) -> bool:
    source = os.path.abspath(_path(photo))
    try:
        os.symlink(source, target)
    except FileExistsError:
        return os.path.islink(target) and os.readlink(target) == source
    return True


def _hardlink(photo: Given, target: Path) -> bool:
    source = os.path.realpath(_path(photo))
    try:
        os.link(source, target)
    except FileExistsError:
        return not os.path.islink(target) and os.path.samefile(source, target)
    return True


def _copy(photo: Given, target: Path) -> bool:
    source = _path(photo)
    if os.path.lexists(target):
        return _same(target, os.path.getsize(source), source.read_bytes)
    return _created(target, lambda temporary: shutil.copy2(source, temporary))


def _bytes(photo: Given, target: Path) -> bool:
    assert isinstance(photo, bytes)
    if os.path.lexists(target):
        return _same(target, len(photo), lambda: photo)
    return _created(target, lambda temporary: temporary.write_bytes(photo))


_WAYS: dict[str, Callable[[Given, Path], bool]] = {"copy": _copy, "hardlink": _hardlink, "symlink": _symlink}


def _path(photo: Given) -> Path:
    assert not isinstance(photo, bytes)
    return Path(photo)


def _same(target: Path, size: int, content: Callable[[], bytes]) -> bool:
    """Whether a file is there with this content: a copy of an earlier run."""
    return (
        not target.is_symlink()
        and target.is_file()
        and target.stat().st_size == size
        and (target.read_bytes() == content())
    )


def _created(target: Path, write: Callable[[Path], object]) -> bool:
    """Writes a file beside its place, whole, and gives it its name; False where somebody else took that meanwhile."""
    temporary = atomic.beside(target.with_name("photo"), ".tmp")
    try:
        write(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError:  # a disk without hard links: the name is taken by an empty file, which is ours to replace
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return False
            os.replace(temporary, target)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
