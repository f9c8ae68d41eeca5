"""A bucket for tests: a folder behind fsspec that can get, put and list whole objects, and nothing else.

What it lacks (opening, renaming, copying, removing, locks) raises NotImplementedError, so that
nothing can rely on it."""

import os
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from catdog_jax.files import buckets

SCHEME = "store"


class Store(AbstractFileSystem):
    """store:///a/folder: an object is a file of this machine that gets its name with its last byte."""

    protocol = SCHEME

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{SCHEME}://here").rstrip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        file = Path(self._strip_protocol(path))
        if not file.exists():
            raise FileNotFoundError(path)
        return {"name": str(file), "size": file.stat().st_size, "type": "directory" if file.is_dir() else "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        folder = Path(self._strip_protocol(path))
        if not folder.is_dir():
            raise FileNotFoundError(path)
        names = [str(file) for file in folder.iterdir()]
        return [self.info(name) for name in names] if detail else names

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        return Path(self._strip_protocol(path)).read_bytes()

    def pipe_file(self, path: str, value: bytes, *_: Any, **__: Any) -> None:
        file = Path(self._strip_protocol(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        arriving = file.parents[1] / f"{os.getpid()}.arriving"
        arriving.write_bytes(value)
        arriving.rename(file)

    def _open(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("objects are whole")


def bucket(folder: Path) -> buckets.Bucket:
    """The folder as a place in a bucket."""
    buckets.DRIVERS.setdefault(SCHEME, "fsspec")
    fsspec.register_implementation(SCHEME, Store, clobber=True)
    return buckets.Bucket(f"{SCHEME}://here{folder}")
