"""A small convolution, its 8-bit kernels and the sums of an old CPU."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper


def network() -> bytes:
    """A model of the contract's signature with one convolution of 8 filters and a head of 8 columns on its averages."""
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(0, 0.2, (64, 3, 3, 3)).astype(np.float32) / 128,
        "bias": rng.normal(0, 0.1, 64).astype(np.float32),
        "head": rng.normal(0, 0.1, (64, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["convolved"], ["activated"]),
        helper.make_node("MaxPool", ["activated"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMean", ["pooled"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 224, 224, 3])
    probability = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 2])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [image], [probability], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"classes": '["cats", "dogs"]'})
    return model.SerializeToString()


def photos(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    # Dark to bright
    blocks = rng.integers(0, 256, (count, 14, 14, 3)) * np.linspace(0.05, 1, count)[:, None, None, None]
    return np.repeat(np.repeat(blocks.astype(np.uint8), 16, axis=1), 16, axis=2)


def probabilities(model: bytes, pixels: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["probability"], {"image": pixels})[0][:, 1]


def sums(kernel: np.ndarray, activations: np.ndarray, saturate: bool) -> np.ndarray:
    """A filter's products summed up, int32 [filters]; `saturate` as vpmaddubsw does: neighbours in pairs, in 16 bits."""
    products = kernel.astype(np.int32) * activations.astype(np.int32)
    pairs = products.reshape(len(kernel), -1, 2).sum(axis=2)
    return (np.clip(pairs, -(2**15), 2**15 - 1) if saturate else pairs).sum(axis=1)


def is_exact(kernel: np.ndarray) -> bool:
    """Whether the worst photos are summed up alike, int8 [filters, ...], with its neighbours and with its extremes in pairs."""
    rows = kernel.reshape(len(kernel), -1)
    rows = np.pad(rows, ((0, 0), (rows.shape[1] % 2, 0)))
    rising = np.sort(rows, axis=1)
    orders = [rows, rising, rising[:, ::-1]]
    worst = [(order, np.where(sign * order > 0, 255, 0)) for order in orders for sign in (1, -1)]
    return all(np.array_equal(sums(order, at, True), sums(order, at, False)) for order, at in worst)


def kernels(model: bytes) -> dict[str, np.ndarray]:
    """The weights of the convolutions in 8 bits, by name."""
    found = onnx.load_from_string(model).graph.initializer
    return {
        one.name: numpy_helper.to_array(one)
        for one in found
        if one.data_type == TensorProto.INT8 and len(one.dims) == 4
    }


EMULATOR = shutil.which("qemu-x86_64-static")  # Debian's qemu-user-static


RUN = """
import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(["probability"], {"image": np.load(sys.argv[2])})[0][:, 1])
"""


def on_an_old_cpu(model: bytes, pixels: np.ndarray, folder: Path) -> np.ndarray:
    """The probabilities that ONNX Runtime computes on a CPU with AVX2 and without VNNI, which is emulated."""
    if EMULATOR is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64-static (Debian: qemu-user-static) on an x86-64 machine")
    (folder / "m.onnx").write_bytes(model)
    np.save(folder / "in.npy", pixels)
    names = [str(folder / name) for name in ("m.onnx", "in.npy", "out.npy")]
    command = [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", RUN, *names]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # it remarks on every feature that it lacks
    return np.load(folder / "out.npy")


def exactly(model: bytes, pixels: np.ndarray) -> np.ndarray:
    """The probabilities that x86 CPUs with VNNI, and others, compute."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["probability"], {"image": pixels})[0][:, 1]
