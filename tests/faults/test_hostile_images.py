"""Every file of the corpus gets the same verdict from the gate, extraction, predict and serve, in bounded time and memory."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import corpus, measured
from helpers.figures import record
from helpers.models import probability_of_dogs, tiny_model
from PIL import Image

from catdog_jax.errors import CatdogError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.recipe import DEFAULT

MOST = 1200  # MB; the interpreter, its libraries and two threads that decode pictures of the largest size
Verdicts = dict[str, np.ndarray | str]  # by the file's name: pixels, or the reason why there are none


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The corpus among the training photos of a data set, and what every data set must have."""
    root = tmp_path_factory.mktemp("hostile") / "photos"
    for kind in ("train/cats", "train/dogs", "validation/cats", "validation/dogs", "test/cats", "test/dogs"):
        (root / kind).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(root / kind / "good.png")
    for case in corpus.cases():
        case.place(root / "train" / "cats" / case.name)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


@pytest.fixture(scope="module")
def gate(folder) -> Verdicts:
    return {case.name: decoded(folder / "train" / "cats" / case.name) for case in corpus.cases()}


def decoded(path: Path) -> np.ndarray | str:
    try:
        return decoding.decode(decoding.read_photo(path), DEFAULT)
    except decoding.ImageError as error:
        return str(error)


def check(found: Verdicts) -> None:
    """That the verdicts are those that the corpus expects."""
    for case in corpus.cases():
        verdict = found[case.name]
        case.check(*((verdict, "") if isinstance(verdict, np.ndarray) else (None, verdict)))


def check_answers(rows: dict[str, dict], gate: Verdicts) -> None:
    """That a model was asked about the gate's pixels, or the gate's reason was told."""
    for name, row in rows.items():
        if isinstance(gate[name], str):
            assert row["error"] == gate[name], name
        else:
            assert row["probabilities"]["dogs"] == pytest.approx(probability_of_dogs(gate[name].mean()), abs=1e-4), name


def test_the_corpus_is_large_and_its_names_differ():
    names = [case.name for case in corpus.cases()]
    assert len(set(names)) == len(names) >= 40


def test_the_gate(gate):
    check(gate)


def test_extraction(folder, gate, tmp_path, request):
    done = measured.run("record", folder, tmp_path / "out")
    assert done.status == 0, done.err
    cache = FeatureCache.open(tmp_path / "out")
    ids = [name for split in sources.SPLITS for name in cache.ids(split)]
    found: Verdicts = dict(zip(ids, np.load(tmp_path / "out" / "seen.npy"), strict=True))
    found |= {item["id"]: item["reason"] for item in cache.skipped("train")}
    found = {name.removeprefix("train/cats/"): verdict for name, verdict in found.items()}
    check(found)
    for name, verdict in gate.items():
        assert np.array_equal(verdict, found[name]), name
    assert done.peak < MOST
    tell("extraction", gate, done.peak, request)


def test_predict(folder, model, gate, request):
    done = measured.run("catdog", "predict", "--model", model, "--format", "jsonl", folder / "train" / "cats")
    first, *others = done.err.splitlines()  # no remark of a library, one line of counts
    assert (done.status, first, len(others)) == (1, "left out: 1 hidden", 1), done.err  # the pipe
    rows = {Path(row["path"]).name: row for row in map(json.loads, done.out.splitlines())}
    assert rows.pop("good.png")["class"] == "cats"
    assert rows.keys() == gate.keys()
    check_answers(rows, gate)
    assert done.peak < MOST
    tell("predict", gate, done.peak, request)


@pytest.fixture
def server(model) -> Iterator[tuple[str, int]]:
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    command = [sys.executable, "-m", "catdog_jax", "serve", "--port", "0", "--model", str(model)]
    environment = {**os.environ, "COLUMNS": "500"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line
    yield line.rsplit(":", 1)[1].rstrip("/\n"), process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_serve(folder, gate, server, request):
    port, process = server
    rows = {}
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    for name in gate:
        path = folder / "train" / "cats" / name
        if path.is_file() and path.stat().st_size < 2**24:  # the others have no bytes to send
            connection.request(
                "POST", "/predict?include=probabilities", path.read_bytes(), {"content-type": "image/jpeg"}
            )
            answer = connection.getresponse()
            (rows[name],) = json.loads(answer.read())["predictions"]
            assert answer.status == (422 if "error" in rows[name] else 200), name
    connection.close()
    assert len(rows) >= len(gate) - 7
    check_answers(rows, gate)
    peak = measured.peak(str(process))
    assert peak < MOST
    tell("serve", rows, peak, request)


def tell(door: str, files: dict, peak: int, request: pytest.FixtureRequest) -> None:
    refused = sum(isinstance(one, str) or "error" in one for one in files.values())
    figures = {"files": len(files), "refused": refused, "crashes": 0, "largest RSS in MB": peak}
    record(f"hostile images, {door}", figures, request.config.getoption("--long"))


def test_a_pipe_that_takes_the_place_of_a_photo_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "photo.jpg")
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # it was one a moment ago
    with pytest.raises(decoding.UnreadableError, match="cannot be read: not a regular file"):
        decoding.read_photo(tmp_path / "photo.jpg")


def test_a_photo_that_changes_while_it_is_read_is_one_of_its_states_or_damaged(tmp_path):
    path = tmp_path / "photo.jpg"
    states = [corpus.encoded(Image.new("RGB", (side, side), "red"), "PNG") for side in (8, 800)]
    path.write_bytes(states[0])
    ends = time.monotonic() + 0.5

    def change() -> None:
        while time.monotonic() < ends:
            for state in states:
                with open(path, "r+b") as file:
                    file.truncate()
                    file.write(state[: len(state) // 2])
                    file.flush()
                    file.write(state[len(state) // 2 :])

    writer = threading.Thread(target=change)
    writer.start()
    found = []
    while time.monotonic() < ends:
        found.append(decoded(path))
    writer.join()
    assert any(isinstance(one, np.ndarray) for one in found)
    for one in found:
        assert (one == (255, 0, 0)).all() if isinstance(one, np.ndarray) else one.startswith(("damaged", "expected")), (
            one
        )


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to be read")
def test_a_file_that_cannot_be_read_stops_extraction_and_is_named_by_predict(folder, model, tmp_path, monkeypatch):
    photo = tmp_path / "photo.jpg"
    photo.symlink_to("/proc/self/mem")  # a regular file whose first byte is an input/output error
    assert decoded(photo) == "cannot be read: Input/output error"
    monkeypatch.setattr(sources, "_BEFORE_RETRY", 0)
    unreadable = sources.Record("photo.jpg", 0, "train", 0, lambda: decoding.read_photo(photo))
    with pytest.raises(CatdogError, match=r"'photo\.jpg': cannot be read: Input/output error, twice\. Repair the disk"):
        sources.read_patiently(unreadable)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_photo_without_permission_is_named(tmp_path):
    (tmp_path / "photo.jpg").touch(0)
    assert decoded(tmp_path / "photo.jpg") == "cannot be read: Permission denied"
