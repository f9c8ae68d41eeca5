"""Durable files: a reader sees either the old file or the whole new one, whatever is killed in between."""

import contextlib
import errno
import glob
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Bucket, Location


def cache_directory() -> Path:
    """Where conversions and drawings are kept between runs: $CATDOG_CACHE, else ~/.cache/catdog_jax."""
    if named := os.environ.get("CATDOG_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "catdog_jax"
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / "catdog_jax"


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing that takes the name `path` only when the block ends without an error.

    The bytes go to a hidden temporary file in the same directory, are flushed and fsynced, and the
    file is renamed over `path`; the directory entry is synced last. After an error nothing is left
    behind and an older `path` is untouched.

    Raises:
      CatdogError: the file cannot be written (no space, no permission), with the path and the
        reason.
    """
    if not path.name:
        raise CatdogError(f"{path}: expected the name of a file, found a directory. Name a file in it.")
    temporary = beside(path, ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in left_by_the_dead(path):
            left.unlink(missing_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise CatdogError(f"{path}: cannot be written: {reason}. Free space or choose another --out.") from error


def beside(path: Path, end: str) -> Path:
    """A hidden name that tells which process of which machine writes `path`."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{end}")


def left_by_the_dead(path: Path) -> list[Path]:
    """What writers of `path` on this machine left when they were killed."""
    start = f".{path.name}.{socket.gethostname()}."
    return [
        other
        for other in path.parent.glob(f"{glob.escape(start)}*")
        if (process := other.stem.removeprefix(start)).isdigit() and not _is_alive(int(process))
    ]


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # where a signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sync_directory(directory: Path) -> None:
    """Makes renames within `directory` survive a power cut, where the platform lets directories be opened."""
    with contextlib.suppress(OSError):  # some network file systems cannot, after the rename has succeeded
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_regular(path: Path, most: int) -> bytes | None:
    """The bytes of a regular file, or None where it has more than `most`. Never waits for the other end of a pipe.

    Raises:
      OSError: the system's error, or there is something else than a regular file.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = file.read(most + 1) if status.st_size <= most else None
    return None if data is None or len(data) > most else data


def write_bytes(path: Location, data: bytes) -> None:
    """Writes `data` to `path` atomically: a file as `atomic_writer` does, an object in one PUT."""
    if isinstance(path, Bucket):
        path.write_bytes(data)
        return
    with atomic_writer(path) as file:
        file.write(data)


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's contents in hexadecimal, in bounded memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
