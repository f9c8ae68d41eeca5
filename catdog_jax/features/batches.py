"""Batches of photos go over the devices, and their rows into the shards of which the photos are.

A batch takes photos of as many shards as it has room for, so that a shard's end leaves no device
with half a batch. That decides no byte: the features of a photo do not depend on those that are
computed together with it, because batches have one static shape.
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import jax
import numpy as np

from catdog_jax.features.earlier import Earlier
from catdog_jax.features.extractor import Extractor
from catdog_jax.features.shards import Rows
from catdog_jax.photos import decoding_pool, prefetch
from catdog_jax.photos.dataset import Record
from catdog_jax.photos.prefetch import Decoded
from catdog_jax.photos.recipe import DecodingRecipe

_IN_FLIGHT = 2  # batches dispatched before the first is waited for, so that the device never waits for the host
_AHEAD = 1024  # decoded photos that wait for their batch, at most: 154 MB


@dataclass(frozen=True)
class Shard:
    """A fixed part of a split: its file name's stem and the photos in it."""

    name: str
    records: tuple[Record, ...]


@dataclass
class _Open:
    """A shard whose rows are not all there yet.

    Attributes:
      shard: which.
      rows: what became of its photos, but for the features.
      features: of each row, float32 [views, …]; None while a device computes it.
      missing: how many of its photos are not decoded, or not computed.
    """

    shard: Shard
    rows: Rows = field(default_factory=Rows)
    features: list[np.ndarray | None] = field(default_factory=list)
    missing: int = 0

    def finished(self) -> tuple[Shard, Rows]:
        """The shard with all its rows."""
        if self.features:
            self.rows.features.append(np.stack([row for row in self.features if row is not None]))
        return self.shard, self.rows


@dataclass
class _Batch:
    """Photos that are computed together.

    Attributes:
      pixels: uint8 [batch_size, size, size, 3], used again for a later batch when this one is computed.
      photos: the shard of each photo, and which of its rows.
      done: how many photos are done with it: these, and those that cannot be decoded.
      features: the device's result, float32 [batch_size, views, …].
    """

    pixels: np.ndarray
    photos: list[tuple[_Open, int]] = field(default_factory=list)
    done: int = 0
    features: jax.Array | None = None


def compute_shards(
    shards: Sequence[Shard],
    extractor: Extractor,
    recipe: DecodingRecipe,
    workers: int | None,
    advance: Callable[[int], None],
    earlier: Earlier | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
    processes: bool = False,
) -> Generator[tuple[Shard, Rows], None, None]:
    """Yields each shard with its rows, in order.

    Args:
      shards: what to compute.
      extractor: the convolutions.
      recipe: how photos are decoded, to the extractor's size.
      workers: decoding threads or processes, None for one a core.
      advance: is told how many further photos are done, without those of `known`.
      earlier: has the rows that are not computed.
      known: the photos that it has, by their ids: the SHA-256 of their bytes.
      processes: whether photos are decoded in processes, see `decoding_pool`.

    Raises:
      CatdogError: as `prefetch.decoded` or `decoding_pool.decoded`.
    """
    decoded = decoding_pool.decoded if processes else prefetch.decoded
    records = (record for shard in shards for record in shard.records)
    ahead = min((_IN_FLIGHT + 1) * extractor.batch_size, _AHEAD)
    with contextlib.closing(decoded(records, workers, ahead, recipe, known)) as photos:
        yield from _Line(extractor, advance, earlier).run(shards, photos)


class _Line:
    """The shards that are open, and the batches on their way."""

    def __init__(self, extractor: Extractor, advance: Callable[[int], None], earlier: Earlier | None):
        self._extractor, self._advance, self._earlier = extractor, advance, earlier
        self._open = collections.deque[_Open]()
        self._in_flight = collections.deque[_Batch]()
        self._free: list[np.ndarray] = []  # pixels of batches that are done
        self._batch = self._new_batch()

    def run(self, shards: Sequence[Shard], photos: Iterator[Decoded]) -> Iterator[tuple[Shard, Rows]]:
        for shard in shards:
            into = _Open(shard, missing=len(shard.records))
            self._open.append(into)
            for photo in itertools.islice(photos, len(shard.records)):
                self._take(photo, into)
                if len(self._batch.photos) == self._extractor.batch_size:
                    self._dispatch()
                    self._collect(_IN_FLIGHT)
                    yield from self._finished()
            if self._is_long():
                self._dispatch()
                self._collect(0)
            yield from self._finished()
        self._dispatch()
        self._collect(0)
        yield from self._finished()

    def _new_batch(self) -> _Batch:
        shape = (self._extractor.batch_size, self._extractor.size, self._extractor.size, 3)
        return _Batch(self._free.pop() if self._free else np.empty(shape, np.uint8))

    def _take(self, photo: Decoded, into: _Open) -> None:
        """Puts a photo into the batch, or its earlier row or the reason why it has none into its shard."""
        if photo.reason:
            into.rows.skipped.append(photo.skipped)
            self._batch.done += 1
        elif photo.pixels is not None:
            self._batch.pixels[len(self._batch.photos)] = photo.pixels
            self._batch.photos.append((into, len(into.features)))
            self._batch.done += 1
            into.features.append(None)
        else:
            assert self._earlier is not None
            into.features.append(self._earlier.row(photo.sha256))
        if photo.pixels is None:
            into.missing -= 1
        if not photo.reason:
            into.rows.ids.append(photo.record.id)
            into.rows.labels.append(photo.record.label)
            into.rows.hashes.append(photo.sha256)
            into.rows.groups.append(photo.record.group)

    def _dispatch(self) -> None:
        """Sets the devices to work on the batch, however full it is."""
        if self._batch.photos:
            self._batch.pixels[len(self._batch.photos) :] = 0  # black photos, whose features nobody reads
            self._batch.features = self._extractor.dispatch(self._batch.pixels)
        self._in_flight.append(self._batch)
        self._batch = self._new_batch()

    def _collect(self, leave: int) -> None:
        """Waits for the devices until only so many batches are on their way, and gives the rows to their shards."""
        while len(self._in_flight) > leave:
            batch = self._in_flight.popleft()
            computed = np.asarray(batch.features)[: len(batch.photos)] if batch.photos else ()
            for (into, place), row in zip(batch.photos, computed, strict=True):
                into.features[place] = row
                into.missing -= 1
            self._free.append(batch.pixels)
            self._advance(batch.done)

    def _finished(self) -> Iterator[tuple[Shard, Rows]]:
        while self._open and not self._open[0].missing:
            yield self._open.popleft().finished()

    def _is_long(self) -> bool:
        """Whether shards wait that need no more than a batch which earlier rows keep from filling: memory is bounded."""
        held = sum(len(one.features) for one in self._open)
        return held > (_IN_FLIGHT + 2) * max(self._extractor.batch_size, len(self._open[-1].features))
