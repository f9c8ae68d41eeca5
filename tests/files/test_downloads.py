"""Downloads against a server on this machine: resumed, verified, mirrored, and clear about what went wrong."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import downloads
from catdog_jax.files.downloads import Download

CONTENT = np.random.default_rng(0).bytes(700_001)


@dataclass
class Server:
    """Serves `content` as /weights.bin, and remembers what was asked."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    says_length: bool = True
    stops_after: int | None = None
    silent_seconds: float = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def download(self, **changes) -> Download:
        values = {
            "url": f"{self.address}/weights.bin",
            "size": len(CONTENT),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
        }
        return Download(**values | {"mirror": "CATDOG_WEIGHTS_URL"} | changes)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "CATDOG_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(state.silent_seconds)
            wanted = self.headers["Range"]
            state.requests.append((self.path, wanted))
            if not self.path.endswith("/weights.bin"):
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and state.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            if state.says_length:
                self.send_header("Content-Length", str(len(state.content) - start))
            stop = len(state.content) if state.stops_after is None else start + state.stops_after
            with contextlib.suppress(ConnectionError):  # the client may have seen enough
                self.end_headers()
                self.wfile.write(state.content[start:stop])

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    path = downloads.fetch(server.download(), tmp_path / "new")
    assert path == tmp_path / "new" / "weights.bin"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["weights.bin"]
    assert downloads.fetch(server.download(), tmp_path / "new") == path
    assert server.requests == [("/weights.bin", None)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("says_length", [True, False])
def test_an_interrupted_download_continues_where_it_ended(server, tmp_path, says_length):
    server.says_length = says_length
    server.stops_after = 300_000
    for total in (300_000, 600_000):
        with pytest.raises(
            CatdogError, match=rf"expected 700,001 bytes, found the connection closed after {total:,}\. Run again"
        ):
            downloads.fetch(server.download(), tmp_path)
        assert names(tmp_path) == ["weights.bin.part"]
    assert downloads.fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert names(tmp_path) == ["weights.bin"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    assert downloads.fetch(server.download(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"], ids=["whole", "too long"])
def test_a_part_that_needs_no_continuation(server, tmp_path, part):
    (tmp_path / "weights.bin.part").write_bytes(part)
    assert downloads.fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert server.requests == ([] if part == CONTENT else [("/weights.bin", None)])


@pytest.mark.parametrize("start", [0, 1000])
def test_other_content_is_refused_and_removed(server, tmp_path, start):
    if start:
        (tmp_path / "weights.bin.part").write_bytes(bytes(start))  # what a broken proxy left behind
    else:
        server.content = bytes(len(CONTENT))
    with pytest.raises(
        CatdogError, match=r"/weights\.bin: expected sha256 \w{64}, found \w{64}: not the published file, removed"
    ):
        downloads.fetch(server.download(), tmp_path)
    assert names(tmp_path) == []


def test_a_page_in_place_of_the_file_is_refused_before_it_is_kept(server, tmp_path):
    server.content = b"<html>Please log in</html>"
    with pytest.raises(CatdogError, match=r"expected 700,001 bytes, found 26: not the published file"):
        downloads.fetch(server.download(), tmp_path)
    assert names(tmp_path) == []


def test_no_more_is_written_than_the_published_length(server, tmp_path):
    server.content, server.says_length = CONTENT + bytes(10**6), False
    assert downloads.fetch(server.download(), tmp_path).read_bytes() == CONTENT


def test_a_missing_file_and_a_missing_server_are_named(server, tmp_path):
    with pytest.raises(
        CatdogError, match=r"/nothing\.bin: expected a file, found HTTP 404 Not Found\. .*CATDOG_WEIGHTS_URL"
    ):
        downloads.fetch(server.download(url=f"{server.address}/nothing.bin"), tmp_path)
    with pytest.raises(CatdogError, match=r"^http://127\.0\.0\.1:1/weights\.bin: expected a file, found: .*refused"):
        downloads.fetch(server.download(url="http://127.0.0.1:1/weights.bin"), tmp_path)


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.05)
    server.silent_seconds = 0.5
    with pytest.raises(CatdogError, match="timed out"):
        downloads.fetch(server.download(), tmp_path)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_takes_the_place_of_the_published_address(server, tmp_path, monkeypatch, slash):
    monkeypatch.setenv("CATDOG_WEIGHTS_URL", f"{server.address}/mirror/of{slash}")
    published = server.download(url="https://weights.invalid/a/weights.bin")
    assert downloads.fetch(published, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/mirror/of/weights.bin", None)]


def test_a_mirror_that_is_no_address_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CATDOG_WEIGHTS_URL", "mirror.example")
    with pytest.raises(UsageError, match=r"^CATDOG_WEIGHTS_URL: expected a URL .*, found mirror\.example/weights\.bin"):
        downloads.fetch(server.download(), tmp_path)


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    published = server.download(url="http://weights.invalid/weights.bin")
    assert downloads.fetch(published, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("http://weights.invalid/weights.bin", None)]


def test_a_directory_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CatdogError, match="File exists"):
        downloads.fetch(server.download(), tmp_path / "file")
