"""The benchmark of decoding: its stub takes the time of a device, and a small turn of it works."""

import json
import os

import numpy as np
import pytest
from helpers import corpus

from catdog_jax.errors import UsageError
from scripts.benchmarks import benchmark
from scripts.benchmarks import decoding as program


def test_the_stub_is_idle_while_no_batch_is_there():
    """A second a batch of 10, which come at 0, 0, 0 and 5 seconds: of 6 it waits from 3 to 5."""
    clock = [0.0]
    device = program.StubDevice(10, 10, lambda: clock[0])
    for when in (0.0, 0.0, 0.0, 5.0):
        clock[0] = when
        later = device.dispatch(np.zeros((10, 2, 2, 3), np.uint8))
    assert device.idle == pytest.approx(2 / 6)
    clock[0] = 10.0  # so that nobody sleeps
    assert np.asarray(later).shape == (10, 1, 512)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot be told which cores to use")
def test_a_measurement_has_a_row_for_each_way_and_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(corpus.jpeg())
    monkeypatch.setattr(program, "HOST_PHOTOS", 100)
    monkeypatch.setattr(benchmark, "machine", lambda: {"processor": "one", "cores": 1, "device": "cpu"})
    cores = os.sched_getaffinity(0)
    settings = {"cores": (1,), "rate": 1e6, "batch_size": 8, "rounds": 1, "out": tmp_path}
    program.main(program.DecodingConfig(data=(tmp_path / "photos",), photos=40, **settings))
    assert os.sched_getaffinity(0) == cores
    rows = json.loads((tmp_path / "decoding-one-1-cores.json").read_text())["results"]
    assert [(row["way"], row["cores"]) for row in rows] == [
        *(("threads", 1), ("processes", 1), ("processes", 1)),
        (program.NOTHING, len(cores)),
    ]
    assert [row["device"] for row in rows] == [1e6, 1e6, rows[1]["decoded"] / 2, 1e6]
    assert all(0 <= row["idle"] < 1 and row["decoded"] > 0 and row["host"] > 0 for row in rows)
    assert "processes" in capsys.readouterr().out


def test_what_cannot_be_measured_is_told(tmp_path):
    with pytest.raises(UsageError, match="expected a folder of photos, found none"):
        program.records_of(tmp_path / "absent", 8)
    with pytest.raises(UsageError, match="--cores: expected at most"):
        program.measure(program.DecodingConfig(data=(), cores=(10_000,)))
    with pytest.raises(UsageError, match="--photos: expected 512 or more, found 8"):
        program.measure(program.DecodingConfig(data=(), cores=(1,), photos=8))
