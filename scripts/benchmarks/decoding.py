"""Measures whether decoding keeps up with a fast device: photos go through the extraction, with a stub for the device.

    python -m scripts.benchmarks.decoding                # about 2 minutes on 2 cores, with the photos of ../shared
    python -m scripts.benchmarks.decoding --data my/photos --cores 1 4 16

The stub takes as long for a batch as a device of --rate photos/s would, and computes nothing. Threads
and processes decode in turns, on so many cores as --cores says; a figure is the median of the rounds.
`host` is the time that the extracting process itself spends on a photo, on all its threads. The last
row is of processes that decode nothing: the inverse of its `host` is the most photos that can be fed
to devices, however many cores decode. The results and the
machine go into artifacts/benchmarks/decoding-MACHINE.json.
"""

import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from catdog_jax import jax_environment
from catdog_jax.console import console, say, show
from catdog_jax.errors import UsageError
from catdog_jax.features import batches
from catdog_jax.files import sealed
from catdog_jax.photos import decoding, decoding_pool, folders
from catdog_jax.photos.dataset import Record
from catdog_jax.photos.recipe import DEFAULT
from scripts.benchmarks import benchmark

WAYS = {"threads": False, "processes": True}
NOTHING = "nothing, in processes"
DECODES_NOTHING = """import numpy
from catdog_jax.photos import decoding
picture = numpy.zeros((224, 224, 3), numpy.uint8)
decoding.read_photo, decoding.decode = lambda *_: b"-", lambda *_: picture
"""
SHARD = 512
HOST_PHOTOS = 10_000
SLOWER = 2  # times slower than processes decode is a device that is never to wait


@dataclass(frozen=True)
class DecodingConfig:
    """Measure how fast photos are decoded, and how long a fast device waits for them."""

    data: tuple[Path, ...] = (
        benchmark.ROOT.parent / "shared" / "dogs-vs-cats",
        benchmark.ROOT.parent / "shared" / "dogs-vs-cats-original-size",
    )
    """Folders of photos, each measured by itself."""
    photos: int = 2_000
    """How many photos a turn decodes; from the beginning again where a folder has fewer."""
    cores: tuple[int, ...] = (1, 2)
    """How many cores may be used."""
    rate: float = 10_000.0
    """Photos that the stub computes in a second."""
    batch_size: int = 256
    """Photos that the stub takes at once."""
    rounds: int = 3
    """Turns; the median counts."""
    out: Path = benchmark.ROOT / "artifacts" / "benchmarks"
    """Where decoding-MACHINE.json is written."""


class StubDevice:
    """Takes the place of the extractor, and the time of a device.

    Attributes:
      batch_size: photos it takes at once.
      size: pixels of a side of a photo.
      dispatched: when each batch came.
      spent: this process' CPU seconds until then.
      busy: the seconds in which the device would have computed.
    """

    def __init__(self, rate: float, batch_size: int, clock: Callable[[], float] = time.perf_counter):
        self.batch_size, self.size = batch_size, DEFAULT.size
        self.dispatched: list[float] = []
        self.spent: list[float] = []
        self.busy = 0.0
        self._seconds, self._clock = batch_size / rate, clock
        self._free = -np.inf  # when it has computed all that came

    def dispatch(self, photos: np.ndarray) -> "_Later":
        """Starts at once, or after the batch before."""
        now = self._clock()
        self._free = max(now, self._free) + self._seconds
        self.dispatched.append(now)
        self.spent.append(time.process_time())
        self.busy += self._seconds
        return _Later(self._free, len(photos), self._clock)

    @property
    def idle(self) -> float:
        """The share of the time, from the first batch to the end of the last one, in which it waited for photos."""
        return max(0.0, 1 - self.busy / (self._free - self.dispatched[0]))


class _Later:
    """An array that is there at a time."""

    def __init__(self, when: float, rows: int, clock: Callable[[], float]):
        self._when, self._rows, self._clock = when, rows, clock

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        time.sleep(max(0.0, self._when - self._clock()))
        return np.zeros((self._rows, 1, 512), np.float32)


def turn(records: Sequence[Record], way: str, rate: float, batch_size: int) -> dict[str, float]:
    """One extraction into nothing.

    Returns:
      decoded: photos/s, from the first batch to the last. start: seconds until the first batch was
      there. idle: the device's share. host: this process' own CPU seconds a photo, from the first
      batch to the last.
    """
    device = StubDevice(rate, batch_size)
    parts = [records[at : at + SHARD] for at in range(0, len(records), SHARD)]
    shards = [batches.Shard(f"train-{i:05d}-of-{len(parts):05d}", tuple(part)) for i, part in enumerate(parts)]
    start = time.perf_counter()
    for _ in batches.compute_shards(shards, device, DEFAULT, None, lambda _: None, processes=WAYS.get(way, True)):
        pass
    first, last = device.dispatched[0], device.dispatched[-1]
    photos = len(records) - batch_size
    return {
        "decoded": photos / (last - first),
        "start": first - start,
        "idle": device.idle,
        "host": (device.spent[-1] - device.spent[0]) / photos,
    }


def host_alone(config: DecodingConfig) -> dict[str, Any]:
    """The row of processes that decode nothing, on all cores, for a device that nobody waits for."""
    read = functools.partial(decoding.read_photo, Path("photos/cats/0.jpg"))
    records = [Record(f"cats/{i}.jpg", 0, "train", 0, read) for i in range(HOST_PHOTOS)]
    start = decoding_pool._START
    decoding_pool._START = start.replace("\ndecoding_worker.main", f"\n{DECODES_NOTHING}\ndecoding_worker.main")
    try:
        turns = [turn(records, NOTHING, 1e6, config.batch_size) for _ in range(config.rounds)]
    finally:
        decoding_pool._START = start
    return row_of("", len(os.sched_getaffinity(0)), NOTHING, 1e6, turns)


def row_of(photos: str, cores: int, way: str, rate: float, turns: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The medians of the turns, and the turns."""
    medians = {name: statistics.median(one[name] for one in turns) for name in turns[0]}
    return {"photos": photos, "cores": cores, "way": way, "device": rate, **medians, "turns": turns}


def records_of(folder: Path, count: int) -> list[Record]:
    """So many photos of a folder.

    Raises:
      UsageError: it has none.
    """
    files = [path.resolve() for path in folders.Walk().photos(folder)] if folder.is_dir() else []
    if not files:
        raise UsageError(f"--data {folder}: expected a folder of photos, found none. Name one.")
    chosen = itertools.islice(itertools.cycle(files), count)
    return [
        Record(str(i), 0, "train", 0, functools.partial(decoding.read_photo, file)) for i, file in enumerate(chosen)
    ]


def measure(config: DecodingConfig) -> list[dict[str, Any]]:
    """The medians of the turns, a row for each folder, number of cores and way.

    Raises:
      UsageError: a folder has no photos, there are too few for two batches, or fewer cores than named.
    """
    available = sorted(os.sched_getaffinity(0))
    if max(config.cores) > len(available):
        raise UsageError(f"--cores: expected at most {len(available)}, found {max(config.cores)}. Name fewer.")
    if config.photos < 2 * config.batch_size:
        raise UsageError(f"--photos: expected {2 * config.batch_size} or more, found {config.photos}. Name more.")
    photos = {folder: records_of(folder, config.photos) for folder in config.data}
    rows: list[dict[str, Any]] = []
    for (folder, records), cores in itertools.product(photos.items(), config.cores):
        say(f"{folder.name} on {cores} cores …")  # no progress bar, whose drawing would be measured too
        os.sched_setaffinity(0, available[:cores])  # of the threads and processes that start from now on too
        try:
            rows += compare(folder.name, records, cores, config)
        finally:
            os.sched_setaffinity(0, available)
    return [*rows, host_alone(config)]


def compare(photos: str, records: Sequence[Record], cores: int, config: DecodingConfig) -> list[dict[str, Any]]:
    """Rows of threads and processes in turns, and of processes for a device that they can feed."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _, way in itertools.product(range(config.rounds), WAYS):
        found[way].append(turn(records, way, config.rate, config.batch_size))
    rows = [row_of(photos, cores, way, config.rate, turns) for way, turns in found.items()]
    slower = rows[-1]["decoded"] / SLOWER
    turns = [turn(records, "processes", slower, config.batch_size) for _ in range(config.rounds)]
    return [*rows, row_of(photos, cores, "processes", slower, turns)]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table."""
    shown = Table(
        "photos", "cores", "decoded in", "photos/s", "device, photos/s", "device idle", "first batch", "host, µs"
    )
    for row in rows:
        figures = (f"{row['decoded']:,.0f}", f"{row['device']:,.0f}", f"{row['idle']:.1%}", f"{row['start']:.2f} s")
        shown.add_row(row["photos"], str(row["cores"]), row["way"], *figures, f"{row['host'] * 1e6:,.0f}")
    return shown


def main(config: DecodingConfig) -> None:
    """Measures, prints the table, and keeps the results."""
    jax_environment.prepare()
    described = benchmark.machine()
    rows = measure(config)
    show(table(rows))
    path = config.out / f"decoding-{benchmark.slug(described)}.json"
    settings = {"photos": config.photos, "batch_size": config.batch_size, "rounds": config.rounds}
    sealed.write_json(path, {"machine": described, "settings": settings, "results": rows})
    console.print(f"written: {path}", markup=False)


if __name__ == "__main__":
    try:
        main(tyro.cli(DecodingConfig, prog="python -m scripts.benchmarks.decoding", description=__doc__))
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
