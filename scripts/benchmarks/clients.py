"""What load.py and soak.py ask `catdog serve` with: a server of its own process, photos with their verdicts, an HTTP client.

Nothing but a loopback address is ever connected to.
"""

import asyncio
import base64
import contextlib
import ipaddress
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, folders
from catdog_jax.photos.demo import drawing
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import inference_protocol

ASKED = "/predict?include=probabilities"
PATIENCE = 60.0  # seconds for an answer
Address = tuple[str, int]


class Answer(NamedTuple):
    """What came back; `split` is where the JSON ends that bytes are behind, 0 where none are."""

    status: int
    body: bytes
    split: int = 0


def loopback(url: str) -> Address:
    """The address of a server on this machine.

    Raises:
      UsageError: it is another machine's, or none.
    """
    try:
        parts = urlsplit(url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        if parts.scheme == "http" and ipaddress.ip_address(host).is_loopback and parts.path in ("", "/"):
            return host, parts.port or 80
    except ValueError:
        pass
    raise UsageError(f"--url: expected a server on this machine such as http://127.0.0.1:8000, found {url!r}.")


def request(
    path: str,
    body: bytes = b"",
    kind: str = "application/octet-stream",
    method: str = "POST",
    more: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The bytes of a request; `more` are headers, as they are sent."""
    headers = [("Host", "localhost"), ("Content-Type", kind), ("Content-Length", str(len(body))), *more]
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body


def multipart(photos: Iterable[bytes]) -> bytes:
    """A request with several photos."""
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="%d"\r\n\r\n%b\r\n' % one
        for one in enumerate(photos)
    ]
    return request(ASKED, b"".join([*parts, b"--B--\r\n"]), "multipart/form-data; boundary=B")


def in_json(photos: Iterable[bytes]) -> bytes:
    """The same in JSON."""
    body = {"photos": [{"data": base64.b64encode(photo).decode()} for photo in photos]}
    return request(ASKED, json.dumps(body).encode(), "application/json")


def tensor(pixels: np.ndarray, **changes: Any) -> bytes:
    """A request of the Open Inference Protocol for one photo, uint8 [size, size, 3]."""
    image = {**inference_protocol.INPUT, "shape": [1, *pixels.shape], "data": pixels.ravel().tolist(), **changes}
    return request(f"{inference_protocol.PATH}/infer", json.dumps({"inputs": [image]}).encode(), "application/json")


def binary(
    pixels: np.ndarray, behind: bytes | None = None, header: str | None = None, whole: Any = None, **changes: Any
) -> bytes:
    """The same in binary: the tensor behind the JSON, its answer too.

    What is given in its place may lie: the bytes `behind`, the `header` of their beginning, the `whole`
    JSON, and parts of the tensor.
    """
    size = {"parameters": {"binary_data_size": pixels.nbytes}}
    image = {**inference_protocol.INPUT, "shape": [1, *pixels.shape], **size, **changes}
    asked = {"inputs": [image], "parameters": {"binary_data_output": True}} if whole is None else whole
    head = json.dumps(asked).encode()
    body = head + (pixels.tobytes() if behind is None else behind)
    length = (inference_protocol.HEADER, str(len(head)) if header is None else header)
    return request(f"{inference_protocol.PATH}/infer", body, more=[length])


class Client:
    """A client that keeps its connection, as programs do, and opens another where the server closed it.

    Attributes:
      again: requests that were sent again because the server closed an idle connection just then.
    """

    def __init__(self, address: Address):
        self._address = address
        self.again = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Answer:
        """The answer to a request.

        Raises:
          OSError: the server went away, or did not answer within `PATIENCE`.
        """
        kept = self._streams is not None
        try:
            async with asyncio.timeout(PATIENCE):
                self._streams = self._streams or await asyncio.open_connection(*self._address)
                self._streams[1].write(data)
                return await self._answer(self._streams[0])
        except BaseException as error:
            self.close()
            if not kept or not isinstance(error, ConnectionError):
                raise
        self.again += 1
        return await self.ask(data)

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        status, head, body = await read_answer(reader)
        if "connection: close" in head:
            self.close()
        return Answer(status, body, header_number(head, inference_protocol.HEADER))

    def close(self) -> None:
        """Hangs up."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Status, head (in small letters) and body of the next answer."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        return int(head.split()[1]), head, await reader.readexactly(header_number(head, "content-length"))
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("the server hung up") from None


def header_number(head: str, name: str) -> int:
    """The number that a header has; 0 without it."""
    return next((int(line[len(name) + 1 :]) for line in head.splitlines() if line.startswith(f"{name}:")), 0)


# Servers and photos


class Photo(NamedTuple):
    """A photo, and what the model says of it without a server."""

    data: bytes
    pixels: np.ndarray
    probabilities: np.ndarray


class Server(NamedTuple):
    """A server, and its process where it is ours."""

    address: Address
    process: subprocess.Popen[bytes] | None


@contextlib.contextmanager
def serving(url: str | None, model: Path, *options: str) -> Iterator[Server]:
    """A `catdog serve` of its own process, or the one that runs already.

    Raises:
      CatdogError: it does not start, or does not end in peace and with nothing to say.
    """
    if url is not None:
        yield Server(loopback(url), None)
        return
    command = [sys.executable, "-m", "catdog_jax", "serve", "--port", "0", "--model", str(model)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, *options], stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield Server(_announced(process, log), process)
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
        if status != 0 or len(lines) > 1:
            raise CatdogError(f"catdog serve: expected status 0 and one line, found {status} and {lines[1:4]}.")


def _announced(process: subprocess.Popen[bytes], log: Any) -> Address:
    while process.poll() is None:
        log.seek(0)
        lines = log.read().decode(errors="replace").replace("\n", " ")
        if lines.endswith("/ "):
            return loopback(lines.split()[-1])
        time.sleep(0.05)
    raise CatdogError(f"catdog serve: expected a server, found: {lines}")


def memory(server: Server, what: str) -> int | None:
    """MB of the server's process: VmRSS now, VmHWM at most; None where the system does not tell."""
    try:
        text = Path(f"/proc/{server.process.pid}/status").read_text() if server.process else ""
        return next(int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith(what))
    except (OSError, StopIteration):
        return None


def load_photos(source: str, count: int, predictor: Predictor) -> list[Photo]:
    """So many photos, evenly from all of a folder (`demo`: drawn ones), with their verdicts.

    Raises:
      CatdogError: there are none, or one does not decode.
    """
    root = drawing.draw_once() if source == "demo" else Path(source)
    files = folders.Walk().photos(root)
    if not files:
        raise UsageError(f"--data: {root}: expected photos below it, found none.")
    contents = [path.read_bytes() for path in files[:: max(1, len(files) // count)][:count]]
    pixels = [decoding.decode(content, predictor.recipe) for content in contents]
    return [Photo(*one, predictor.probabilities(one[1][None])[0]) for one in zip(contents, pixels, strict=True)]
