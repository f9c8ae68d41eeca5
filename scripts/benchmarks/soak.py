"""The soak of load.py: good requests, each answer checked, among what strangers send who mean it no good.

Each kind of hostile request is bounded in bytes and time, and has a status that is due.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import random
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress, TaskID
from rich.table import Table

from catdog_jax.console import progress_bar
from catdog_jax.photos.recipe import SIZE
from catdog_jax.serving import inference_protocol
from scripts.benchmarks.clients import (
    ASKED,
    PATIENCE,
    Address,
    Answer,
    Client,
    Photo,
    Server,
    binary,
    in_json,
    memory,
    multipart,
    read_answer,
    request,
    tensor,
)

TIMEOUTS = ("--body-timeout", "2", "--header-timeout", "2")  # of the server, lest slow clients make the soak last
_WARM_UP = 200  # requests before memory is looked at, at most
_TOLERANCE = 1e-3  # of a probability: a photo's rounding may depend on who shares its batch
_MOST = 100_000_000  # bytes of a body that is too large


class Hostile(NamedTuple):
    """A kind of request that means no good.

    Attributes:
      name: of the kind.
      due: the status of the answer; None where the client does not wait for one.
      pieces: of a good photo, what is sent, piece by piece.
      pause: seconds between pieces.
    """

    name: str
    due: int | None
    pieces: Callable[[bytes], Iterable[bytes]]
    pause: float = 0.0


async def attack(address: Address, kind: Hostile, photo: bytes) -> int | None:
    """Sends such a request; the status of the answer, or None without one.

    Raises:
      OSError: the server went away, or did not answer within `PATIENCE`.
    """
    async with asyncio.timeout(PATIENCE), _connection(address) as (reader, writer):
        sender = asyncio.create_task(_send(writer, kind, photo))
        try:
            if kind.due is None:
                await sender
                return None
            return (await read_answer(reader))[0]
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, kind: Hostile, photo: bytes) -> None:
    for piece in kind.pieces(photo):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(kind.pause)


@contextlib.asynccontextmanager
async def _connection(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, extra: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", zlib.compress(bytes(90))) + _chunk(b"IEND", b"")


_TEXT = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26), 9))  # 64 MB in 64 KB
_SLOW = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
_LARGE = _SLOW.replace(b"100000", str(_MOST).encode())
_ENDLESS = _SLOW.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
_PIECE = bytes(2**16)


def _whole(make: Callable[[bytes], bytes]) -> Callable[[bytes], Iterable[bytes]]:
    return lambda photo: [make(photo)]


def _cut(photo: bytes) -> bytes:
    return request("/predict", photo[: len(photo) // 2])


def _wrong_tensor(**changes: Any) -> Callable[[bytes], Iterable[bytes]]:
    data = tensor(np.zeros((SIZE, SIZE, 3), np.uint8), **changes)
    return lambda _: [data]


_BLANK = np.zeros((SIZE, SIZE, 3), np.uint8)


def _lie(name: str, **lies: Any) -> Hostile:
    """A tensor in binary, of which something is not true."""
    data = binary(_BLANK, **lies)
    return Hostile(f"binary: {name}", 400, lambda _: [data])


def _sized(size: Any) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}


def _in_binary() -> list[Hostile]:
    """Lengths that lie, sizes that overflow, types that are not there."""
    long = struct.pack("<I", 2**32 - 1) + b"x" * 9
    nobody = {"name": "ghost", "datatype": "UINT8", "shape": [9], **_sized(9)}
    two = {"inputs": [{**inference_protocol.INPUT, "shape": [1, *_BLANK.shape], **_sized(_BLANK.nbytes)}, nobody]}
    return [
        _lie("a header beyond the body", header="999999999"),
        _lie("a header of 30 digits", header="9" * 30),
        _lie("a header below 0", header="-1"),
        _lie("a header that is no number", header="0x10"),
        _lie("a header within the JSON", header="9"),
        _lie("a header without bytes behind", behind=b""),
        _lie("a byte too few", behind=_BLANK.tobytes()[1:]),
        _lie("10 MB too many", behind=bytes(10**7)),
        _lie("a size of 2^63", **_sized(2**63)),
        _lie("a size of 2^64 and the shape's", **_sized(2**64 + _BLANK.nbytes)),
        _lie("a size of 400 digits", **_sized(10**400)),
        _lie("a size below 0", **_sized(-_BLANK.nbytes)),
        _lie("a size in words", **_sized("all of it")),
        _lie("a shape whose size overflows", shape=[2**62, SIZE, SIZE, 3]),
        _lie("a shape of 2^32 × 2^32", shape=[2**32, 2**32]),
        _lie("texts longer than the body", behind=long, datatype="BYTES", **_sized(len(long))),
        _lie("a type that is not there", datatype="UINT128"),
        _lie("a type of another size", datatype="FP64"),
        _lie("two tensors for one", behind=_BLANK.tobytes() + bytes(9), whole=two),
        _lie("memory that is shared", parameters={"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 9}),
        _lie("a megabyte of brackets", header=str(2 * 10**5), behind=b"[" * 10**6),
    ]


def kinds() -> list[Hostile]:
    """Every kind."""
    infer = f"{inference_protocol.PATH}/infer"
    return [
        Hostile("no photo", 422, _whole(lambda photo: request("/predict", photo[::-1]))),
        Hostile("an empty body", 422, _whole(lambda _: request("/predict"))),
        Hostile("half a photo", 422, _whole(_cut)),
        Hostile("50,000 × 50,000 pixels", 422, _whole(lambda _: request("/predict", _png(50_000, 50_000)))),
        Hostile("a bomb of text", 422, _whole(lambda _: request("/predict", _png(9, 9, _TEXT)))),
        Hostile("a form without files", 400, _whole(lambda _: multipart([]))),
        Hostile("too many files", 400, _whole(lambda _: multipart([b"x"] * 17))),
        Hostile("no JSON", 400, _whole(lambda _: request(infer, b"{" * 1000, "application/json"))),
        Hostile("a tensor of another shape", 400, _wrong_tensor(shape=[1, 3, SIZE, SIZE])),
        Hostile("a tensor of texts", 400, _wrong_tensor(data=["x" * 10**6, *[""] * 10**5])),
        *_in_binary(),
        Hostile(
            "no base64",
            400,
            _whole(lambda _: request("/predict", b'{"photos": [{"data": "\xff"}]}', "application/json")),
        ),
        Hostile(
            "compressed", 415, _whole(lambda photo: request("/predict", photo, more=[("Content-Encoding", "gzip")]))
        ),
        Hostile("an unknown path", 404, _whole(lambda _: request("/" + "x" * 2000))),
        Hostile("an unknown model", 404, _whole(lambda _: request("/v2/models/other/infer"))),
        Hostile("another method", 405, _whole(lambda _: request("/predict", method="DELETE"))),
        Hostile("no HTTP", 400, _whole(lambda _: b"\x16\x03\x01\x02\r\n\r\n")),
        Hostile("100 MB", 413, lambda _: itertools.chain([_LARGE], itertools.repeat(_PIECE, _MOST // len(_PIECE)))),
        Hostile(
            "chunks without an end",
            413,
            lambda _: itertools.chain(
                [_ENDLESS], itertools.repeat(b"10000\r\n" + _PIECE + b"\r\n", _MOST // len(_PIECE))
            ),
        ),
        Hostile("a slow body", 408, lambda photo: [_SLOW, *(photo[i : i + 1] for i in range(300))], 0.2),
        Hostile("slow headers", 408, lambda _: [_SLOW[:30], *[b"x"] * 300], 0.2),
        Hostile("hangs up in the body", None, lambda photo: [_SLOW, photo[:5000]]),
        Hostile("hangs up before the answer", None, lambda photo: [request("/predict", photo)]),
    ]


# The soak


class Soak:
    """Requests good and hostile, and what became of them."""

    def __init__(self, server: Server, photos: Sequence[Photo], kinds_of_harm: Sequence[Hostile], seed: int):
        self._server, self._photos, self._kinds = server, photos, kinds_of_harm
        self._random = random.Random(seed)
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.wrong: list[str] = []
        self.deviation = 0.0
        self.again = 0
        self.resident: list[int | None] = []

    async def run(self, count: int, share: float, clients: int, progress: Progress, task: TaskID) -> None:
        """Sends so many requests, by so many clients; memory is looked at ten times."""
        marks = {count * i // 10 for i in range(1, 11)}
        order = iter(range(1, count + 1))

        async def client() -> None:
            connection = Client(self._server.address)
            for number in order:
                kind = self._random.choice(self._kinds) if self._random.random() < share else None
                try:
                    await (self._harm(kind) if kind else self._good(connection))
                except OSError as error:
                    self._miss(f"{kind.name if kind else 'good'}: {type(error).__name__} {error}")
                progress.advance(task)
                if number in marks:
                    self.resident.append(memory(self._server, "VmRSS"))
            connection.close()
            self.again += connection.again

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _harm(self, kind: Hostile) -> None:
        found = await attack(self._server.address, kind, self._random.choice(self._photos).data)
        self.outcomes[kind.name][str(found)] += 1
        if found != kind.due:
            self._miss(f"{kind.name}: expected {kind.due}, found {found}")

    async def _good(self, connection: Client) -> None:
        chosen = self._random.sample(self._photos, min(2, len(self._photos)))
        match self._random.randrange(10):
            case 0:
                answer = await connection.ask(tensor(chosen[0].pixels))
                found = [json.loads(answer.body)["outputs"][0]["data"]] if answer.status == 200 else []
                self._check("a tensor", chosen[:1], answer, found)
            case 1:
                answer = await connection.ask(binary(chosen[0].pixels))
                self._check("a tensor in binary", chosen[:1], answer, _behind(answer))
            case 2:
                answer = await connection.ask(multipart(photo.data for photo in chosen))
                self._check("two photos", chosen, answer, _verdicts(answer))
            case 3:
                answer = await connection.ask(in_json(photo.data for photo in chosen))
                self._check("two photos in JSON", chosen, answer, _verdicts(answer))
            case _:
                answer = await connection.ask(request(ASKED, chosen[0].data))
                self._check("a photo", chosen[:1], answer, _verdicts(answer))

    def _check(self, name: str, photos: Sequence[Photo], answer: Answer, found: list[list[float]]) -> None:
        self.outcomes[name][str(answer.status)] += 1
        if answer.status != 200 or len(found) != len(photos):
            self._miss(f"{name}: {answer.status} {answer.body[:100]!r}")
            return
        off = float(np.abs(np.array(found) - [photo.probabilities for photo in photos]).max())
        self.deviation = max(self.deviation, off)
        if off > _TOLERANCE:
            self._miss(f"{name}: probabilities off by {off:.2g}")

    def _miss(self, what: str) -> None:
        self.wrong.append(what)


def _behind(answer: Answer) -> list[list[float]]:
    """The first output of an answer in binary: the probabilities of one photo."""
    found = answer.body[answer.split :][:8]
    return [[*struct.unpack("<2f", found)]] if answer.split and len(found) == 8 else []


def _verdicts(answer: Answer) -> list[list[float]]:
    rows = json.loads(answer.body).get("predictions", [])
    return [[*row["probabilities"].values()] for row in rows if "probabilities" in row]


def soak(server: Server, photos: Sequence[Photo], count: int, share: float, clients: int, seed: int) -> dict[str, Any]:
    """Warms a server up by every kind of request, then sends it `count` more, a `share` of them hostile."""
    warm, found = (Soak(server, photos, kinds(), one) for one in (seed + 1, seed))
    with progress_bar("requests") as progress:
        first = min(_WARM_UP, count)
        asyncio.run(warm.run(first, 0.5, clients, progress, progress.add_task("warm-up", total=first)))
        before, begun = memory(server, "VmRSS"), time.perf_counter()
        asyncio.run(found.run(count, share, clients, progress, progress.add_task("soak", total=count)))
    took, wrong = time.perf_counter() - begun, [*warm.wrong, *found.wrong]
    return {
        "requests": count,
        "hostile share": share,
        "clients": clients,
        "seconds": took,
        "outcomes": {name: dict(counts) for name, counts in sorted(found.outcomes.items())},
        "not as expected": {"count": len(wrong), "first": wrong[:9]},
        "sent again on a new connection": found.again,
        "largest deviation of a probability": found.deviation,
        "resident MB": {"before": before, "on the way": found.resident, "peak": memory(server, "VmHWM")},
    }


def soak_table(result: dict[str, Any]) -> Table:
    """Counts by kind and status."""
    table = Table(
        "request", "answers: status × count", title=f"{result['requests']:,} requests in {result['seconds']:,.0f} s"
    )
    for name, counts in result["outcomes"].items():
        table.add_row(name, ", ".join(f"{status} × {count:,}" for status, count in counts.items()))
    table.add_row(
        "not as expected", f"{result['not as expected']['count']:,} {result['not as expected']['first'] or ''}"
    )
    table.add_row("resident MB", str(result["resident MB"]))
    return table
