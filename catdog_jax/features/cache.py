"""Reads a finished feature cache; `shards` writes it.

A feature cache is a directory that NumPy alone can read. For each shard there are
SPLIT-00003-of-00015.features.npy, .labels.npy and, written after them, a .json sidecar with the id
and the hash of every photo, every skipped photo and the hash of both arrays: a shard without a
valid sidecar does not exist. manifest.json, written last of all, makes the directory a cache.
Everything that decides the bytes is in the fingerprint; a directory is only resumed by the same
one.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.features.shards import FORMAT, KINDS, array_path, examined, read_sidecar
from catdog_jax.files import sealed
from catdog_jax.files.buckets import Location, found_from, location
from catdog_jax.photos.dataset import is_class_name
from catdog_jax.photos.fingerprint import Fingerprint

_REMEDY = "Run `catdog extract` again with the same options: it computes only what is damaged."


@dataclass(frozen=True)
class FeatureCache:
    """A finished feature cache. Arrays are mapped into memory and checked against their hashes as they are read."""

    path: Location
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Location) -> "FeatureCache":
        """Opens the cache in a directory or at a bucket's URL.

        Raises:
          CatdogError: there is no manifest (the extraction has not finished), it is altered or of
            another format, or the name of a class is no text.
        """
        folder = location(path) if isinstance(path, str) else path
        file = folder / "manifest.json"
        manifest = sealed.read_sealed_json(file, "feature manifest (of a finished `catdog extract`)")
        if manifest.get("format") != FORMAT:
            raise CatdogError(f"{file}: expected format {FORMAT}, found {manifest.get('format')!r}. Extract again.")
        cache = cls(folder, manifest)
        if odd := [name for name in cache.fingerprint.classes or () if not is_class_name(name)]:
            raise CatdogError(
                f"{file}: expected classes named in UTF-8 without control characters, found {odd[0]!r}. Rename the folder and "
                f"extract again."
            )
        return cache

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {self.rows(split):,}" for split in self.manifest["splits"])
        kinds = f"{self.pool} of {' and '.join(self.views)}, {self.fingerprint.dtype}"
        return f"FeatureCache {self.path}: {' and '.join(self.classes)}\n  photos: {counts}\n  features: {kinds}"

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """Everything that decided the bytes.

        Raises:
          CatdogError: a field of it is of a wrong type.
        """
        try:
            return Fingerprint.from_json(self.manifest.get("fingerprint", {}))
        except CatdogError as error:
            raise CatdogError(f"{self.path / 'manifest.json'}: {error} Extract again.") from None

    @property
    def pool(self) -> Pool:
        """How the stored features were pooled."""
        return Pool(str(self.fingerprint.pool))

    @property
    def source(self) -> str:
        """The data set, as `sources.load` takes it."""
        source = found_from(self.path, self.manifest["source"])
        return str(source) if source.exists() else self.manifest["source"]

    @property
    def classes(self) -> tuple[str, str]:
        """The two classes; the second is the positive one."""
        first, second = self.fingerprint.classes or ()
        return first, second

    @property
    def views(self) -> tuple[str, ...]:
        """The views that are kept of each photo, in their order in the arrays."""
        return self.fingerprint.views or ()

    def rows(self, split: str) -> int:
        """The number of photos that a split has features of."""
        return self.manifest["splits"][split]["rows"]

    def skipped(self, split: str) -> list[dict[str, str]]:
        """The photos of a split that could not be used: [{"id": …, "reason": …}]."""
        return self.manifest["splits"][split]["skipped"]

    def ids(self, split: str) -> list[str]:
        """The ids of a split's rows, in order."""
        return [row for name in self.shard_names(split) for row in self.sidecar(name)["ids"]]

    def groups(self, split: str) -> list[str | None]:
        """What each of a split's rows belongs to, such as the animal that it shows; None where nobody says."""
        sidecars = map(self.sidecar, self.shard_names(split))
        return [group for row in sidecars for group in row.get("groups", [None] * len(row["ids"]))]

    def hashes(self, split: str) -> list[str]:
        """The SHA-256 of the undecoded photo of each of a split's rows."""
        return [row for name in self.shard_names(split) for row in self.sidecar(name)["source_sha256"]]

    def labels(self, split: str) -> np.ndarray:
        """int8 [N], 0 or 1."""
        return np.concatenate([self.shard_labels(name) for name in self.shard_names(split)])

    def shard_labels(self, name: str) -> np.ndarray:
        """int8 [rows] of one shard."""
        return self._array(name, "labels")

    def shard_names(self, split: str) -> list[str]:
        """The stems of a split's files, in order, without shards that have no readable photo."""
        return [shard["name"] for shard in self.manifest["splits"][split]["shards"] if shard["rows"]]

    def load_shard(self, name: str, pool: str) -> np.ndarray:
        """The features of one shard, pooled as a head wants them.

        Returns:
          [rows, views, columns] of the stored type (float32 where pooling computes it); a memory
          map where nothing is computed.

        Raises:
          CatdogError: the shard is missing, cut short or altered, or the cache cannot give this
            pooling.
        """
        wanted = Pool(pool)
        if not self.pool.gives(wanted):
            raise CatdogError(
                f"{self.path}: expected features that give pool {wanted.value!r}, found {self.pool.value!r}. "
                f"Extract again with --pool {pool} (or none, which gives all), or train with --pool {self.pool}."
            )
        return self.pool.convert(self._array(name, "features"), wanted)

    def load(self, split: str, pool: str) -> np.ndarray:
        """The features of a whole split, [N, views, columns]; see `load_shard`."""
        return np.concatenate([self.load_shard(name, pool) for name in self.shard_names(split)])

    def sidecar(self, name: str) -> dict[str, Any]:
        """What a shard says of itself: its ids, the hashes of its photos and arrays, what was skipped.

        Raises:
          CatdogError: it is missing or altered, or of another fingerprint than the cache: so a
            reader of a cache that grows meanwhile never sees rows of two.
        """
        try:
            sidecar = read_sidecar(self.path, name)
        except CatdogError as error:
            raise CatdogError(f"{error} {_REMEDY}") from None
        if Fingerprint.from_json(sidecar["fingerprint"]) != self.fingerprint:
            raise CatdogError(
                f"{self.path / name}.json: expected the fingerprint of manifest.json, found another. {_REMEDY}"
            )
        return sidecar

    def check_shard(self, name: str) -> int:
        """Reads all of a shard, and returns the length of its arrays in bytes.

        Raises:
          CatdogError: a file of it is missing or altered, or it is of another fingerprint than the
            cache.
        """
        sidecar = self.sidecar(name)
        return sum(self._array(name, kind, sidecar).nbytes for kind in KINDS)

    def _array(self, name: str, kind: str, sidecar: dict[str, Any] | None = None) -> np.ndarray:
        path = array_path(self.path, name, kind)
        expected = (sidecar or self.sidecar(name))["arrays"][kind]
        try:
            size, digest, load = examined(path)
        except OSError as error:
            raise CatdogError(f"{path}: expected a shard's {kind}, found: {error.strerror}. {_REMEDY}") from None
        if (size, digest) != (expected["bytes"], expected["sha256"]):
            found = "other bytes" if size == expected["bytes"] else f"{size:,} bytes"
            raise CatdogError(
                f"{path}: expected {expected['bytes']:,} bytes with sha256 {expected['sha256'][:12]}…, found {found}. {_REMEDY}"
            )
        return load()
