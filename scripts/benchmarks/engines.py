"""The engines that use Winograd and bfloat16 on CPUs as well: ncnn, MNN and OpenVINO, each at its best settings.

All get normalised float32 photos [3, 224, 224] from memory, so that they need not normalise. ncnn and
MNN run a process a core with one thread each, which is faster for both than one process with a thread a core;
OpenVINO has streams for that in one process.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Measure = Callable[[], float]
Forward = Callable[[np.ndarray], np.ndarray]  # a photo, float32 [3, 224, 224], to features, float32 [512]


def photo() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 224, 224), np.float32)


def ncnn(precision: str) -> Forward:
    """The thirteen convolutions in ncnn, on one thread."""
    import ncnn

    from catdog_jax.backbone import vgg16, weights

    params, lines, data = weights.load().params, ["Input input 0 1 b0"], b""
    for layer in vgg16.LAYERS:
        kernel, bias = (np.asarray(params[layer.name][part], "<f4") for part in ("kernel", "bias"))
        last = len(lines)
        lines.append(
            f"Convolution {layer.name} 1 1 b{last - 1} b{last} 0={layer.outputs} 1=3 4=1 5=1 6={kernel.size} 9=1"
        )
        data += bytes(4) + np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)).tobytes() + bias.tobytes()
        if layer.pool:
            lines.append(f"Pooling pool{last} 1 1 b{last} b{last + 1} 0=0 1=2 2=2")
    last = len(lines) - 1
    lines.append(f"Pooling average 1 1 b{last} b{last + 1} 0=1 4=1")
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = precision == "bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        described, weighed = Path(folder, "vgg16.param"), Path(folder, "vgg16.bin")
        described.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""]))
        weighed.write_bytes(data)
        if net.load_param(str(described)) or net.load_model(str(weighed)):
            raise RuntimeError("ncnn did not take the network")

    def forward(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("b0", ncnn.Mat(x))
        return np.array(extractor.extract(f"b{last + 1}")[1]).ravel()

    return forward


def onnx_convolutions() -> bytes:
    """The convolutions alone: float32 [N, 3, 224, 224] -> [N, 512, 1, 1]."""
    from onnx import TensorProto, helper, numpy_helper

    from catdog_jax.backbone import vgg16, weights

    params, nodes, tensors, name = weights.load().params, [], [], "photos"

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    for layer in vgg16.LAYERS:
        kernel, bias = (np.asarray(params[layer.name][part]) for part in ("kernel", "bias"))
        tensors += [numpy_helper.from_array(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), f"{layer.name}_k")]
        tensors += [numpy_helper.from_array(bias, f"{layer.name}_b")]
        name = add("Conv", name, f"{layer.name}_k", f"{layer.name}_b", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        name = add("Relu", name)
        if layer.pool:
            name = add("MaxPool", name, kernel_shape=[2, 2], strides=[2, 2])
    name = add("GlobalAveragePool", name)
    ends = [
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape)]
        for one, shape in (("photos", ["N", 3, 224, 224]), (name, ["N", 512, 1, 1]))
    ]
    graph = helper.make_graph(nodes, "vgg16", *ends, tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def mnn(precision: str) -> Forward:
    """The thirteen convolutions in MNN, on one thread."""
    import _tools  # of MNN
    import MNN.expr as expr
    import MNN.nn as nn

    with tempfile.TemporaryDirectory() as folder:
        source, converted = Path(folder, "vgg16.onnx"), Path(folder, "vgg16.mnn")
        source.write_bytes(onnx_convolutions())
        command = [
            "mnnconvert",
            "-f",
            "ONNX",
            "--bizCode",
            "x",
            "--modelFile",
            str(source),
            "--MNNModel",
            str(converted),
        ]
        _tools.mnnconvert(command)  # MNN.tools.mnnconvert would run pip and report to its makers
        settings = {"backend": "CPU", "numThread": 1, "precision": "high" if precision == "float32" else "low"}
        runtime = nn.create_runtime_manager((settings,))
        net = nn.load_module_from_file(str(converted), ["photos"], [], runtime_manager=runtime)

    def forward(x: np.ndarray) -> np.ndarray:
        given = expr.const(x[None], [1, *x.shape], expr.NCHW)
        return np.array(expr.convert(net.forward([given])[0], expr.NCHW).read()).ravel()

    return forward


def openvino(precision: str, seconds: float) -> Measure:
    """The thirteen convolutions in OpenVINO: a stream a core, the photos in a queue."""
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "NUM_STREAMS": str(os.cpu_count()),
    }
    model = core.read_model(onnx_convolutions())
    model.reshape([1, 3, 224, 224])
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings))
    x = photo()[None]

    def measure(least: float = seconds) -> float:
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < least:
            queue.start_async([x])
            done += 1
        queue.wait_all()
        return done / (time.perf_counter() - start)

    measure(1)
    return measure


def on_each_core(make: Callable[[str], Forward], precision: str, seconds: float) -> Measure:
    """A process a core, which all measure at once; the rate is their sum."""
    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(os.cpu_count() or 1):
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make, precision, seconds), daemon=True).start()
        ends.append(ours)
    answers = [end.recv() for end in ends]
    if isinstance(answers[0], ImportError):
        raise answers[0]

    def measure() -> float:
        for end in ends:
            end.send("go")
        return sum(end.recv() for end in ends)

    return measure


def _is_told(end: Any) -> bool:
    """Waits for the next measurement; False where whoever asks has ended."""
    try:
        return bool(end.recv())
    except EOFError:
        return False


def _serve(end: Any, make: Callable[[str], Forward], precision: str, seconds: float) -> None:
    try:
        forward, x = make(precision), photo()
    except ImportError as error:
        end.send(ImportError(str(error), name=error.name))
        return
    forward(x)
    end.send("ready")
    while _is_told(end):
        start, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            forward(x)
            done += 1
        end.send(done / elapsed)
