"""The server on a tiny model, through a real socket."""

import asyncio
import concurrent.futures
import contextlib
import json
import math
import re
import socket
import threading
import time

import numpy as np
import pytest
from helpers.models import probability_of_dogs, tiny_model
from helpers.serving import FORM, ask, multipart, photo, sent, started

from catdog_jax.config import ServeConfig
from catdog_jax.errors import UsageError
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.runtime.decision import Rule

serving_app = pytest.importorskip("catdog_jax.serving.app", reason="the extra `serve` is not installed")
serve_command = pytest.importorskip("catdog_jax.commands.serve")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


@pytest.fixture(scope="module")
def server(model):
    with started(model, "--max-body", "2000000", "--body-timeout", "1", "--header-timeout", "1") as url:
        yield url


def test_a_raw_photo_gets_its_probability(server):
    status, body, _ = ask(f"{server}/predict", photo(140), content_type="image/png")
    (row,) = json.loads(body)["predictions"]
    assert (status, row["class"]) == (200, "dogs")
    assert row["probability"] == pytest.approx(probability_of_dogs(140), abs=1e-5)


def test_one_bad_photo_fails_alone(server):
    body = multipart(photo(100), b"no photo", photo(160))
    status, answer, _ = ask(f"{server}/predict", body, content_type="multipart/form-data; boundary=B")
    rows = json.loads(answer)["predictions"]
    assert (status, [row["name"] for row in rows], [row.get("class") for row in rows]) == (
        200,
        [*"012"],
        ["cats", None, "dogs"],
    )
    assert "expected JPEG" in rows[1]["error"]


def test_tensors(server):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": [140] * 224 * 224 * 3}
    url = f"{server}/v2/models/catdog/infer"
    status, body, _ = ask(url, json.dumps({"inputs": [tensor]}).encode())
    expected = probability_of_dogs(140)
    np.testing.assert_allclose(json.loads(body)["outputs"][0]["data"], [1 - expected, expected], atol=1e-5)
    nested = np.full((1, 224, 224, 3), 140).tolist()
    assert json.loads(ask(url, json.dumps({"inputs": [{**tensor, "data": nested}]}).encode())[1]) == json.loads(body)
    texts = ["x" * 10**6, *[""] * 2 * 10**5]  # an array of texts has room for the longest in each place: a terabyte
    wrong = {"datatype": ["FP32"], "shape": [[1, 3], [True, 224, 224, 3]], "name": ["x"]}
    wrong["data"] = [[256] * 150528, [1.5] * 150528, [True] * 150528, [[1]] * 75264 + [1] * 75264, [0] * 9, {}, texts]
    for key, values in wrong.items():
        for value in values:
            status, body, _ = ask(url, json.dumps({"inputs": [{**tensor, key: value}]}).encode())
            assert status == 400
            assert f"inputs[0].{key}: expected" in json.loads(body)["error"]
    probability = {"name": "probability"}
    for outputs in ([{"name": "heatmap"}], [probability] * 2, [{"name": None}], ["probability"], probability):
        status, body, _ = ask(url, json.dumps({"inputs": [tensor], "outputs": outputs}).encode())
        assert (status, json.loads(body)["error"].split(",")[0]) == (400, "outputs: expected objects named probability")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict", b"no photo", 422),
        ("/predict", b"x" * 2_000_001, 413),
        ("/predict", None, 405),
        ("/nothing", None, 404),
        ("/v2/models/other/infer", b"{}", 404),
        ("/v2/models/catdog/infer", b"[" * 100_000, 400),
    ],
)
def test_bad_requests(server, path, body, status):
    found, answer, headers = ask(server + path, body, content_type="application/octet-stream")
    assert found == status
    assert "expected" in json.loads(answer)["error"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert ask(f"{server}/v2/health/live")[0] == 200


def test_another_model_and_another_path_are_named(server):
    for path, expected in {
        "/v2/models/other/infer": "model: expected 'catdog', found 'other'.",
        "/v2/models/other": "model: expected 'catdog', found 'other'.",
        "/nothing": "GET /nothing: expected a path of this server: /predict, /v2/models/catdog or what /openapi.json lists.",
    }.items():
        status, body, _ = ask(server + path)
        assert (status, json.loads(body)) == (404, {"error": expected})


def test_who_sends_too_much_can_read_why(server):
    status, answer, _ = ask(f"{server}/predict", bytes(50_000_000))  # all of it is sent before the answer is read
    assert (status, json.loads(answer)["error"]) == (413, "body: expected at most 2,000,000 bytes, found more.")


def test_chunks_without_an_end_are_cut_off(server):
    with connected(server) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
        send_until_it_ends(client, chunk)


# Clients that are slow


def address(server):
    host, port = server.removeprefix("http://").split(":")
    return host, int(port)


def connected(server, seconds=10):
    return socket.create_connection(address(server), timeout=seconds)


def send_until_it_ends(client, data, pause=0.0):
    """One that goes on fails the test: by a TimeoutError where the server reads no more."""
    late = time.monotonic() + 20
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < late:
            client.sendall(data)
            time.sleep(pause)
        pytest.fail("the connection goes on")


def received(client):
    """All that comes until the connection ends."""
    parts = []
    try:
        while part := client.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_a_slow_body_is_cut_off(server):
    with connected(server) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_connections_without_a_request_are_closed_and_hinder_nobody(server):
    clients = [connected(server) for _ in range(200)]
    try:
        for client in clients[::2]:
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert ask(f"{server}/v2/health/ready")[0] == 200
        found = [received(client) for client in clients]
    finally:
        for client in clients:
            client.close()
    assert set(found[1::2]) == {b""}
    for answer in found[::2]:
        assert answer.startswith(b"HTTP/1.1 408")
        assert (
            json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            == "headers: expected all of them within 1 s, found a part."
        )


@pytest.mark.parametrize("before", [b"", b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
def test_headers_that_trickle_are_cut_off(server, before):
    with connected(server, 0.05) as client:
        client.sendall(before + b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answers, late = b"", time.monotonic() + 10
        while b"HTTP/1.1 408" not in answers and time.monotonic() < late:
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answers += client.recv(2**16)
        assert b"HTTP/1.1 408" in answers
        assert answers.startswith(b"HTTP/1.1 200" if before else b"HTTP/1.1 408")


def test_the_rest_of_an_answered_request_may_not_trickle(server):
    with connected(server, 0.05) as client:
        client.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        send_until_it_ends(client, b"x", pause=0.05)


def test_who_takes_no_answer_is_cut_off(server):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(address(server))
        send_until_it_ends(client, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)


def test_no_http(server):
    with connected(server) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, _, body = received(client).partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"].startswith("expected a request of HTTP/1.1, found:")


# A server that has much to do


def test_a_lone_photo_waits_for_nobody(model):
    with started(model, "--batch-wait", "60") as url:
        for body, headers in (
            (photo(140), {}),
            (multipart(photo(1), photo(2)), {"content_type": "multipart/form-data; boundary=B"}),
        ):
            assert ask(f"{url}/predict", body, **headers)[0] == 200


def test_a_full_queue_is_told_and_what_is_in_flight_is_answered_before_the_end(model):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with started(model, "--queue", "3", "--max-files", "3", "--batch-wait", "3") as url, connected(url) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
            # For the slow one's photo
            waiting = [pool.submit(ask, f"{url}/predict", photo(grey)) for grey in (100, 160)]
            while b"catdog_requests_in_flight 3" not in ask(f"{url}/metrics")[1]:
                time.sleep(0.01)
            status, body, headers = ask(f"{url}/predict", photo(100))
            assert (status, headers["retry-after"]) == (503, "1")
            assert (
                json.loads(body)["error"] == "expected 1 free of 3 places for photos, found 0. Try again in a moment."
            )
            assert [ask(url + path)[0] for path in ("/v2/health/ready", "/v2/health/live")] == [200, 200]
            assert not any(one.done() for one in waiting)
        answers = [one.result() for one in waiting]
    assert [status for status, _, _ in answers] == [200, 200]
    assert [json.loads(body)["predictions"][0]["class"] for _, body, _ in answers] == ["cats", "dogs"]


class Slow:
    """A model that computes no photo before it may."""

    classes, explains, knows_strangers, metadata = ("cats", "dogs"), False, False, {}
    device, recipe, rule = "cpu", DEFAULT, Rule(classes, abstain_below=0.9)

    def __init__(self):
        self.may, self.computed = threading.Event(), 0

    def compute(self, photos, heatmaps):
        assert self.may.wait(20)
        assert not heatmaps
        self.computed += len(photos)
        return np.tile(np.float32([0.25, 0.75]), (len(photos), 1)), None, None


def tensors(count):
    shape = [count, 224, 224, 3]
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": [9] * math.prod(shape)}
    return json.dumps({"inputs": [tensor]}).encode()


ELEVEN = {"/predict": multipart(*map(photo, range(11))), "/v2/models/catdog/infer": tensors(11)}


@pytest.mark.parametrize("path", ELEVEN)
def test_a_request_is_taken_whole_or_refused_before_any_photo_is_computed(path):
    """Six clients with eleven photos each, room for thirty-two."""

    async def clients():
        model = Slow()
        app = serving_app.application(model, ServeConfig())
        async with app.router.lifespan_context(app):
            waiting = {asyncio.create_task(sent(app, path, ELEVEN[path])) for _ in range(6)}
            refused = []
            while len(refused) < 4:
                done, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
                assert done, "a request that cannot be taken waits"
                refused += [task.result() for task in done]
            assert model.computed == 0
            model.may.set()
            taken = await asyncio.gather(*waiting)
            return refused, taken, model.computed

    refused, taken, computed = asyncio.run(clients())
    for status, headers, answer in refused:
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert re.fullmatch(
            r"expected 1?\d free of 32 places for photos, found \d+\. Try again in a moment\.",
            json.loads(answer)["error"],
        )
    assert [status for status, _, _ in taken] == [200, 200]
    assert computed == 22, "what is refused costs no computing"
    if path == "/predict":
        verdicts = [row["class"] for _, _, answer in taken for row in json.loads(answer)["predictions"]]
        assert verdicts == ["dogs"] * 22


@pytest.mark.parametrize("requests", [[1] * 32, [16, 16]], ids=["the queue", "two requests of max_files"])
def test_what_the_limits_promise_is_taken(requests):
    async def clients():
        model = Slow()
        app = serving_app.application(model, ServeConfig())
        async with app.router.lifespan_context(app):
            for _ in range(2):  # places are given back
                model.may.clear()
                bodies = [multipart(*map(photo, range(count))) for count in requests]
                waiting = [asyncio.create_task(sent(app, "/predict", body)) for body in bodies]
                async with asyncio.timeout(20):
                    while b"catdog_photos_in_flight 32" not in (await sent(app, "/metrics"))[2]:
                        await asyncio.sleep(0.01)
                assert (await sent(app, "/predict", photo(1), "image/png"))[0] == 503
                model.may.set()
                assert {status for status, _, _ in await asyncio.gather(*waiting)} == {200}

    asyncio.run(clients())


def test_more_files_than_places_are_a_contradiction(model):
    with pytest.raises(
        UsageError, match=r"^--queue: expected --max-files, 16, or more, found 3: .* Lower --max-files too\.$"
    ):
        serve_command.serve(ServeConfig(model=model, queue=3))


def test_a_form_that_is_none_is_refused_without_a_line_in_the_log(model):
    field = b'--B\r\nContent-Disposition: form-data; name="comment"\r\n\r\nhello\r\n'
    said = "part 'comment': expected a photo with a file name, found a text field. Leave it out."
    with started(model) as url:  # which must have nothing to say at its end
        for body, expected in (
            (field + multipart(photo(1)), said),
            (b"no form", "found a malformed part."),
            (b"--B\r\n:", "part."),
        ):
            status, answer, _ = ask(f"{url}/predict", body, content_type=FORM)
            assert status == 400
            assert json.loads(answer)["error"].endswith(expected)
        nameless = multipart(photo(140)).replace(b'; filename="0"\r\n', b"\r\nContent-Type: image/png\r\n")
        status, answer, _ = ask(f"{url}/predict", nameless, content_type=FORM)
        assert [row["class"] for row in json.loads(answer)["predictions"]] == ["dogs"]


def test_the_page_and_the_metrics(server):
    for path in (
        "/",
        "/page.js",
        "/page.css",
        "/backend.js",
        "/orientation.js",
        "/v2",
        "/v2/models/catdog",
        "/v2/health/ready",
    ):
        assert ask(server + path)[0] == 200
    assert b'catdog_requests_total{path="/",status="200"}' in ask(f"{server}/metrics")[1]
