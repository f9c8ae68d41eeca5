"""The server on a tiny model, through a real socket."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from test_predict import probability_of_dogs, tiny_model

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


def photo(grey):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = tmp_path_factory.mktemp("serve") / "model.onnx"
    model.write_bytes(tiny_model().SerializeToString())
    command = [sys.executable, "-m", "catdog_jax", "serve", "--port", "0", "--max-body", "2000000", "--body-timeout", "1"]
    environment = {**os.environ, "COLUMNS": "500"}
    process = subprocess.Popen([*command, "--model", str(model)], stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line
    yield line.split()[-1].rstrip("/")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stderr.close()


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, body, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def multipart(*files):
    parts = [b'--B\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n%s\r\n' % f for f in enumerate(files)]
    return b"".join([*parts, b"--B--\r\n"])


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
    wrong = {"datatype": "FP32", "shape": [1, 3], "name": "x", "data": [256] * 150528}
    for key, value in wrong.items():
        status, body, _ = ask(url, json.dumps({"inputs": [{**tensor, key: value}]}).encode())
        assert status == 400
        assert f"inputs[0].{key}: expected" in json.loads(body)["error"]


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


def test_a_slow_body_is_cut_off(server):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_the_page_and_the_metrics(server):
    for path in ("/", "/page.js", "/page.css", "/backend.js", "/v2", "/v2/models/catdog", "/v2/health/ready"):
        assert ask(server + path)[0] == 200
    assert b'catdog_requests_total{path="/",status="200"}' in ask(f"{server}/metrics")[1]
