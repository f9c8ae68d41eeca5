"""Backbone, preprocessing and head as one ONNX file, checked against JAX on photos before it takes its name.

The graph is written by onnx.helper from the layer table of vgg16.py. It computes in NCHW, the layout of ONNX's operators;
pixels come in as photos are stored, and a flattened head still sees its columns in the order (y, x, channel).
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rich.text import Text

from catdog_jax import __version__, buckets, data, features, head, images, storage, triton, variants, vgg16, weights
from catdog_jax.cache import FeatureCache, check_compatible
from catdog_jax.config import THRESHOLD, ExportConfig
from catdog_jax.console import console
from catdog_jax.errors import CatdogError, UsageError

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-4  # on probabilities; decisions must be the same, however near to it
LICENCES = {
    "code": "Apache-2.0 (catdog_jax)",
    "weights": "VGG16: BSD-3-Clause from torchvision; CC BY 4.0 (Simonyan and Zisserman, University of Oxford) from Keras",
}
_PARITY_BATCH = 8  # bounds the memory of the check
_ALONE = 2  # photos that are also checked in a batch of one


def export(config: ExportConfig) -> Path:
    """Writes the head of a run, the convolutions and the preprocessing as one ONNX file.

    The bytes that are written have passed onnx.checker's full check and agree with JAX on photos: probabilities within
    `TOLERANCE`, in a batch and alone, and the same decisions. Until then no file is written, and an older one stays.

    Args:
      config: the run, the weights, and the photos to agree on.

    Returns:
      The path of the file.

    Raises:
      CatdogError: the weights are not those that the features were made with, there are no photos to compare on, the
        model does not agree with JAX, or fp16 or int8 judges worse than fp32 by more than `variants.MAX_DROP`.
      UsageError: a setting is out of range.
    """
    if config.parity_photos < 2:
        raise UsageError(f"--parity-photos: expected 2 or more, found {config.parity_photos}. Leave it out for the default.")
    if config.gate_photos < 0:
        raise UsageError(f"--gate-photos: expected 0 or more, found {config.gate_photos}. Leave it out for the default.")
    suffix = "" if config.precision == "fp32" else f"-{config.precision}"
    out = config.out or config.run / f"model{suffix}.onnx"
    if config.triton is not None:  # what cannot be written is said before the work begins
        triton.check(config.triton)
    fitted = head.load(config.run / "head.safetensors")
    loaded = _matching_weights(config, fitted)
    source, photos = _parity_photos(config)
    parity = {"photos": len(photos), "tolerance": TOLERANCE}
    metadata = {**_metadata(config.run, fitted, loaded), "parity": json.dumps(parity), "seal": storage.UNSEALED}
    model = build(loaded.params, loaded.mode, fitted, metadata).SerializeToString(deterministic=True)
    onnx.checker.check_model(model, full_check=True)
    difference = _check_parity(out, model, _expected(loaded, fitted, photos), photos, source)
    told = f"agrees with JAX on {len(photos)} photos of {source}: max |Δprobability| {difference:.1e}, decisions identical"
    if config.precision != "fp32":
        model, told = _variant(config, out, model, fitted.classes)
    model = storage.seal(model)
    storage.write_bytes(out, model)
    console.print(Text(f"{out}: {len(model) / 1e6:.1f} MB; {told}"), soft_wrap=True)
    if config.triton is not None:
        triton.write(config.triton, model)
    return out


def _variant(config: ExportConfig, out: Path, fp32: bytes, classes: tuple[str, str]) -> tuple[bytes, str]:
    """The file in a smaller precision, and a sentence on how it compares with fp32 on validation photos."""
    dataset = _parity_dataset(config)
    if dataset.classes != classes:
        raise CatdogError(f"{dataset.source}: expected photos of {classes}, found {dataset.classes}. Name some with --data.")
    if config.precision == "int8":
        training = list(itertools.islice(_readable(dataset.split("train")), variants.CALIBRATION_PHOTOS))
        model = variants.to_int8(fp32, training)
    else:
        model = variants.to_fp16(fp32)
    onnx.checker.check_model(model, full_check=True)
    records = dataset.split("validation")[: config.gate_photos or None]
    labelled = ((photo, record.label) for record in records for photo in _readable([record]))
    gate = variants.judge(model, fp32, labelled, len(records))
    interval = f"{100 * gate.drop_low:.2f} to {100 * gate.drop_high:.2f}"
    told = (
        f"accuracy {gate.accuracy:.2%} against fp32's {gate.fp32_accuracy:.2%} on {gate.n:,} validation photos of "
        f"{dataset.source} (a drop of {100 * gate.drop:.2f} points, 95 % interval {interval}), "
        f"log loss {gate.log_loss:.4f} against {gate.fp32_log_loss:.4f}, {gate.speed:.2f} times as fast"
    )
    if gate.drop > variants.MAX_DROP and not config.force:
        raise CatdogError(
            f"{out}: expected {config.precision} within {100 * variants.MAX_DROP:g} points of fp32, found {told}. "
            "Nothing was written; write it all the same with --force."
        )
    return variants.described(model, {"precision": config.precision, "gate": json.dumps(gate._asdict())}), told


# The graph


class _Graph:
    """Nodes and constants in the making; every method returns the name of the tensor that it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name


def build(params: vgg16.Params, mode: vgg16.Mode, fitted: head.FittedHead, metadata: dict[str, str]) -> onnx.ModelProto:
    """Builds the model: opset 17, IR 8, everything inside, any batch.

    Its input is `image`, uint8 [N, 224, 224, 3], RGB. Its outputs are `probability`, float32 [N, 2] in the order of the
    classes, and `heatmap`, float32 [N, 7, 7]; see `heat_map_kind`.

    Args:
      params: the convolutions.
      mode: the preprocessing that goes into the graph.
      fitted: the head.
      metadata: becomes `metadata_props`, along with the kind of the heat map.
    """
    graph = _Graph()
    cells = _backbone(graph, params, _normalise(graph, mode))
    _probability(graph, _dense(graph, fitted, _pool(graph, fitted.pool, cells)))
    _heat_map(graph, fitted, cells)
    outputs = [
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["N", vgg16.GRID, vgg16.GRID]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", images.SIZE, images.SIZE, 3])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "catdog", [image], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="catdog_jax",
        producer_version=__version__,
    )
    helper.set_model_props(model, {"precision": "fp32", **metadata, "heatmap": heat_map_kind(fitted)})
    return model


def heat_map_kind(fitted: head.FittedHead) -> str:
    """What the output `heatmap` of this head's model shows.

    A cell's value is its contribution to the logit of the second class, positive for and negative against; the mean over
    the 7x7 cells plus a constant is the logit. For a linear head on averaged features that is the "class activation map"
    (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016), and the constant is the head's bias. For
    any other it is a "linearised head": which units of its ReLU layers are on is taken as this photo has it, and so is which
    cell gives a channel its maximum. The head is then linear, its logit the same, and no gradient is needed; the constant
    differs from photo to photo.
    """
    return "class activation map" if fitted.pool == "avg" and list(fitted.params) == [head.OUTPUT] else "linearised head"


def _heat_map(graph: _Graph, fitted: head.FittedHead, cells: str) -> str:
    """[N, 1, columns] slopes of the logit, times [N, columns, 49] what each cell gives to each column.

    The slopes are the product of the kernels from the output back to the input, without the units that are off.
    """
    slopes = graph.constant("output_slopes", fitted.params[head.OUTPUT]["kernel"].T)
    for name in reversed([name for name in fitted.params if name != head.OUTPUT]):
        active = graph.node("Greater", [name, graph.constant(f"{name}_off", np.array(0, np.float32))], f"{name}_active")
        active = graph.node("Cast", [active], f"{name}_mask", to=TensorProto.FLOAT)
        slopes = graph.node("Mul", [slopes, active], f"{name}_kept")
        slopes = graph.node("Gemm", [slopes, f"{name}_kernel"], f"{name}_slopes", transB=1)
    grid = graph.constant("grid", np.array([-1, vgg16.GRID, vgg16.GRID]))
    if fitted.pool == "none":
        at_cells = graph.node("Mul", [slopes, "features"], "contributions")
        shape = graph.constant("cells_shape", np.array([-1, vgg16.GRID, vgg16.GRID, vgg16.CHANNELS]))
        by_channel = graph.node("Reshape", [at_cells, shape], "contributions_of_channels")
        total = graph.node("ReduceSum", [by_channel, graph.constant("channels_last", np.array([3]))], "shares", keepdims=0)
        return graph.node("Mul", [total, graph.constant("count", np.array(vgg16.GRID**2, np.float32))], "heatmap")
    parts = {"avg": [cells], "max": [_at_maximum(graph, cells)]}
    parts["avg+max"] = [*parts["avg"], *parts["max"]] if fitted.pool == "avg+max" else []
    given = graph.node("Concat", parts[fitted.pool], "given", axis=1)
    flat = graph.constant("columns_by_cells", np.array([0, 0, -1]))
    given = graph.node("Reshape", [given, flat], "given_by_cells")
    if len(fitted.params) > 1:  # they differ from photo to photo
        slopes = graph.node("Unsqueeze", [slopes, graph.constant("row_axis", np.array([1]))], "slopes")
    return graph.node("Reshape", [graph.node("MatMul", [slopes, given], "contributions"), grid], "heatmap")


def _at_maximum(graph: _Graph, cells: str) -> str:
    """A channel's cells with 49 times the maximum where it is reached (shared, where it is reached more than once), else 0."""
    top = graph.node("ReduceMax", [cells], "top", axes=[2, 3])
    reached = graph.node("Cast", [graph.node("Equal", [cells, top], "at_top")], "reached", to=TensorProto.FLOAT)
    times = graph.node("ReduceMean", [reached], "times_reached", axes=[2, 3])  # of 49
    return graph.node("Div", [graph.node("Mul", [cells, reached], "tops"), times], "maxima")


def _normalise(graph: _Graph, mode: vgg16.Mode) -> str:
    """`vgg16.normalise`, to NCHW. It is not folded into the first convolution, whose zero padding follows it."""
    order = np.array(vgg16.CHANNEL_ORDER[mode])
    x = graph.node("Gather", ["image", graph.constant("channel_order", order)], "channels", axis=3)
    x = graph.node("Cast", [x], "pixels", to=TensorProto.FLOAT)
    x = graph.node("Sub", [x, graph.constant("mean", np.array(vgg16.MEAN[mode], np.float32))], "centred")
    x = graph.node("Div", [x, graph.constant("std", np.array(vgg16.STD[mode], np.float32))], "scaled")
    return graph.node("Transpose", [x], "normalised", perm=[0, 3, 1, 2])


def _backbone(graph: _Graph, params: vgg16.Params, x: str) -> str:
    for layer in vgg16.LAYERS:
        kernel = graph.constant(f"{layer.name}_kernel", params[layer.name]["kernel"].transpose(3, 2, 0, 1))  # HWIO to OIHW
        bias = graph.constant(f"{layer.name}_bias", params[layer.name]["bias"])
        x = graph.node("Conv", [x, kernel, bias], layer.name, pads=[1, 1, 1, 1])
        x = graph.node("Relu", [x], f"{layer.name}_relu")
        if layer.pool:
            x = graph.node("MaxPool", [x], f"{layer.name}_pool", kernel_shape=[2, 2], strides=[2, 2])
    return x


def _pool(graph: _Graph, pool: str, cells: str) -> str:
    if pool == "none":
        rows = graph.node("Transpose", [cells], "cells_last", perm=[0, 2, 3, 1])
        return graph.node("Flatten", [rows], "features")
    operators = {"avg": ["ReduceMean"], "max": ["ReduceMax"], "avg+max": ["ReduceMean", "ReduceMax"]}[pool]
    parts = [graph.node(operator, [cells], f"{operator}_cells", axes=[2, 3], keepdims=0) for operator in operators]
    return graph.node("Concat", parts, "features", axis=1)


def _dense(graph: _Graph, fitted: head.FittedHead, x: str) -> str:
    for name, layer in fitted.params.items():
        kernel, bias = (graph.constant(f"{name}_{part}", layer[part]) for part in ("kernel", "bias"))
        x = graph.node("Gemm", [x, kernel, bias], name)
        if name != head.OUTPUT:
            x = graph.node("Relu", [x], f"{name}_relu")
    return x


def _probability(graph: _Graph, logit: str) -> str:
    """[sigmoid(-logit), sigmoid(logit)], written softmax([-logit / 2, logit / 2]).

    That keeps the digits of small probabilities, which 1 - sigmoid(logit) loses, and ONNX Runtime's approximate Sigmoid too.
    """
    both = graph.node("Concat", [graph.node("Neg", [logit], "negated"), logit], "both", axis=1)
    halved = graph.node("Mul", [both, graph.constant("half", np.array(0.5, np.float32))], "halved")
    return graph.node("Softmax", [halved], "probability", axis=1)


# What goes in, and what is said of it


def _matching_weights(config: ExportConfig, fitted: head.FittedHead) -> weights.Weights:
    loaded = weights.load(config.weights, fitted.fingerprint["preprocessing"])
    expected = fitted.fingerprint["weights_sha256"]
    if loaded.sha256 != expected:
        raise CatdogError(
            f"{config.weights}: expected the weights that the features were made with, sha256 {expected}, "
            f"found {loaded.sha256} ({loaded.source}). Name those with --weights, or extract and train again."
        )
    current = {"preprocessing_version": vgg16.PREPROCESSING_VERSION, "image": images.RECIPE}
    check_compatible(fitted.fingerprint, fitted.fingerprint | current)
    return loaded


def _metadata(run: Path, fitted: head.FittedHead, loaded: weights.Weights) -> dict[str, str]:
    values = {
        "classes": fitted.classes,
        "recipe": images.RECIPE,
        "features": fitted.fingerprint,
        "head": fitted.recipe,
        "licences": LICENCES,
    }
    metrics = run / "metrics.json"
    if metrics.exists():
        measured = storage.read_json(metrics, "metrics file of `catdog evaluate`")
        if measured.get("own_features") and measured.get("head_sha256") == head.digest(fitted.params):
            values["test_metrics"] = {name: measured.get(name) for name in ("n", "metrics", "confusion")}  # no photo's name
    strings = {
        "version": __version__,
        "preprocessing": loaded.mode,
        "weights_sha256": loaded.sha256,
        "features_fingerprint": storage.sha256_of_json(fitted.fingerprint),
    }
    return {**strings, **{name: json.dumps(value) for name, value in values.items()}}


# Parity


def _parity_photos(config: ExportConfig) -> tuple[str, np.ndarray]:
    """The source and the photos to compare on, uint8 [N, 224, 224, 3]."""
    dataset = _parity_dataset(config)
    records = itertools.chain.from_iterable(dataset.split(split) for split in reversed(data.SPLITS))
    photos = list(itertools.islice(_readable(records), config.parity_photos))
    if len(photos) < 2:
        raise CatdogError(f"{dataset.source}: expected at least 2 photos that can be read, found {len(photos)}. Check --data.")
    return dataset.source, np.stack(photos)


def _parity_dataset(config: ExportConfig) -> data.Dataset:
    if config.data is not None:
        return data.load(config.data)
    try:
        settings = storage.read_json(config.run / "config.json", "run's settings file")
        return data.load(FeatureCache.open(buckets.found_from(config.run, settings["features"])).source)
    except (CatdogError, KeyError, TypeError) as error:
        message = f"The photos of the training are not at hand ({error}); comparing on the embedded drawings."
        console.print(Text(message), soft_wrap=True)
        return data.load("demo")


def _readable(records: Iterable[data.Record]) -> Iterable[np.ndarray]:
    for record in records:
        try:
            yield images.decode(record.read())
        except images.ImageError:
            continue


def _expected(loaded: weights.Weights, fitted: head.FittedHead, photos: np.ndarray) -> np.ndarray:
    """JAX's probabilities of the second class, float64 [N], computed in full float32 on whatever device there is."""
    extract = features.Extractor(loaded, fitted.pool, precision="float32", batch_size=_PARITY_BATCH)
    with jax.default_matmul_precision("highest"):  # or GPUs round to TF32 and TPUs to bfloat16
        return head.probabilities(fitted.params, extract(photos))


def _check_parity(out: Path, model: bytes, expected: np.ndarray, photos: np.ndarray, source: str) -> float:
    """The largest difference between the file's probabilities and JAX's.

    Raises:
      CatdogError: it is not below `TOLERANCE`, or a decision differs.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = [photos[i : i + _PARITY_BATCH] for i in range(0, len(photos), _PARITY_BATCH)]
    alone = [photo[None] for photo in photos[:_ALONE]]
    rows = np.concatenate([session.run(["probability"], {"image": batch})[0] for batch in batches + alone])
    expected = np.concatenate([expected, expected[:_ALONE]])
    difference = float(np.abs(rows - np.stack([1 - expected, expected], axis=1)).max())
    others = int(((rows[:, 1] >= THRESHOLD) != (expected >= THRESHOLD)).sum())
    if not difference < TOLERANCE or others:  # written so that NaN fails
        raise CatdogError(
            f"{out}: expected JAX's probabilities within {TOLERANCE:g} and its decisions on {len(photos)} photos of {source}, "
            f"found a difference of {difference:.2g} and {others} other decisions. Nothing was written; please report this."
        )
    return difference
