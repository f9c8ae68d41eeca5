"""Whole folders, each the old one or the new one, with a list of what was written into them."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.files.atomic import beside, left_by_the_dead, sha256_of_file, sync_directory
from catdog_jax.files.sealed import read_sealed_json, write_sealed_json

CONTENTS = ".catdog.json"  # the list of a written folder's files and their hashes


@contextlib.contextmanager
def folder_writer(path: Path, option: str) -> Iterator[Path]:
    """Makes a folder that takes the name `path` only when the block ends without an error.

    The files go into a hidden folder beside it; `CONTENTS` with each file's hash is written last
    and makes the folder one that a later run may replace. After an error nothing is left behind and
    an older `path` is untouched. Of a process that is killed between the two renames, the older
    folder stays beside `path` under a hidden name; the next run puts it back first.

    `option` is what the user named the folder with, for the errors.

    Yields:
      The folder to fill.

    Raises:
      CatdogError: `path` holds files that are not those of an earlier run, or the folder cannot be
        written.
    """
    path = path.absolute()
    temporary, older = beside(path, ".tmp"), beside(path, ".old")
    try:
        for left in left_by_the_dead(path):
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
      CatdogError: it is no folder, or there is a file that an earlier run did not write or that has
        changed since.
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
        now, size = sha256_of_file(path), path.stat().st_size
    except OSError as error:
        raise CatdogError(f"{path}: expected a file, found: {error.strerror or error}. Run its stage again.") from None
    if now != digest:
        raise CatdogError(
            f"{path}: expected sha256 {digest[:12]}…, found {now[:12]}…: it is altered. Run its stage again."
        )
    return size


def _hashes(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): sha256_of_file(file) if file.is_file() else "no file"
        for file in below(folder)
    }


def _put_back_or_remove(left: Path, path: Path) -> None:
    if left.suffix == ".old" and not path.exists():
        os.rename(left, path)
    else:
        shutil.rmtree(left, ignore_errors=True)
