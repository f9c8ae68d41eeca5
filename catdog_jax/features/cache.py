"""The feature cache on disk: .npy shards, their sidecars and the manifest; writing one shard, and reading all back.

A feature cache is a directory that NumPy alone can read. For each shard there are
SPLIT-00003-of-00015.features.npy, .labels.npy and, written after them, a .json sidecar with the id
and the hash of every photo, every skipped photo and the hash of both arrays: a shard without a
valid sidecar does not exist. manifest.json, written last of all, makes the directory a cache.
Everything that decides the bytes is in the fingerprint; a directory is only resumed by the same
one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog_jax.backbone.vgg16 import columns, pool_cells
from catdog_jax.config import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.features.shards import FORMAT, KINDS, array_path, examined
from catdog_jax.files import sealed
from catdog_jax.files.buckets import Location, found_from
from catdog_jax.photos.dataset import is_class_name

_MEND = "Run `catdog extract` again with the same options: it computes only what is damaged."
_COMPATIBLE = ("weights_sha256", "preprocessing", "preprocessing_version", "image", "classes")


@dataclass(frozen=True)
class FeatureCache:
    """A finished feature cache. Arrays are mapped into memory and checked against their hashes as they are read.

    Attributes:
      path: the directory.
      manifest: the contents of manifest.json.
    """

    path: Location
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Location) -> "FeatureCache":
        """Opens the cache in a directory.

        Raises:
          CatdogError: there is no manifest (the extraction has not finished), it is altered or of
            another format, or the name of a class is no text.
        """
        file = path / "manifest.json"
        manifest = sealed.read_sealed_json(file, "feature manifest (of a finished `catdog extract`)")
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
        """The data set, as `sources.load` takes it."""
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
          [rows, views, columns] of the stored type (float32 where pooling computes it); a memory
          map where nothing is computed.

        Raises:
          CatdogError: the shard is missing, cut short or altered, or the cache cannot give this
            pooling.
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
            return sealed.read_sealed_json(self.path / f"{name}.json", "shard sidecar")
        except CatdogError as error:
            raise CatdogError(f"{error} {_MEND}") from None

    def check_shard(self, name: str) -> int:
        """Reads all of a shard, and returns the length of its arrays in bytes.

        Raises:
          CatdogError: a file of it is missing or altered, or it is of another fingerprint than the
            cache.
        """
        sidecar = self.sidecar(name)
        if sidecar["fingerprint"] != self.fingerprint:
            raise CatdogError(
                f"{self.path / name}.json: expected the fingerprint of manifest.json, found another. {_MEND}"
            )
        return sum(self._array(name, kind, sidecar).nbytes for kind in KINDS)

    def _array(self, name: str, kind: str, sidecar: dict[str, Any] | None = None) -> np.ndarray:
        path = array_path(self.path, name, kind)
        expected = (sidecar or self.sidecar(name))["arrays"][kind]
        try:
            size, digest, load = examined(path)
        except OSError as error:
            raise CatdogError(f"{path}: expected a shard's {kind}, found: {error.strerror}. {_MEND}") from None
        if (size, digest) != (expected["bytes"], expected["sha256"]):
            found = "other bytes" if size == expected["bytes"] else f"{size:,} bytes"
            raise CatdogError(
                f"{path}: expected {expected['bytes']:,} bytes with sha256 {expected['sha256'][:12]}…, found {found}. {_MEND}"
            )
        return load()


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
