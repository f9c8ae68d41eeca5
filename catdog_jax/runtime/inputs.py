"""Which photos are meant: files, folders, lists of paths, one photo on stdin. Nothing is fetched; what is left out is said."""

import codecs
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from catdog_jax.console import say
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding, folders

STDIN = "-"
Given = str | Path | bytes  # a photo: its path, or its bytes where it came through stdin
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # a single letter is a Windows drive
_DRIVES = Path("/mnt")  # where the Windows Subsystem for Linux has them
_BOMS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, ""))


def named(photo: Given) -> str:
    """What a photo is called in results: its path, "-" for the one on stdin."""
    return STDIN if isinstance(photo, bytes) else str(photo)


def digest(photo: Any) -> str | None:
    """The SHA-256 of the bytes of a photo's file; None of pixels, which have none, and where it cannot be read."""
    if isinstance(photo, bytes | bytearray | memoryview):
        return atomic.sha256(bytes(photo))
    try:
        return atomic.sha256(decoding.read_photo(Path(photo)))
    except (TypeError, decoding.ImageError):
        return None


def url(path: str | os.PathLike[str]) -> str | None:
    """The URL that a path is, where it is one and no such file is there; `Path` has cut a slash off it."""
    text = os.fspath(path)
    there = _URL.match(text) and not os.path.lexists(text)
    return _URL.sub(r"\1://", text, count=1) if there else None


def find_photos(
    paths: Iterable[str | Path],
    listed: str | None = None,
    null: bool = False,
    without: Sequence[Path] = (),
) -> list[Given]:
    """The photos that are meant, in order; what is left out is told.

    Args:
      paths: files, taken whatever their names; folders, replaced by the photos below them; "-" for
        a photo on stdin, which is read.
      listed: a file of further paths, a line each, or "-" for stdin.
      null: whether those end with NUL characters instead.
      without: folders whose photos are not taken from folders above them: they are results.

    Raises:
      CatdogError: that makes no photo at all, or the list or stdin cannot be read.
      UsageError: a path is a URL, stdin is named twice, or the list is no list.
    """
    texts = [os.fspath(path) for path in paths]
    if (texts.count(STDIN) + (listed == STDIN)) > 1:
        raise UsageError("-: expected to read standard input once, found it named twice. Name files.")
    if null and listed is None:
        raise UsageError("--null: expected a list of paths, found none. Name it: --list FILE, or --list - for stdin.")
    for text in texts:
        if found := url(text):
            raise UsageError(
                f"{found}: expected a file or a folder, found a URL; nothing is fetched. Download it, or pipe it: "
                f"`curl URL | catdog predict -`."
            )
    if not texts and listed is None:
        raise UsageError("paths: expected photos or folders, found none. Name some; see `catdog predict --help`.")
    photos: list[Given] = []
    walk, results = folders.Walk(), 0
    own = [folder.resolve() for folder in without]
    # A line of a list is a path always: "-" is a file there
    for text, is_list in [*((text, False) for text in texts), *((text, True) for text in read_list(listed, null))]:
        if text == STDIN and not is_list:
            photos.append(_stdin(decoding.MAX_BYTES))
            continue
        path = meant(text)
        if not os.path.isdir(path):
            photos.append(text if url(text) else path)
            continue
        found_here = walk.photos(path)
        kept = outside(found_here, own)
        results += len(found_here) - len(kept)
        photos += kept
    others = folders.told(walk.left_out.values())
    others = "; ".join(filter(None, (others, f"left out: {results:,} results of this command" if results else "")))
    if not photos:
        where = ", ".join([*texts, *([f"--list {listed}"] if listed else [])])
        found = f"none ({others})" if others else "none"
        raise CatdogError(f"{where}: expected photos ({', '.join(decoding.SUFFIXES)}), found {found}. Check the path.")
    if others:
        say(others)
    return photos


def outside(photos: Iterable[Path], folders: Sequence[Path]) -> list[Path]:
    """The photos that lie in none of the folders, which are resolved."""
    if not folders:
        return list(photos)
    inside: dict[Path, bool] = {}
    kept = []
    for photo in photos:
        if photo.parent not in inside:
            parent = photo.parent.resolve()
            inside[photo.parent] = any(parent.is_relative_to(folder) for folder in folders)
        if not inside[photo.parent]:
            kept.append(photo)
    return kept


def meant(text: str) -> Path:
    r"""The path that a text means on this machine.

    A path that is not there, and was written on Windows (`photos\cat.jpg`, `C:\photos\cat.jpg`, with
    the quotes of "Copy as path"), is looked for as Linux has it: `photos/cat.jpg`,
    `/mnt/c/photos/cat.jpg`.
    """
    path = Path(text)
    if os.path.lexists(text):
        return path
    bare = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
    tried = [Path(bare)]
    if os.name == "posix" and "\\" in bare:
        windows = PureWindowsPath(bare)
        drive, below = windows.drive, windows.as_posix()
        tried.append(_DRIVES / drive[0].lower() / below[3:] if re.fullmatch("[A-Za-z]:", drive) else Path(below))
    return next((other for other in tried if os.path.lexists(other)), path)


def read_list(listed: str | None, null: bool) -> list[str]:
    """The paths of a list, see `find_photos`; empty lines count for nothing.

    Raises:
      CatdogError: it cannot be read.
      UsageError: it holds NUL characters and `null` is not given, or is a photo.
    """
    if listed is None:
        return []
    try:
        data = _stdin(None) if listed == STDIN else Path(listed).read_bytes()
    except OSError as error:
        raise CatdogError(
            f"--list {listed}: expected a list of paths, found: {error.strerror or error}. Check it."
        ) from None
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                data = os.fsencode(data.decode(encoding)) if encoding else data[len(mark) :]
            except ValueError as error:
                raise CatdogError(
                    f"--list {listed}: expected a list of paths, found damaged UTF-16 ({error}). Write it again."
                ) from None
            break
    if decoding.format_of(data[:16]):
        raise UsageError(f"--list {listed}: expected a list of paths, found a photo. Name it without --list.")
    if null:
        return [os.fsdecode(line) for line in data.split(b"\0") if line]
    if b"\0" in data:
        raise UsageError(f"--list {listed}: expected a path a line, found NUL characters. Add --null.")
    lines = (os.fsdecode(line) for line in data.split(b"\n"))
    return [line for line in map(_without_return, lines) if line.strip()]


def _without_return(line: str) -> str:
    """A line without the carriage return that Windows ends it with."""
    return line[:-1] if line.endswith("\r") and not os.path.lexists(line) else line


def _stdin(most: int | None) -> bytes:
    """All of standard input.

    Raises:
      CatdogError: it is closed, cannot be read, or has more bytes than a photo.
    """
    try:
        if sys.stdin is None:
            raise OSError("it is closed")
        data = sys.stdin.buffer.read() if most is None else sys.stdin.buffer.read(most + 1)
    except (OSError, ValueError) as error:
        raise CatdogError(f"standard input: cannot be read: {error}. Name a file.") from None
    if most is not None and len(data) > most:
        raise CatdogError(f"standard input: expected at most {most:,} bytes, found more. Name a file.")
    return data
