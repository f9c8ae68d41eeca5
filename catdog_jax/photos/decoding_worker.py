"""A process that decodes photos for another one. `decoding_pool` starts it; it imports what decoding needs, and no more.

Requests come on its standard input, answers go to its standard output, and pixels into memory that
both processes share. A message is its length in 8 bytes, and a value of `marshal`: the same
interpreter is at both ends. The process ends, whatever it is doing, when the other end of its input
is closed, which the system does where the parent is killed.
"""

import contextlib
import json
import marshal
import mmap
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DecodingRecipe

PIXELS, KNOWN, REFUSED, FAILED = range(4)  # what became of a photo
IDLE = -1  # the place of the photo in work, where there is none
MOST = 1024  # processes
_HEADER = 4 * MOST
_LENGTH = struct.Struct("<Q")


class Photo(NamedTuple):
    """A photo to decode.

    Attributes:
      slot: where in the shared memory its pixels go.
      source: the path of its file, or its bytes.
      known: of bytes with this SHA-256 no pixels are wanted; may be empty.
    """

    slot: int
    source: str | bytes
    known: str


class Answer(NamedTuple):
    """What became of a photo.

    Attributes:
      status: PIXELS, KNOWN, REFUSED (it is no photo that can be used) or FAILED (anything else,
        about which the parent decides).
      sha256: of its bytes; empty where there were none to be had.
      reason: why there are no pixels; may be empty.
    """

    status: int
    sha256: str
    reason: str


def size_of(slots: int, side: int) -> int:
    """The bytes of shared memory with so many slots, for photos of so many pixels a side."""
    return _HEADER + slots * 3 * side**2


def views(memory: mmap.mmap, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What is in the shared memory: int32 [`MOST`], the place of the photo that each process works on; and the slots."""
    places = np.frombuffer(memory, np.int32, MOST)
    return places, np.frombuffer(memory, np.uint8, offset=_HEADER).reshape(-1, side, side, 3)


def send(pipe: IO[bytes], message: Any) -> None:
    """Writes a message. Raises BrokenPipeError where nobody reads."""
    content = marshal.dumps(message)
    pipe.write(_LENGTH.pack(len(content)) + content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Reads a message. Raises EOFError where the other end is closed."""
    length = pipe.read(_LENGTH.size)
    content = pipe.read(_LENGTH.unpack(length)[0]) if len(length) == _LENGTH.size else b""
    if not content:
        raise EOFError
    return marshal.loads(content)


def decode(photo: Photo, recipe: DecodingRecipe, slots: np.ndarray) -> Answer:
    """Puts a photo's pixels into its slot."""
    digest = ""
    try:
        data = photo.source if isinstance(photo.source, bytes) else decoding.read_photo(Path(photo.source))
        digest = atomic.sha256(data)
        if digest == photo.known:
            return Answer(KNOWN, digest, "")
        slots[photo.slot] = decoding.decode(data, recipe)
        return Answer(PIXELS, digest, "")
    except decoding.UnreadableError as error:
        return Answer(FAILED, digest, str(error))
    except decoding.ImageError as error:
        return Answer(REFUSED, digest, str(error))
    except Exception:
        return Answer(FAILED, digest, traceback.format_exc())


def _requests(pipe: IO[bytes]) -> Iterable[Any]:
    """The requests, read by a thread of their own, so that the end of the parent is seen in the middle of a photo."""
    waiting = queue.SimpleQueue[Any]()

    def read() -> None:
        while True:
            try:
                waiting.put(receive(pipe))
            except EOFError:
                os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(waiting.get, None)


def main(descriptor: int, size: int, index: int, recipe: str) -> None:
    """Serves requests until the parent ends: lists of `Photo` come, lists of `Answer` go.

    Args:
      descriptor: an open file, which is the shared memory.
      size: its length in bytes.
      index: which of the processes this is.
      recipe: of decoding, as JSON.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and a scheduler's word are the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory runs out, the system is to end this process, not its parent
        Path("/proc/self/oom_score_adj").write_text("500")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    by = DecodingRecipe.from_json(json.loads(recipe))
    places, slots = views(mmap.mmap(descriptor, size), by.size)
    os.close(descriptor)
    try:
        send(answers, "ready")
        for request in _requests(sys.stdin.buffer):
            done = []
            for place, photo in enumerate(request):
                places[index] = place
                done.append(tuple(decode(Photo(*photo), by, slots)))
            places[index] = IDLE
            send(answers, done)
    except BrokenPipeError:
        os._exit(0)
