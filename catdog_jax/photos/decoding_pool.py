"""Photos decoded in processes of their own: many cores decode, where threads would wait for the interpreter's lock.

A thread a process asks for some photos at a time (`decoding_worker` answers). The process reads a
file by itself; a photo that comes from elsewhere, as those of a TFDS data set, is read by the
thread and sent. Pixels come back in a ring of shared memory without a name, so that nothing is left
behind whoever is killed, and the size of /dev/shm does not matter. The processes are started afresh,
not forked: no thread or lock of JAX is copied, and the user's main module is not run again.
"""

import collections
import contextlib
import functools
import itertools
import json
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType

from catdog_jax.config import cores
from catdog_jax.console import say
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding, folders, prefetch, sources
from catdog_jax.photos import decoding_worker as worker
from catdog_jax.photos.dataset import Record
from catdog_jax.photos.decoding_worker import Answer, Photo
from catdog_jax.photos.prefetch import Decoded
from catdog_jax.photos.recipe import DecodingRecipe

_TOGETHER = 16  # photos of a request
_BYTES_TOGETHER = 2**20  # that are sent with a request, but for one photo that is larger
_TRIES = 3  # processes that a photo may end
_START = """import sys
sys.path[:] = sys.argv[5:]
from catdog_jax.photos import decoding_worker
decoding_worker.main(*map(int, sys.argv[1:4]), sys.argv[4])"""


class _UnavailableError(Exception):
    """Processes cannot decode here; the message says why."""


class _EndedError(Exception):
    """A process has ended while it was to answer.

    Attributes:
      place: of the photo that it worked on, in the request; `decoding_worker.IDLE` where none.
      how: the signal or the exit status.
    """

    def __init__(self, place: int, how: str):
        super().__init__(how)
        self.place, self.how = place, how


def decoded(
    records: Iterable[Record],
    workers: int | None,
    ahead: int,
    recipe: DecodingRecipe,
    known: Mapping[str, str] = MappingProxyType({}),
) -> Generator[Decoded, None, None]:
    """Yields what `prefetch.decoded` yields, decoded in processes; in threads where that cannot be, which is said.

    A photo's pixels are there until the next photo is asked for: copy what is to stay.

    `workers` are processes, None for one a core; `ahead`, `recipe` and `known` are as of `prefetch.decoded`.

    Raises:
      CatdogError: the system cannot read a photo, twice; or decoding it ends its process, three
        times.
    """
    try:
        pool = _Pool(min(workers or cores(), worker.MOST), ahead, recipe)
    except _UnavailableError as error:
        say(f"photos are decoded in threads, because {error}", "yellow")
        yield from prefetch.decoded(records, workers, ahead, recipe, known)
        return
    try:
        yield from pool.decoded(records, known)
    finally:
        pool.close()


class _Memory:
    """Memory that processes share, as an open file without a name.

    Attributes:
      descriptor: the file.
      chunks: how many requests have their slots in it.
      places: see `decoding_worker.views`.
      slots: likewise.
    """

    def __init__(self, chunks: int, least: int, side: int):
        """Takes memory for so many requests; for fewer where there is less, which is said, and for `least` at least.

        A photo has so many pixels a side.
        """
        self.chunks, wanted = chunks, chunks
        while True:
            size = worker.size_of(self.chunks * _TOGETHER, side)
            try:
                self.descriptor = _open_memory(size)
                break
            except OSError as error:
                if self.chunks == least:
                    raise _UnavailableError(
                        f"{size / 1e6:,.0f} MB of memory to share were expected, and found: {error.strerror or error}"
                    ) from None
                self.chunks = max(least, self.chunks // 2)
        if self.chunks < wanted:
            say(
                f"there is memory to share for {self.chunks * _TOGETHER:,} decoded photos only; decoding may wait",
                "yellow",
            )
        self.size = size
        self.places, self.slots = worker.views(mmap.mmap(self.descriptor, size), side)


def _open_memory(size: int) -> int:
    """A file in memory, where there are such, or in the folder of temporary files; its bytes are there for sure.

    Raises:
      OSError: there is not as much.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("catdog-photos")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.truncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class _Process:
    """One process. Where it has ended, the next question starts it again."""

    def __init__(self, memory: _Memory, index: int, recipe: DecodingRecipe):
        self._memory, self._index, self._recipe = memory, index, json.dumps(recipe.to_json())
        self._lock = threading.Lock()
        self._closed = False
        self._popen: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, without waiting. It is in a group of its own, which Ctrl-C in a terminal does not reach."""
        path = [str(folder) or os.getcwd() for folder in sys.path]
        numbers = (self._memory.descriptor, self._memory.size, self._index)
        with self._lock:
            if self._closed:
                raise _EndedError(worker.IDLE, "closed")
            self._memory.places[self._index] = worker.IDLE
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _START, *map(str, numbers), self._recipe, *path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(self._memory.descriptor,),
                process_group=0,
            )

    def wait_until_ready(self) -> None:
        """Waits for the process to have imported what it needs. Raises _EndedError where it ends before."""
        self._receive()

    def ask(self, photos: Sequence[Photo]) -> list[Answer]:
        """What becomes of photos. Raises _EndedError where the process ends before, and OSError where it cannot start."""
        if self._popen is None:
            self.start()
            self.wait_until_ready()
        self._memory.places[self._index] = worker.IDLE
        assert self._popen is not None
        assert self._popen.stdin is not None
        try:
            worker.send(self._popen.stdin, [tuple(photo) for photo in photos])
        except OSError:
            raise self._ended() from None
        return [Answer(*answer) for answer in self._receive()]

    def _receive(self) -> list[tuple[int, str, str]]:
        assert self._popen is not None
        assert self._popen.stdout is not None
        try:
            return worker.receive(self._popen.stdout)
        except (EOFError, OSError, ValueError):
            raise self._ended() from None

    def _ended(self) -> _EndedError:
        status = self._end()
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        return _EndedError(int(self._memory.places[self._index]), how)

    def _end(self) -> int:
        """Waits for the process, and closes what led to it; its exit status."""
        with self._lock:
            popen, self._popen = self._popen, None
        if popen is None:
            return 0
        popen.kill()  # where it has closed its pipes, and not ended yet
        for pipe in (popen.stdin, popen.stdout):
            with contextlib.suppress(OSError):  # what was still to be sent
                assert pipe is not None
                pipe.close()
        return popen.wait()

    def kill(self) -> None:
        """Ends it for good; whoever waits for its answer gets an _EndedError."""
        with self._lock:
            self._closed = True
            if self._popen is not None:
                self._popen.kill()

    def close(self) -> None:
        """Ends it for good, when nobody waits for its answer any more."""
        self.kill()
        self._end()


class _Pool:
    """Processes, and a thread for each."""

    def __init__(self, workers: int, ahead: int, recipe: DecodingRecipe):
        """Starts the processes.

        Raises:
          _UnavailableError: they do not start, or there is too little memory to share.
        """
        if os.name != "posix":
            raise _UnavailableError("this system cannot give processes a file without a name")
        if not sys.executable:
            raise _UnavailableError("Python does not know its own program")
        self._memory = _Memory(max(-(-ahead // _TOGETHER), 2 * workers), workers, recipe.size)
        self._recipe = recipe
        self._threads = ThreadPoolExecutor(workers)
        self._processes: list[_Process] = []
        self._idle = queue.SimpleQueue[_Process]()
        self._closed = False
        try:
            for index in range(workers):
                self._processes.append(_Process(self._memory, index, recipe))
            for process in self._processes:
                process.wait_until_ready()
                self._idle.put(process)
        except (OSError, _EndedError) as error:
            self.close()
            how = f"with {error}" if isinstance(error, _EndedError) else f"({error.strerror or error})"
            raise _UnavailableError(f"a process that decodes ended at its start, {how}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes and threads at once."""
        self._closed = True
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()
        os.close(self._memory.descriptor)

    def decoded(self, records: Iterable[Record], known: Mapping[str, str]) -> Iterator[Decoded]:
        """See `decoded`. As many requests are on their way as the memory has room for."""
        source = iter(records)
        chunks = enumerate(iter(lambda: [*itertools.islice(source, _TOGETHER)], []))
        waiting = collections.deque[Future[list[Decoded | Exception]]]()
        while True:
            for number, chunk in itertools.islice(chunks, self._memory.chunks - len(waiting)):
                waiting.append(self._threads.submit(self._decode, number, chunk, known))
            if not waiting:
                return
            for photo in waiting.popleft().result():
                if isinstance(photo, Exception):
                    raise photo
                yield photo

    def _decode(self, number: int, records: Sequence[Record], known: Mapping[str, str]) -> list[Decoded | Exception]:
        """The photos of a request, up to the first that raises, with what it raises."""
        slots = itertools.count(number % self._memory.chunks * _TOGETHER)
        found: list[Decoded | Exception] = []
        process = self._idle.get()
        try:
            for part in _parts(records, slots, known):
                if isinstance(part, Decoded | Exception):
                    found.append(part)
                else:
                    found += self._asked(process, part, known)
                if isinstance(found[-1], Exception):
                    break
        finally:
            self._idle.put(process)
        return found

    def _asked(
        self, process: _Process, part: Sequence[tuple[Record, Photo]], known: Mapping[str, str]
    ) -> list[Decoded | Exception]:
        """What a process makes of photos, which is started again where it ends; up to the first that raises."""
        ended = collections.Counter[int]()
        while True:
            try:
                answers = process.ask([photo for _, photo in part])
                return [self._made(*one, answer, known) for one, answer in zip(part, answers, strict=True)]
            except OSError as error:
                return [_cannot_start(error.strerror or str(error))]
            except _EndedError as error:
                if self._closed:
                    raise
                place = error.place
                ended[place] += 1
                if ended[place] == _TRIES and place == worker.IDLE:
                    return [_cannot_start(error.how)]
                if ended[place] == _TRIES:
                    before = self._asked(process, part[:place], known) if place else []
                    return [*before, _failure(part[place][0], error.how)]
                what = (
                    "a process that decodes ended"
                    if place == worker.IDLE
                    else f"{part[place][0].id!r}: its process ended"
                )
                say(f"{what} ({error.how}); another one decodes it again", "yellow")

    def _made(self, record: Record, photo: Photo, answer: Answer, known: Mapping[str, str]) -> Decoded | Exception:
        if answer.status == worker.FAILED:  # a disk that fails once, for instance: here, it raises what threads raise
            try:
                return prefetch.decode_record(record, self._recipe, known)
            except Exception as error:
                return error
        pixels = self._memory.slots[photo.slot] if answer.status == worker.PIXELS else None
        return Decoded(record, answer.sha256, pixels, answer.reason)


def _cannot_start(reason: str) -> CatdogError:
    return CatdogError(
        f"--decode-in processes: expected processes that start and stay, found {reason}. Use --decode-in threads, or fewer "
        "--workers; then go on."
    )


def _failure(record: Record, how: str) -> CatdogError:
    return CatdogError(
        f"{record.id!r}: expected a photo that can be decoded, found that decoding it ends the process, {_TRIES} times "
        f"({how}). Leave it out with --exclude FILE, or use fewer --workers where memory is short; then go on."
    )


def _parts(
    records: Sequence[Record], slots: Iterator[int], known: Mapping[str, str]
) -> Iterator[list[tuple[Record, Photo]] | Decoded | Exception]:
    """The photos in the portions in which a process is asked for them, and those for which there is nothing to ask."""
    part: list[tuple[Record, Photo]] = []
    sent = 0
    for record, slot in zip(records, slots, strict=False):
        source: str | bytes | None = _file_of(record)
        if source is None:
            try:
                source = sources.read_patiently(record)
            except Exception as error:
                yield from [part] if part else []
                part, sent = [], 0
                refused = isinstance(error, decoding.ImageError)
                yield Decoded(record, "", None, str(error)) if refused else error
                continue
            sent += len(source)
        part.append((record, Photo(slot, source, known.get(record.id, ""))))
        if sent >= _BYTES_TOGETHER:
            yield part
            part, sent = [], 0
    if part:
        yield part


def _file_of(record: Record) -> str | None:
    """The file that a record reads, so that another process can; None where it reads anything else."""
    match record.read:
        case functools.partial(func=decoding.read_photo, args=(path,), keywords={}):
            return str(path)
        case functools.partial(func=folders.read_below, args=(root, name), keywords={}):
            return str(root / name)
    return None
