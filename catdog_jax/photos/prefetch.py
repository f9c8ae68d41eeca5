"""Computes a function of many inputs in threads, some inputs ahead of its caller; decodes many photos so."""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from catdog_jax.config import cores
from catdog_jax.files import atomic
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.photos.sources import Record

Input = TypeVar("Input")
Output = TypeVar("Output")
_READ_AHEAD = 64  # photos that are read and not decoded


def map_ahead(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int | None, ahead: int
) -> Generator[Output, None, None]:
    """Yields what a function makes of each input, in order. Threads compute it: Pillow decodes and resizes without the GIL.

    The inputs are read as they are needed. `workers` are threads, None for one a core; `ahead`
    is how many results there are at most that nobody has taken yet.
    """
    pool = ThreadPoolExecutor(workers or cores())
    try:
        source = iter(inputs)
        queue = collections.deque(pool.submit(function, item) for item in itertools.islice(source, ahead))
        while queue:
            result = queue.popleft().result()
            queue.extend(pool.submit(function, item) for item in itertools.islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early need not wait for what was computed ahead


@dataclass(frozen=True)
class Decoded:
    """A record as the network sees it, or the reason why there is nothing to see.

    Attributes:
      record: which.
      sha256: of the undecoded photo; empty where there was none to be had.
      pixels: uint8 [size, size, 3], RGB, as the recipe says, or None.
      reason: why there are no pixels; empty where nobody wants them.
    """

    record: Record
    sha256: str
    pixels: np.ndarray | None
    reason: str = ""

    @property
    def skipped(self) -> dict[str, str]:
        """How lists of what is left out name it: {"id", "reason"}."""
        return {"id": self.record.id, "reason": self.reason}


def decoded(
    records: Iterable[Record],
    workers: int | None,
    ahead: int,
    recipe: DecodingRecipe,
    known: Mapping[str, str] = MappingProxyType({}),
) -> Generator[Decoded, None, None]:
    """Yields every record's pixels, by the recipe, or why it has none, in order.

    A file that is no photo is yielded with the reason. A file that the system fails to read is an
    error instead, because it may be a good photo. `known` has the SHA-256 of photos by their ids: one
    whose bytes still have it is read and not decoded.

    Raises:
      CatdogError: the system cannot read a photo, twice.
    """
    return map_ahead(lambda record: decode_record(record, recipe, known), records, workers, ahead)


def decode_record(record: Record, recipe: DecodingRecipe, known: Mapping[str, str] = MappingProxyType({})) -> Decoded:
    """One photo, see `decoded`."""
    digest = ""
    try:
        encoded = sources.read_patiently(record)
        digest = atomic.sha256(encoded)
        return Decoded(record, digest, None if digest == known.get(record.id) else decoding.decode(encoded, recipe))
    except decoding.ImageError as error:
        return Decoded(record, digest, None, str(error))


def hashed(records: Iterable[Record], workers: int | None) -> Iterator[tuple[Record, str]]:
    """Yields every record with the SHA-256 of its bytes, in order; empty where there is no photo to be had.

    Raises:
      CatdogError: the system cannot read a photo, twice.
    """
    return map_ahead(_hash, records, workers, _READ_AHEAD)


def _hash(record: Record) -> tuple[Record, str]:
    try:
        return record, atomic.sha256(sources.read_patiently(record))
    except decoding.ImageError:
        return record, ""
