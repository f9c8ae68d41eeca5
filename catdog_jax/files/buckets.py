"""Objects in a bucket (s3://, gs://, az://) with those methods of a path that a feature cache needs.

A bucket knows no renames, locks, fsync or memory maps. It knows the PUT: an object is there with
all of its bytes, or the older one is. Nothing else is relied on here. The stores are reached by
fsspec itself and not by etils.epath, which lies over it: epath's files publish what was written
when the writing fails, it sees old listings, and it changes to TensorFlow's file system where there
is one.
"""

import errno
import fnmatch
import os
from pathlib import Path
from typing import Any

from catdog_jax.errors import CatdogError, UsageError

DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}  # the package that brings each scheme to fsspec
_MARK = "://"


class UnreachableError(CatdogError):
    """A bucket cannot be reached: no credentials, no such bucket, no network, no permission. No word on what is in it."""


class Bucket:
    """An object in a bucket, or what would be a folder there. The scheme is looked at when the object is."""

    def __init__(self, url: str):
        """Takes a URL such as s3://bucket/features."""
        scheme, _, rest = url.partition(_MARK)
        self._url = scheme + _MARK + rest.rstrip("/")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"Bucket({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(f"{self._url}/{name}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self._url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on."""
        return Path(self.name).suffix

    def exists(self) -> bool:
        """Whether there is such an object, or any below it."""
        return self._kind() != ""

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return self._kind() == "directory"

    def _kind(self) -> str:
        try:
            return self._call("read", "info")["type"]
        except FileNotFoundError:
            return ""

    def glob(self, pattern: str) -> list["Bucket"]:
        """The objects right below whose names fit the pattern, sorted."""
        try:
            paths = self._call("read", "ls", detail=False)
        except FileNotFoundError:
            return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in paths}
        return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]

    def read_bytes(self) -> bytes:
        """The object, whole.

        Raises:
          FileNotFoundError: there is none.
        """
        return self._call("read", "cat_file")

    def write_bytes(self, data: bytes) -> None:
        """Puts the object, in the place of an older one."""
        try:
            self._call("written", "pipe_file", data)
        except FileNotFoundError:
            raise self._unreachable("written", "there is no such bucket") from None

    def _call(self, doing: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of the file system, whose drivers each have errors of their own.

        Raises:
          FileNotFoundError: there is no such object.
          UnreachableError: everything else.
          UsageError: no bucket has this scheme, or its driver is not installed.
        """
        scheme, _, rest = self._url.partition(_MARK)
        if scheme not in DRIVERS or rest[:1] in ("", "/"):
            forms = ", ".join(f"{known}{_MARK}BUCKET/…" for known in DRIVERS)
            raise UsageError(f"{self}: expected a path or one of {forms}, found another URL. Check it.")
        try:
            import fsspec  # not at the top: the installation for predict and serve has none

            # Without its listings, or the shards of another process would stay unseen.
            files = fsspec.filesystem(scheme, use_listings_cache=False)
            return getattr(files, method)(self._url, *arguments, **options)
        except ImportError:
            package = DRIVERS[scheme]
            raise UsageError(
                f"{self}: expected the package {package}, found that it is not installed. Run: pip install {package}."
            ) from None
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._url) from None
        except Exception as error:  # botocore's, google.auth's, aiohttp's and Azure's have nothing else in common
            reason = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0].rstrip(".")
            raise self._unreachable(doing, reason or type(error).__name__) from error

    def _unreachable(self, doing: str, reason: str) -> UnreachableError:
        return UnreachableError(
            f"{self}: cannot be {doing}: {reason}. Check the bucket, the credentials and the network."
        )


Location = Path | Bucket  # where a feature cache may lie


def location(text: str) -> Location:
    """A URL as a bucket, anything else as a path."""
    return Bucket(text) if _MARK in text else Path(text)


def seen_from(directory: Location, target: Location) -> str:
    """How a file in `directory` remembers `target`, for `found_from`: both can be moved together where both are on a disk."""
    if isinstance(target, Bucket):
        return str(target)
    if isinstance(directory, Bucket):
        return str(target.resolve())
    return os.path.relpath(target.resolve(), directory.resolve())


def found_from(directory: Location, remembered: str) -> Location:
    """What `seen_from` wrote into a file in `directory`."""
    target = location(remembered)
    if isinstance(target, Bucket) or isinstance(directory, Bucket):
        return target
    return Path(os.path.normpath(directory.resolve() / target))
