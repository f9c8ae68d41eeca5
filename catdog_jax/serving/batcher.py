"""A micro-batcher: photos that wait at the same time are computed at once, on one worker thread; `Places` bound them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from catdog_jax.errors import CatdogError
from catdog_jax.serving.metrics import Metrics


class Answer(NamedTuple):
    """What a model says of a photo; with a leading N of a batch.

    Attributes:
      probabilities: float32 [2].
      heatmap: float32 [grid, grid], where it was asked for and the model has it.
      strangeness: a float32, where the model knows strangers.
    """

    probabilities: np.ndarray
    heatmap: np.ndarray | None
    strangeness: np.ndarray | None = None

    def of(self, photo: int, heatmap: bool) -> "Answer":
        """The answer for one photo of a batch, with its heat map where that is wanted."""
        cells = self.heatmap[photo] if heatmap and self.heatmap is not None else None
        return Answer(self.probabilities[photo], cells, None if self.strangeness is None else self.strangeness[photo])


class _Waiting(NamedTuple):
    photo: np.ndarray
    heatmap: bool
    since: float
    future: asyncio.Future[Answer]


class Busy(CatdogError):
    """There is no place for all photos of a request."""


class Places:
    """Room for so many photos at once: a request takes a place for each of its photos, all of them or none."""

    def __init__(self, total: int, metrics: Metrics):
        """Makes free places; `metrics` are told how many are taken."""
        self.total, self.taken, self._metrics = total, 0, metrics

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """A request's places, until its end: one, and as many as it turns out to have photos once it calls what it is given.

        Raises:
          Busy: fewer are free; the call raises it too.
        """
        own = 0

        def take(photos: int) -> None:
            nonlocal own
            if (more := photos - own) > (free := self.total - self.taken):
                raise Busy(
                    f"expected {more} free of {self.total} places for photos, found {free}. Try again in a moment."
                )
            self.taken, own = self.taken + more, photos
            self._metrics.photos_in_flight.set(self.taken)

        take(1)
        with self._metrics.requests_in_flight.track_inprogress():
            try:
                yield take
            finally:
                self.taken -= own
                self._metrics.photos_in_flight.set(self.taken)


class Batcher:
    """Computes photos in batches: `await batcher(photo, heatmap)` between `start` and `stop`, all on one event loop."""

    def __init__(self, model: Callable[[np.ndarray, bool], Answer], *, size: int, wait: float, metrics: Metrics):
        """Makes a batcher.

        Args:
          model: uint8 [N, size, size, 3], and whether heat maps are wanted -> the answers of the batch.
            It is called by one thread only.
          size: photos a batch at most.
          wait: seconds that a batch waits for those that are `coming`, once it has a photo.
          metrics: are told of each photo's wait and of each batch.
        """
        self._model, self._size, self._wait, self._metrics = model, size, wait, metrics
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        self._coming = 0

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """While a photo is on its way here; a batch does not wait where none is."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def start(self) -> None:
        """Begins to take photos from the queue."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends; who still waits is cancelled. The server has answered every request by then."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().future.cancel()
        self._worker.shutdown(cancel_futures=True)

    async def __call__(self, photo: np.ndarray, heatmap: bool) -> Answer:
        """The answer for one photo, uint8 [size, size, 3], with a heat map where one is wanted and the model has it.

        Raises:
          CatdogError: the model has no answer for this photo.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(photo, heatmap, time.perf_counter(), future))
        return await future

    async def _run(self) -> None:
        while True:
            batch = await self._collect()
            waiting = [one for one in batch if not one.future.done()]  # a caller may have gone away
            if waiting:
                now = time.perf_counter()
                for one in waiting:
                    self._metrics.queue.observe(now - one.since)
                await self._compute(waiting)

    async def _collect(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        try:
            async with asyncio.timeout(self._wait):
                while len(batch) < self._size and (self._coming or not self._queue.empty()):
                    batch.append(await self._queue.get())
        except TimeoutError:
            pass
        return batch

    async def _compute(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            photos = np.stack([one.photo for one in batch])
            wanted = any(one.heatmap for one in batch)
            self._metrics.batch.observe(len(batch))
            with self._metrics.compute.time():
                answers = await loop.run_in_executor(self._worker, self._model, photos, wanted)
        except Exception as error:
            if len(batch) > 1:  # one photo must not spoil the others' answers
                for alone in batch:
                    await self._compute([alone])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for i, one in enumerate(batch):
            if not one.future.done():
                one.future.set_result(answers.of(i, one.heatmap))
