"""A folder that photos arrive in: which of them are new since the last look, and complete."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from catdog_jax.console import say
from catdog_jax.errors import CatdogError
from catdog_jax.photos.folders import Walk
from catdog_jax.runtime.inputs import outside

_Status = tuple[int, int, int]  # length, time of the last change, number of the file


class Watch:
    """Looks at folders. A photo is complete when it is the same in two looks, one after the other.

    One that changes afterwards counts as new: a copy that stalled for longer than the time between
    two looks is seen again when it is whole.
    """

    def __init__(self, folders: Sequence[Path], without: Sequence[Path] = ()):
        """Watches folders, but for photos below those that are named as `without`."""
        self._folders = folders
        self._without = [folder.resolve() for folder in without]
        self._seen: dict[Path, _Status] = {}
        self._taken: dict[Path, _Status] = {}
        self._told = ""

    def look(self) -> list[Path]:
        """The photos that are new and complete, sorted within their folder. Never raises for what a folder holds."""
        try:
            photos = outside((photo for folder in self._folders for photo in Walk().photos(folder)), self._without)
        except CatdogError as error:  # a share that is away for a moment
            if str(error) != self._told:
                self._told = str(error)
                say(f"{error} Still watching.", "yellow")
            return []
        there = {photo: status for photo in photos if (status := _status(photo)) is not None}
        new = [photo for photo, status in there.items() if self._seen.get(photo) == status != self._taken.get(photo)]
        self._seen = there
        self._taken = {photo: status for photo, status in self._taken.items() if photo in there}
        self._taken |= {photo: there[photo] for photo in new}
        return new

    def looks(self, seconds: float, stop: threading.Event) -> Iterator[list[Path]]:
        """Yields what each look finds, every `seconds`, until `stop` is set; the second look is at most a second after."""
        yield self.look()
        stop.wait(min(seconds, 1))
        while not stop.is_set():
            yield self.look()
            stop.wait(seconds)


def _status(photo: Path) -> _Status | None:
    try:
        status = os.stat(photo)
    except OSError:  # it was there a moment ago
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextlib.contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, or SIGTERM, in place of ending what is at work; the second time they end it."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
