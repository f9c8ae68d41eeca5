"""Durable files: a reader sees either the old file or the whole new one, whatever is killed in between."""

import contextlib
import errno
import glob
import hashlib
import json
import operator
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from catdog_jax.errors import CatdogError
from catdog_jax.files.buckets import Bucket, Place

SEAL = "catdog-seal:"
CONTENTS = ".catdog.json"  # the list of a written folder's files and their hashes
UNSEALED = SEAL + "0" * 64  # put it where a file keeps texts about itself; `seal` fills it in
_MARK = SEAL.encode()
_LEFT_OF_A_SEAL = re.compile(rb"catdog-.{5}[0-9a-f]{9}|seal:[0-9a-f]{9}", re.DOTALL)  # after a bit of it was flipped


class UnsealedError(CatdogError):
    """A file bears no seal: an older version wrote it, or another program, or the seal was taken out."""


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
    temporary = _beside(path, ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _left_by_the_dead(path):
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


@contextlib.contextmanager
def folder_writer(path: Path, option: str) -> Iterator[Path]:
    """Makes a folder that takes the name `path` only when the block ends without an error.

    The files go into a hidden folder beside it; `CONTENTS` with each file's hash is written last and makes the folder one
    that a later run may replace. After an error nothing is left behind and an older `path` is untouched. Of a process that is
    killed between the two renames, the older folder stays beside `path` under a hidden name; the next run puts it back first.

    Args:
      path: the folder to write.
      option: what the user named it with, for the errors.

    Yields:
      The folder to fill.

    Raises:
      CatdogError: `path` holds files that are not those of an earlier run, or the folder cannot be written.
    """
    path = path.absolute()
    temporary, older = _beside(path, ".tmp"), _beside(path, ".old")
    try:
        for left in _left_by_the_dead(path):
            _put_back_or_remove(left, path)
        check_replaceable(path, option)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            write_sealed_json(temporary / CONTENTS, {"files": _hashes(temporary)})
            if path.exists():
                os.rename(path, older)
            os.rename(temporary, path)
        except BaseException:
            if older.exists():
                _put_back_or_remove(older, path)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)
        sync_directory(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise CatdogError(f"{path}: cannot be written: {reason}. Free space or choose another {option}.") from error


def check_replaceable(path: Path, option: str) -> None:
    """Refuses a folder that holds anything but what `folder_writer` put there; a missing or an empty one may be written.

    Raises:
      CatdogError: it is no folder, or there is a file that an earlier run did not write or that has changed since.
    """
    advice = f"Nothing was written; name an empty or a new folder with {option}."
    try:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise CatdogError(f"{path}: expected a folder to write, found something else. {advice}")
        found = _hashes(path) if path.exists() else {}
        known = listed(path) if (path / CONTENTS).exists() else {}
    except (OSError, KeyError) as error:
        raise CatdogError(f"{path}: expected a folder to write, found: {error}. {advice}") from None
    for name, digest in found.items():
        if known.get(name) != digest:
            raise CatdogError(
                f"{path}: expected an empty folder or one of an earlier run, found {name} of other origin. {advice}"
            )


def listed(folder: Path) -> dict[str, str]:
    """The files that `folder_writer` put into a folder, by their names below it, and the SHA-256 of each.

    Raises:
      CatdogError: the list is missing or altered.
    """
    return read_sealed_json(folder / CONTENTS, "list of a folder's files")["files"]


def below(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, but for the list of them."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_symlink() or not file.is_dir())
    return [file for file in files if file != folder / CONTENTS]


def check_file(path: Path, digest: str) -> int:
    """Checks a file whose SHA-256 was written down, and returns its length in bytes.

    Raises:
      CatdogError: it cannot be read, or has other contents.
    """
    try:
        found, size = sha256_of_file(path), path.stat().st_size
    except OSError as error:
        raise CatdogError(f"{path}: expected a file, found: {error.strerror or error}. Run its stage again.") from None
    if found != digest:
        raise CatdogError(f"{path}: expected sha256 {digest[:12]}…, found {found[:12]}…: it is altered. Run its stage again.")
    return size


def _hashes(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): sha256_of_file(file) if file.is_file() else "no file" for file in below(folder)
    }


def _put_back_or_remove(left: Path, path: Path) -> None:
    if left.suffix == ".old" and not path.exists():
        os.rename(left, path)
    else:
        shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path, end: str) -> Path:
    """A hidden name that tells which process of which machine writes `path`."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{end}")


def _left_by_the_dead(path: Path) -> list[Path]:
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


def write_bytes(path: Place, data: bytes) -> None:
    """Writes `data` to `path` atomically: a file as `atomic_writer` does, an object in one PUT."""
    if isinstance(path, Bucket):
        path.write_bytes(data)
        return
    with atomic_writer(path) as file:
        file.write(data)


def write_json(path: Place, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON.

    Raises:
      ValueError: `value` contains NaN or an infinity.
    """
    write_bytes(path, _encoded(value))


def _encoded(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Place, what: str) -> dict[str, Any]:
    """Reads a JSON object. `what` names the kind of file in the errors, for example "feature manifest".

    Raises:
      CatdogError: the file is missing, is not JSON, or is not an object.
    """
    return _read_json(path, what)[1]


def _read_json(path: Place, what: str) -> tuple[bytes, dict[str, Any]]:
    try:
        data = path.read_bytes()
        value = json.loads(data, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise CatdogError(f"{path}: expected a {what}, found no file. Check the path, or run the stage before.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CatdogError(f"{path}: expected a {what} in JSON, found: {error}. Run the stage that writes it again.") from None
    if not isinstance(value, dict):
        raise CatdogError(f"{path}: expected a {what} (a JSON object), found a {type(value).__name__}. Run its stage again.")
    return data, value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def write_sealed_json(path: Place, value: dict[str, Any]) -> None:
    """Writes a JSON object with the SHA-256 of itself as its last field, atomically; `read_sealed_json` checks it."""
    write_json(path, _sealed(value))


def read_sealed_json(path: Place, what: str, older: bool = False) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote, without the seal.

    Args:
      path: the file.
      what: names the kind of file in the errors.
      older: whether a file without a seal is taken too; versions before sealed fewer kinds.

    Raises:
      UnsealedError: there is no seal, and one is asked for.
      CatdogError: as `read_json`, or a byte of the file has changed.
    """
    data, value = _read_json(path, what)
    if not _bears_seal(value):
        if older:
            return value
        raise UnsealedError(f"{path}: expected a {what} with the sha256 of its contents, found none: it is altered, or older.")
    value.pop("sha256", None)
    if data != _encoded(_sealed(value)):
        raise CatdogError(f"{path}: expected a {what} with the sha256 of its contents, found another: it is altered.")
    return value


def is_sealed(path: Place) -> bool:
    """Whether a JSON file bears a seal, be it the right one or not."""
    return _bears_seal(_read_json(path, "JSON file")[1])


def _bears_seal(value: dict[str, Any]) -> bool:
    last = next(reversed(value), "")  # where a bit of its name was flipped, a seal is spoiled, not missing
    return "sha256" in value or (len(last) == 6 and sum(map(operator.ne, last, "sha256")) == 1)


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"sha256": sha256_of_json(value)}


def seal(data: bytes) -> bytes:
    """A file's content in which `UNSEALED` occurs once, with the SHA-256 of it all in the place of the zeros."""
    return data.replace(UNSEALED.encode(), _MARK + sha256(data).encode())


def check_seal(path: Place) -> int:
    """Checks a file that `seal` has sealed, and returns its length in bytes.

    Raises:
      UnsealedError: it has no seal, nor what is left of one.
      CatdogError: it cannot be read, or a bit of it has changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatdogError(f"{path}: expected a file, found: {error.strerror or error}. Check the path.") from None
    before, mark, rest = data.partition(_MARK)
    recorded, after = rest[:64], rest[64:]
    if not mark or _MARK in after:
        kind = CatdogError if mark or _LEFT_OF_A_SEAL.search(data) else UnsealedError
        found = "more" if mark else "none"
        raise kind(f"{path}: expected one seal, found {found}: it is altered, or of an older version.")
    if recorded != sha256(before + UNSEALED.encode() + after).encode():
        raise CatdogError(f"{path}: expected {len(data):,} bytes with the sha256 of its seal, found others: it is altered.")
    return len(data)


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
