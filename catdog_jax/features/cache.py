"""The feature cache on disk: .npy shards, their sidecars and the manifest; writing one shard, and reading all back.

A feature cache is a directory that NumPy alone can read. For each shard there are SPLIT-00003-of-00015.features.npy,
.labels.npy and, written after them, a .json sidecar with the id and the hash of every photo, every skipped photo and the hash
of both arrays: a shard without a valid sidecar does not exist. manifest.json, written last of all, makes the directory a
cache. Everything that decides the bytes is in the fingerprint; a directory is only resumed by the same one.
"""

import functools
import importlib.metadata
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.backbone.vgg16 import CHANNELS, GRID, columns, pool_cells
from catdog_jax.config import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.files.buckets import Place, UnreachableError, found_from, seen_from
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import LeftOut, is_class_name

FORMAT = 1
_MEND = "Run `catdog extract` again with the same options: it computes only what is damaged."
_KINDS = ("features", "labels")
_COMPATIBLE = ("weights_sha256", "preprocessing", "preprocessing_version", "image", "classes")


class FingerprintError(CatdogError):
    """A directory holds features that were made otherwise; the message names the first field that differs."""


@dataclass(frozen=True)
class Rows:
    """What became of a shard's photos.

    Attributes:
      ids: of the photos that could be used, in order.
      labels: their labels, 0 or 1.
      hashes: the SHA-256 of their undecoded bytes.
      skipped: the others: {"id": …, "reason": …}.
      features: float32 [n, views, …] arrays that hold the rows in order.
    """

    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)


def write_shard(out: Place, name: str, rows: Rows, fingerprint: dict[str, Any]) -> None:
    """Writes a shard's arrays, then the sidecar that makes them count.

    Raises:
      CatdogError: the features do not fit the stored type, or a file cannot be written.
    """
    dtype = fingerprint["dtype"]
    cells = (GRID, GRID, CHANNELS) if fingerprint["pool"] == "none" else (columns(fingerprint["pool"]),)
    nothing = np.zeros((0, len(fingerprint["views"]), *cells), np.float32)
    with np.errstate(over="ignore"):  # what overflows becomes infinity, which is refused
        stored = np.concatenate([nothing, *rows.features]).astype(dtype)
    if not np.isfinite(stored).all():
        raise CatdogError(f"{out / name}: features overflow {dtype} or are NaN. Use --dtype float32, or check the weights.")
    arrays = {"features": stored, "labels": np.asarray(rows.labels, np.int8)}
    described = {}
    for kind, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        atomic.write_bytes(_array_path(out, name, kind), buffer.getvalue())
        described[kind] = {
            "sha256": atomic.sha256(buffer.getvalue()),
            "bytes": buffer.tell(),
            "shape": list(array.shape),
            "dtype": array.dtype.name,
        }
    sidecar = {
        "format": FORMAT,
        "shard": name,
        "fingerprint": fingerprint,
        "arrays": described,
        "ids": rows.ids,
        "source_sha256": rows.hashes,
        "skipped": rows.skipped,
    }
    atomic.write_sealed_json(out / f"{name}.json", sidecar)


def _array_path(directory: Place, shard: str, kind: str) -> Place:
    return directory / f"{shard}.{kind}.npy"


def finished(out: Place, names: Sequence[str], fingerprint: dict[str, Any]) -> set[str]:
    """Those of the shards that an earlier run left whole. A damaged one counts as absent, to be computed again.

    Raises:
      FingerprintError: the directory holds shards of another fingerprint; the message names the field that differs.
    """
    there = with_sidecar(out)
    for name in sorted(there):  # of another fingerprint they may have other names
        try:
            _check_same(out, atomic.read_sealed_json(out / f"{name}.json", "shard sidecar")["fingerprint"], fingerprint)
        except (FingerprintError, UnreachableError):
            raise
        except CatdogError:  # damaged
            continue
        break
    return {name for name in names if name in there and _is_whole(out, name, fingerprint)}


def _is_whole(out: Place, name: str, fingerprint: dict[str, Any]) -> bool:
    try:
        sidecar = atomic.read_sealed_json(out / f"{name}.json", "shard sidecar")
        _check_same(out, sidecar["fingerprint"], fingerprint)
        return all(_examined(_array_path(out, name, kind))[1] == sidecar["arrays"][kind]["sha256"] for kind in _KINDS)
    except (FingerprintError, UnreachableError):
        raise
    except (CatdogError, KeyError, TypeError, OSError):
        return False


def with_sidecar(out: Place) -> set[str]:
    """The shards that some process has finished, going by their sidecars alone, which are written last."""
    return {path.stem for path in out.glob("*-of-*.json")}


def skipped(out: Place, name: str) -> list[dict[str, str]]:
    """The unreadable photos of a finished shard: [{"id": …, "reason": …}]."""
    return atomic.read_sealed_json(out / f"{name}.json", "shard sidecar")["skipped"]


def _check_same(out: Place, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in expected:
        if found.get(key) != expected[key]:
            raise FingerprintError(
                f"{out}: holds features of another fingerprint: {key} is {found.get(key)!r}, expected {expected[key]!r}. "
                f"Choose another --out, or remove the directory to extract again."
            )


def write_manifest(
    out: Place, source: str, names: Sequence[str], fingerprint: dict[str, Any], left_out: Sequence[LeftOut] = ()
) -> None:
    """Writes the manifest over finished shards, which makes the directory a feature cache."""
    splits: dict[str, Any] = {split: {"rows": 0, "skipped": [], "shards": []} for split in sources.SPLITS}
    for name in names:
        sidecar = atomic.read_sealed_json(out / f"{name}.json", "shard sidecar")
        entry = splits[split_of(name)]
        entry["rows"] += len(sidecar["ids"])
        entry["skipped"] += sidecar["skipped"]
        entry["shards"].append({"name": name, "rows": len(sidecar["ids"])})
    versions = {package: importlib.metadata.version(package) for package in ("jax", "numpy", "pillow")}
    if Path(source).exists():  # as seen from the cache, so that both can be found from anywhere
        source = seen_from(out, Path(source))
    manifest = {"format": FORMAT, "source": source, "fingerprint": fingerprint, "splits": splits, "made_with": versions}
    if left_out:
        manifest["left_out"] = [asdict(one) for one in left_out]
    atomic.write_sealed_json(out / "manifest.json", manifest)


def split_of(name: str) -> str:
    """The split that a shard belongs to: "train-00003-of-00015" -> "train"."""
    return name.split("-")[0]


@dataclass(frozen=True)
class FeatureCache:
    """A finished feature cache. Arrays are mapped into memory and checked against their hashes as they are read.

    Attributes:
      path: the directory.
      manifest: the contents of manifest.json.
    """

    path: Place
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Place) -> "FeatureCache":
        """Opens the cache in a directory.

        Raises:
          CatdogError: there is no manifest (the extraction has not finished), it is altered or of another format, or the name
            of a class is no text.
        """
        file = path / "manifest.json"
        manifest = atomic.read_sealed_json(file, "feature manifest (of a finished `catdog extract`)")
        if manifest.get("format") != FORMAT:
            raise CatdogError(f"{file}: expected format {FORMAT}, found {manifest.get('format')!r}. Extract again.")
        if odd := [name for name in manifest.get("fingerprint", {}).get("classes", ()) if not is_class_name(name)]:
            raise CatdogError(
                f"{file}: expected classes named in UTF-8 without control characters, found {odd[0]!r}. Rename the folder and "
                f"extract again."
            )
        return cls(path, manifest)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decided the bytes."""
        return self.manifest["fingerprint"]

    @property
    def source(self) -> str:
        """The data set, as `data.load` takes it."""
        source = found_from(self.path, self.manifest["source"])
        return str(source) if source.exists() else self.manifest["source"]

    @property
    def classes(self) -> tuple[str, str]:
        """The two classes; the second is the positive one."""
        first, second = self.fingerprint["classes"]
        return first, second

    @property
    def views(self) -> tuple[str, ...]:
        """The views that are kept of each photo, in their order in the arrays."""
        return tuple(self.fingerprint["views"])

    def rows(self, split: str) -> int:
        """The number of photos that a split has features of."""
        return self.manifest["splits"][split]["rows"]

    def skipped(self, split: str) -> list[dict[str, str]]:
        """The photos of a split that could not be used: [{"id": …, "reason": …}]."""
        return self.manifest["splits"][split]["skipped"]

    def ids(self, split: str) -> list[str]:
        """The ids of a split's rows, in order."""
        return [row for name in self.shard_names(split) for row in self.sidecar(name)["ids"]]

    def labels(self, split: str) -> np.ndarray:
        """int8 [N], 0 or 1."""
        return np.concatenate([self.shard_labels(name) for name in self.shard_names(split)])

    def shard_labels(self, name: str) -> np.ndarray:
        """int8 [rows] of one shard."""
        return self._array(name, "labels")

    def shard_names(self, split: str) -> list[str]:
        """The stems of a split's files, in order, without shards that have no readable photo."""
        return [shard["name"] for shard in self.manifest["splits"][split]["shards"] if shard["rows"]]

    def gives(self, pool: Pool) -> bool:
        """Whether features of this pooling can be had from what is stored."""
        stored = self.fingerprint["pool"]
        return stored in (pool, "none") or (stored == "avg+max" and pool in ("avg", "max"))

    def load_shard(self, name: str, pool: Pool) -> np.ndarray:
        """The features of one shard, pooled as a head wants them.

        Returns:
          [rows, views, columns] of the stored type (float32 where pooling computes it); a memory map where nothing is computed.

        Raises:
          CatdogError: the shard is missing, cut short or altered, or the cache cannot give this pooling.
        """
        stored = self.fingerprint["pool"]
        array = self._array(name, "features")
        if stored == pool:
            return array.reshape(*array.shape[:2], columns(pool))
        if stored == "none":
            return pool_cells(np.asarray(array, np.float32), pool)
        if self.gives(pool):  # stored is avg+max, and one half of it is wanted
            return array[..., :512] if pool == "avg" else array[..., 512:]
        raise CatdogError(
            f"{self.path}: expected features that give pool {pool!r}, found {stored!r}. "
            f"Extract again with --pool {pool} (or none, which gives all), or train with --pool {stored}."
        )

    def load(self, split: str, pool: Pool) -> np.ndarray:
        """The features of a whole split, [N, views, columns]; see `load_shard`."""
        return np.concatenate([self.load_shard(name, pool) for name in self.shard_names(split)])

    def sidecar(self, name: str) -> dict[str, Any]:
        """What a shard says of itself: its ids, the hashes of its photos and arrays, what was skipped."""
        try:
            return atomic.read_sealed_json(self.path / f"{name}.json", "shard sidecar")
        except CatdogError as error:
            raise CatdogError(f"{error} {_MEND}") from None

    def check_shard(self, name: str) -> int:
        """Reads all of a shard, and returns the length of its arrays in bytes.

        Raises:
          CatdogError: a file of it is missing or altered, or it is of another fingerprint than the cache.
        """
        sidecar = self.sidecar(name)
        if sidecar["fingerprint"] != self.fingerprint:
            raise CatdogError(f"{self.path / name}.json: expected the fingerprint of manifest.json, found another. {_MEND}")
        return sum(self._array(name, kind, sidecar).nbytes for kind in _KINDS)

    def _array(self, name: str, kind: str, sidecar: dict[str, Any] | None = None) -> np.ndarray:
        path = _array_path(self.path, name, kind)
        expected = (sidecar or self.sidecar(name))["arrays"][kind]
        try:
            size, digest, load = _examined(path)
        except OSError as error:
            raise CatdogError(f"{path}: expected a shard's {kind}, found: {error.strerror}. {_MEND}") from None
        if (size, digest) != (expected["bytes"], expected["sha256"]):
            found = "other bytes" if size == expected["bytes"] else f"{size:,} bytes"
            raise CatdogError(
                f"{path}: expected {expected['bytes']:,} bytes with sha256 {expected['sha256'][:12]}…, found {found}. {_MEND}"
            )
        return load()


def _examined(path: Place) -> tuple[int, str, Callable[[], np.ndarray]]:
    """A file's length in bytes, its SHA-256, and what loads the array: mapped into memory, where the file is on a disk."""
    if isinstance(path, Path):
        load = functools.partial(np.load, path, mmap_mode="r", allow_pickle=False)
        return path.stat().st_size, atomic.sha256_of_file(path), load
    content = path.read_bytes()
    return len(content), atomic.sha256(content), lambda: np.load(io.BytesIO(content), allow_pickle=False)


def check_compatible(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Checks that features may be judged by a head that was trained on others.

    Args:
      expected: the fingerprint that the head was trained on.
      found: the fingerprint of the features.

    Raises:
      CatdogError: naming the first field that differs.
    """
    for key in _COMPATIBLE:
        if expected.get(key) != found.get(key):
            raise CatdogError(
                f"features: expected {key} = {expected.get(key)!r}, as the head was trained with, found {found.get(key)!r}. "
                f"Use the head's own feature cache, or train again."
            )
