"""How large the pictures in an AVIF file really are, told without decoding them.

The container says a size, and the AV1 stream in it may say a larger one. The decoder makes room for
what the stream says and only then makes it small, so a file of a few hundred bytes could ask for
gigabytes. Read here: ISO/IEC 14496-12 (boxes, `iloc`) and AV1's sequence header (5.5 of its
specification).
"""

import struct
from collections.abc import Iterator

from catdog_jax.errors import CatdogError

_MOST_UNITS = 10_000  # of all streams of a file; a picture has some tens
_SEQUENCE_HEADER = 1


class StreamError(CatdogError):
    """The file is no single picture, or is damaged."""


def largest(data: bytes) -> int:
    """The most pixels that an AV1 stream of a file may have; 0 where there is no stream.

    Raises:
      StreamError: with the reason.
    """
    tracks = any(kind == b"moov" for kind, *_ in _boxes(data, 0, len(data)))
    if data[8:12] == b"avis" or (tracks and data[8:12] != b"avif"):  # libavif then reads the tracks
        raise StreamError("expected an AVIF of one picture, found a sequence")
    sizes, units = [0], 0
    try:
        for item in _items(data):
            for kind, body in _units(item):
                units += 1
                if units > _MOST_UNITS:
                    raise StreamError(f"expected an AVIF of at most {_MOST_UNITS:,} units, found more")
                if kind == _SEQUENCE_HEADER:
                    sizes.append(_pixels(body))
    except (struct.error, IndexError):
        raise StreamError("damaged or truncated: its AVIF boxes end early") from None
    return max(sizes)


def _boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its content begins and ends."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, begin + 8), 16
        size = size or end - begin
        if size < head:
            return
        yield kind, begin + head, min(begin + size, end)
        begin += size


def _items(data: bytes) -> Iterator[bytes]:
    """The bytes of every item that a file stores, of all its `meta` boxes."""
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            inside = [*_boxes(data, begin + 4, end)]
            stores = [data[a:b] for name, a, b in inside if name == b"idat"]
            for name, a, b in inside:
                if name == b"iloc":
                    yield from _located(data, data[a:b], stores[0] if stores else b"")


def _located(data: bytes, box: bytes, store: bytes) -> Iterator[bytes]:
    version, place = box[0], 6
    long = version == 2

    def number(size: int) -> int:
        nonlocal place
        if place + size > len(box):
            raise IndexError
        place += size
        return int.from_bytes(box[place - size : place])

    offset, length, base, index = box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15
    left = 2 * len(data)  # items may overlap a little, not multiply
    for _ in range(number(4 if long else 2)):
        number(4 if long else 2)
        source = store if version and number(2) & 15 == 1 else data
        number(2)
        start, parts = number(base), []
        for _ in range(number(2)):
            number(index if version else 0)
            begin = start + number(offset)
            parts.append(source[begin : begin + (number(length) or len(source))])
            left -= len(parts[-1])
            if left < 0:
                raise StreamError("damaged or truncated: its items are longer than the file")
        yield b"".join(parts)


def _units(item: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the content of each unit of a stream."""
    place = 0
    while place < len(item):
        head = item[place]
        place += 1 + (head >> 2 & 1)
        size = len(item)
        if head & 2:
            size = 0
            for byte in range(8):
                size |= (item[place] & 127) << 7 * byte
                place += 1
                if item[place - 1] < 128:
                    break
        yield head >> 3 & 15, item[place : place + min(size, 256)]
        place += size


def _pixels(header: bytes) -> int:
    """The largest width by height of a sequence header."""
    bits, place = int.from_bytes(header), 8 * len(header)

    def read(count: int) -> int:
        nonlocal place
        place -= count
        if place < 0:
            raise IndexError
        return bits >> place & (1 << count) - 1

    read(4)  # profile, still picture
    if read(1):  # reduced header
        read(5)
    else:
        delay = 0
        if read(1):  # timing
            read(64)
            if read(1):  # a number that begins with as many zeros as it has bits
                zeros = 0
                while not read(1):
                    zeros += 1
                read(min(zeros, 32))
            if read(1):  # decoder model
                delay = read(5) + 1
                read(42)
        display = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay and read(1):
                read(2 * delay + 1)
            if display and read(1):
                read(4)
    width, height = read(4) + 1, read(4) + 1
    return (read(width) + 1) * (read(height) + 1)
