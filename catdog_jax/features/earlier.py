"""Rows that earlier extractions computed, found by the bytes of their photos: such a photo is not computed again.

A row is taken over only where it is the row that would be computed now, to the bit. So an earlier
cache must agree in everything that decides a row's features, and only a shard whose features still
have the hash that was written down is taken from. The features of a photo do not depend on the
photos that were computed together with it: batches have one static shape, and what a split does not
fill is padded.
"""

import functools
import tempfile
import threading
from typing import Any

import numpy as np

from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.features import shards
from catdog_jax.files.buckets import Bucket, Location, UnreachableError
from catdog_jax.photos.fingerprint import Fingerprint, FingerprintError

_OF_THE_LIST = ("shard_size", "classes", "inputs", "inputs_sha256")  # fields that decide no row's features


def of_another_list(found: Fingerprint, wanted: Fingerprint) -> bool:
    """Whether two fingerprints differ in the photos, their labels, splits and shards, and in nothing else."""
    there, here = (_of_a_row(prints) for prints in (found, wanted))
    return found != wanted and there == here


def _of_a_row(prints: Fingerprint) -> dict[str, Any]:
    """The fields that decide a row's features."""
    return {name: value for name, value in prints.to_json().items() if name not in _OF_THE_LIST}


def _in_the_way(found: Fingerprint, wanted: Fingerprint) -> str | None:
    """The first field for which rows of the wanted fingerprint cannot be had from those found, to the bit.

    The mean of cells that were rounded to float16 is another number than the rounded mean of cells,
    and NumPy adds up in another order than XLA. The largest cell is the same one.
    """
    there, here = _of_a_row(found), _of_a_row(wanted)
    for name in {**here, **there}:
        has, wants = there.get(name), here.get(name)
        if name == "pool":
            same = has == wants or wants in Pool(str(has)).parts or (has == "none" and wants == "max")
        elif name == "views":
            same = set(has or ()) >= set(wants or ())
        else:
            same = has == wants
        if not same:
            return name
    return None


class Earlier:
    """The rows of earlier caches, by the SHA-256 of their photos' bytes.

    Attributes:
      places: the caches that are taken from, in the order in which they were added.
    """

    def __init__(self, wanted: Fingerprint):
        """`wanted` is the fingerprint of the cache that the rows are for."""
        self.places: list[Location] = []
        self._wanted = wanted
        self._rows: dict[str, list[tuple[_Shard, int]]] = {}
        self._lock = threading.Lock()

    def add(self, place: Location, shown: Location | None = None) -> None:
        """Adds those shards at a place that agree with what is wanted. `shown` is how users know the place.

        Raises:
          UnreachableError: the bucket cannot be reached.
        """
        for sidecar in shards.sidecars(place).values():
            found = shards.of_fingerprint(sidecar)
            if _in_the_way(found, self._wanted) is None:
                self._add_shard(place, shown or place, sidecar, found)

    def add_named(self, place: Location) -> None:
        """Adds all shards of a cache that the user has named for it.

        Raises:
          CatdogError: there is no cache, or it is of other features; the message names the field.
        """
        there = shards.sidecars(place)
        if not there:
            raise CatdogError(f"{place}: expected a feature cache for --reuse, found none. Check the path.")
        for sidecar in there.values():
            found = shards.of_fingerprint(sidecar)
            if field := _in_the_way(found, self._wanted):
                has, wants = (prints.to_json().get(field) for prints in (found, self._wanted))
                raise FingerprintError(
                    f"{place}: expected features with {field} {wants!r} for --reuse, found {has!r}. Extract with the same "
                    f"settings, or leave it out."
                )
            self._add_shard(place, place, sidecar, found)

    def _add_shard(self, place: Location, shown: Location, sidecar: dict[str, Any], found: Fingerprint) -> None:
        shard = _Shard(place, shown, sidecar, found, self._wanted)
        if shown not in self.places:
            self.places.append(shown)
        for row, digest in enumerate(sidecar["source_sha256"]):
            self._rows.setdefault(digest, []).append((shard, row))

    def __bool__(self) -> bool:
        return bool(self._rows)

    def holds(self, digest: str) -> bool:
        """Whether there is a row of a photo, in a shard that is as it was written. Threads may ask."""
        return self._found(digest) is not None

    def row(self, digest: str) -> np.ndarray:
        """float32 [views, …]: the features of a photo that this `holds`."""
        found = self._found(digest)
        assert found is not None
        shard, row = found
        return shard.row(row)

    def place(self, digest: str) -> Location:
        """Where the features of a photo that this `holds` are, as users know it."""
        found = self._found(digest)
        assert found is not None
        return found[0].shown

    def photos_of(self, place: Location) -> set[str]:
        """The photos that a place has rows of."""
        return {digest for digest, rows in self._rows.items() if any(shard.place == place for shard, _ in rows)}

    def _found(self, digest: str) -> tuple["_Shard", int] | None:
        rows = self._rows.get(digest, ())
        with self._lock:  # so that no shard is hashed twice
            return next(((shard, row) for shard, row in rows if shard.features is not None), None)


class _Shard:
    def __init__(
        self, place: Location, shown: Location, sidecar: dict[str, Any], found: Fingerprint, wanted: Fingerprint
    ):
        self.place, self.shown = place, shown
        self._path = shards.array_path(place, sidecar["shard"], "features")
        self._written = sidecar["arrays"]["features"]
        self._has, self._wants = Pool(str(found.pool)), Pool(str(wanted.pool))
        self._shape = self._wants.shape(wanted.recipe.grid)
        self._views = [(found.views or ()).index(view) for view in wanted.views or ()]

    @functools.cached_property
    def features(self) -> np.ndarray | None:
        """The features as they are stored, memory-mapped; None where they are not as they were written."""
        try:
            _, digest, load = shards.examined(self._path)
            if digest != self._written["sha256"]:
                return None
            return _on_disk(load()) if isinstance(self._path, Bucket) else load()
        except UnreachableError:
            raise
        except (OSError, ValueError):
            return None

    def row(self, row: int) -> np.ndarray:
        """float32 [views, …], which the stored type holds exactly."""
        assert self.features is not None
        stored = self.features[row][self._views]
        return self._has.convert(stored, self._wants).reshape(-1, *self._shape).astype(np.float32)


def _on_disk(array: np.ndarray) -> np.ndarray:
    """The array in a file that goes with it, so that a cache in a bucket need not fit into memory."""
    if not array.size:
        return array
    with tempfile.TemporaryFile() as file:
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        return np.memmap(file, array.dtype, "r", shape=array.shape)
