"""Durable files: a reader sees either the old file or the whole new one, whatever is killed in between."""

import contextlib
import glob
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from catdog_jax.errors import CatdogError


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

    The bytes go to a hidden temporary file in the same directory, are flushed and fsynced, and the file is renamed over
    `path`; the directory entry is synced last. After an error nothing is left behind and an older `path` is untouched.

    Raises:
      CatdogError: the file cannot be written (no space, no permission), with the path and the reason.
    """
    if not path.name:
        raise CatdogError(f"{path}: expected the name of a file, found a directory. Name a file in it.")
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_temporaries_of_the_dead(path)
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


def _remove_temporaries_of_the_dead(path: Path) -> None:
    """Removes what writers of `path` on this machine left when they were killed."""
    start = f".{path.name}.{socket.gethostname()}."
    for other in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        process = other.name.removeprefix(start).removesuffix(".tmp")
        if process.isdigit() and not _is_alive(int(process)):
            other.unlink(missing_ok=True)


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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically; see `atomic_writer`."""
    with atomic_writer(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON.

    Raises:
      ValueError: `value` contains NaN or an infinity.
    """
    write_bytes(path, _encoded(value))


def _encoded(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object. `what` names the kind of file in the errors, for example "feature manifest".

    Raises:
      CatdogError: the file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise CatdogError(f"{path}: expected a {what}, found no file. Check the path, or run the stage before.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CatdogError(f"{path}: expected a {what} in JSON, found: {error}. Run the stage that writes it again.") from None
    if not isinstance(value, dict):
        raise CatdogError(f"{path}: expected a {what} (a JSON object), found a {type(value).__name__}. Run its stage again.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object with the SHA-256 of itself as its last field, atomically; `read_sealed_json` checks it."""
    write_json(path, _sealed(value))


def read_sealed_json(path: Path, what: str) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote, without the seal.

    Raises:
      CatdogError: as `read_json`, or a byte of the file has changed.
    """
    value = read_json(path, what)
    value.pop("sha256", None)
    if path.read_bytes() != _encoded(_sealed(value)):
        raise CatdogError(f"{path}: expected a {what} with the sha256 of its contents, found another: it is altered.")
    return value


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"sha256": sha256_of_json(value)}


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of `value` in canonical JSON (sorted keys, no spaces)."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's contents in hexadecimal, in bounded memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
