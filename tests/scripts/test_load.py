"""What load.py, soak.py and clients.py do: whom they ask, what they count, and a short soak of a real server."""

import asyncio
import io
import json
import sys

import numpy as np
import pytest
from helpers.models import tiny_model
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from catdog_jax.errors import CatdogError, UsageError
from scripts.benchmarks import clients, load, soak


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("load") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 30 * (seed + 1), (224, 224, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("http://127.8.8.8", ("127.8.8.8", 80)),
        ("http://[::1]:9/", ("::1", 9)),
        ("http://localhost:1", ("127.0.0.1", 1)),
    ],
)
def test_this_machine_is_asked(url, address):
    assert clients.loopback(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://10.0.0.1:8000",
            "http://example.org",
            "http://0.0.0.0:8000",
            "http://169.254.169.254",
            "http://[::ffff:8.8.8.8]",
        ),
        *(
            "http://127.0.0.1.example.org",
            "http://127.0.0.1@example.org",
            "https://127.0.0.1",
            "http://127.0.0.1:99999",
            "",
            "x",
        ),
    ],
)
def test_no_other_machine_is_asked(url, capsys):
    with pytest.raises(
        UsageError, match=r"--url: expected a server on this machine such as http://127\.0\.0\.1:8000, found"
    ):
        clients.loopback(url)
    assert load.run(["--url", url]) == 2
    assert capsys.readouterr().err.startswith("error: --url: expected")


@pytest.mark.parametrize(
    "options",
    [
        *(["--requests", "1000000"], ["--hostile", "2"], ["--clients", "1000"], ["--clients", "0"]),
        *(["--rounds", "0"], ["--seconds", "1e9"], ["--photos", "0"]),
    ],
)
def test_load_is_bounded(options, capsys):
    assert load.run(options) == 2
    assert "expected" in capsys.readouterr().err


def test_without_photos_there_is_nothing_to_send(tmp_path, model, capsys):
    assert load.run(["--model", str(model), "--data", str(tmp_path)]) == 2
    assert "expected photos below it, found none" in capsys.readouterr().err


def test_a_row_is_what_a_hand_counts():
    turns = [load.Turn(rate, [0.1, 0.2, 0.3], share) for rate, share in ((9.0, 0.1), (11.0, 0.3), (10.0, 0.2))]
    row = load._row("single photos", 4, turns)
    assert row["photos/s"] == {"median": 10, "low": 9, "high": 11, "rounds": [9, 11, 10]}
    assert (row["p50 ms"], row["p99 ms"]) == pytest.approx((200, 300))
    assert (row["requests"], row["share of the machine that the clients took"]) == (9, 0.2)


def answered(body: bytes, status: int = 200) -> clients.Answer:
    return clients.Answer(status, body)


def test_an_answer_in_binary_is_read():
    behind = np.float32([0.25, 0.75, 9]).tobytes()
    assert soak._behind(clients.Answer(200, b"{}" + behind, 2)) == [[0.25, 0.75]]
    assert soak._behind(clients.Answer(200, b"{}", 0)) == soak._behind(clients.Answer(200, b"{}x", 2)) == []


def test_wrong_answers_are_counted():
    photo = clients.Photo(b"", np.zeros((224, 224, 3), np.uint8), np.array([0.25, 0.75]))
    found = soak.Soak(clients.Server(("127.0.0.1", 1), None), [photo], [], 0)
    found._check("a photo", [photo], answered(b"{}"), [[0.2504, 0.7496]])
    assert (found.wrong, found.deviation) == ([], pytest.approx(4e-4))
    found._check("a photo", [photo], answered(b"{}"), [[0.75, 0.25]])
    found._check("a photo", [photo], answered(b"{}"), [])
    found._check("a photo", [photo], answered(b'{"error": "busy"}', 503), [])
    assert [one.split(":")[1][:5] for one in found.wrong] == [" prob", " 200 ", " 503 "]
    assert found.outcomes["a photo"] == {"200": 3, "503": 1}


def test_a_server_that_gives_no_verdict_ends_the_measurement():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        writer.close()

    async def measure():
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            photo = clients.Photo(b"x", np.zeros((224, 224, 3), np.uint8), np.zeros(2))
            with pytest.raises(CatdogError, match=r"photo: expected the status 200, found 503: b'no'"):
                await load.ask_for(server.sockets[0].getsockname(), [photo], 1, 5)

    asyncio.run(measure())


def test_a_server_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(CatdogError, match=r"expected a server, found: error: .*expected an ONNX model"),
        clients.serving(None, tmp_path / "none.onnx"),
    ):
        pass


def test_a_soak_and_throughput_of_a_real_server(model, tmp_path, capsys):
    out = tmp_path / "serving.json"
    for seed in range(6):
        (tmp_path / f"{seed}.jpg").write_bytes(photo(seed))
    options = ["--model", str(model), "--data", str(tmp_path), "--out", str(out)]
    assert load.run([*options, "--requests", "40", "--hostile", "0.3", "--clients", "8"]) == 0
    assert load.run([*options, "--clients", "2", "--rounds", "1", "--seconds", "0.3"]) == 0
    found = json.loads(out.read_text())
    counts = found["soak"]["outcomes"]
    assert sum(sum(one.values()) for one in counts.values()) == 40
    assert set(counts["a photo"]) == {"200"}
    due = {kind.name: str(kind.due) for kind in soak.kinds()}
    hostile = counts.keys() - {"a photo", "two photos", "two photos in JSON", "a tensor", "a tensor in binary"}
    assert hostile <= due.keys()
    assert all(set(counts[name]) == {due[name]} for name in hostile)
    assert found["soak"]["not as expected"] == {"count": 0, "first": []}
    if sys.platform == "linux":
        assert 20 < found["soak"]["resident MB"]["before"] <= found["soak"]["resident MB"]["peak"] < 1000
    rows = {(row["side"], row["at once"]): row["photos/s"]["median"] for row in found["throughput"]["rows"]}
    assert rows.keys() == {(load.ALONE, 1), (load.ALONE, 8), ("batches of 8", 2), ("single photos", 2)}
    assert min(rows.values()) > 0
    assert "not as expected" in capsys.readouterr().out


@pytest.mark.parametrize("kind", soak.kinds(), ids=lambda kind: kind.name)
def test_every_kind_of_harm_gets_what_is_due(kind, server):
    assert asyncio.run(soak.attack(server.address, kind, photo(0))) == kind.due


@pytest.fixture(scope="module")
def server(model):
    with clients.serving(None, model, "--body-timeout", "0.5", "--header-timeout", "0.5") as found:
        yield found


@pytest.mark.parametrize("send", load.REQUESTS)
def test_every_kind_of_good_request_gets_its_answer(send, server):
    pixels = np.full((224, 224, 3), 140, np.uint8)
    turn = asyncio.run(load.ask_for(server.address, [clients.Photo(photo(3), pixels, np.zeros(2))], 2, 0.2, send))
    assert len(turn.latencies) >= 2
