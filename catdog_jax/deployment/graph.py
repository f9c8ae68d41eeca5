"""Backbone, preprocessing and head as an ONNX graph, written by onnx.helper from the layer table of vgg16.py.

It computes in NCHW, the layout of ONNX's operators; pixels come in as photos are stored, and a
flattened head still sees its columns in the order (y, x, channel).
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from catdog_jax import __version__
from catdog_jax.backbone import vgg16
from catdog_jax.backbone.pooling import Pool
from catdog_jax.heads import head, strangeness

OPSET, IR_VERSION = 17, 8


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


def build(
    params: vgg16.Params, mode: vgg16.Mode, fitted: head.FittedHead, metadata: dict[str, str], mirror: bool = False
) -> onnx.ModelProto:
    """Builds the model: opset 17, IR 8, everything inside, any batch.

    Its input is `image`, uint8 [N, size, size, 3], RGB, as the recipe of the head's features has it. Its
    outputs are `probability`, float32 [N, 2] in the order of the classes, and `heatmap`, float32 [N,
    size / 32, size / 32]; see `heat_map_kind`. A head that tells strangers adds `strangeness`, float32 [N].

    `metadata` becomes `metadata_props`, along with the kind of the heat map. With `mirror` each
    output of a photo is the mean of its own and of its mirror image's.
    """
    graph = _Graph()
    size, grid = fitted.fingerprint.recipe.size, fitted.fingerprint.recipe.grid
    # First: TensorRT wants it right after uint8
    pixels = graph.node("Cast", ["image"], "pixels", to=TensorProto.FLOAT)
    cells = _backbone(
        graph, params, _normalise(graph, mode, _with_mirror_images(graph, pixels, size) if mirror else pixels)
    )
    ending = "_of_views" if mirror else ""
    _probability(graph, _dense(graph, fitted, _pool(graph, fitted.own_pool, cells)), f"probability{ending}")
    _heat_map(graph, fitted, cells, f"heatmap{ending}")
    if fitted.strangeness is not None:
        _strangeness(graph, fitted, cells, f"strangeness{ending}")
    if mirror:
        if fitted.strangeness is not None:
            _mean_of_views(graph, "strangeness", ())
        _mean_of_views(graph, "probability", (2,))
        _mean_of_views(graph, "heatmap", (grid, grid))
    outputs = [
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["N", grid, grid]),
    ]
    if fitted.strangeness is not None:
        outputs.append(helper.make_tensor_value_info("strangeness", TensorProto.FLOAT, ["N"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])
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

    A cell's value is its contribution to the logit of the second class, positive for and negative
    against; the mean over the cells plus a constant is the logit. For a linear head on averaged
    features that is the "class activation map" (Zhou et al., "Learning Deep Features for
    Discriminative Localization", 2016), and the constant is the head's bias. For any other it is a
    "linearised head": which units of its ReLU layers are on is taken as this photo has it, and so
    is which cell gives a channel its maximum. The head is then linear, its logit the same, and no
    gradient is needed; the constant differs from photo to photo. A model of both views gives the
    mean of their maps, of which this is not true.
    """
    return (
        "class activation map" if fitted.pool == "avg" and list(fitted.params) == [head.OUTPUT] else "linearised head"
    )


def _with_mirror_images(graph: _Graph, photos: str, size: int) -> str:
    """[2 N, size, size, 3]: the photos, then their mirror images."""
    mirrored = graph.node("Gather", [photos, graph.constant("leftwards", np.arange(size)[::-1])], "mirrored", axis=2)
    return graph.node("Concat", [photos, mirrored], "views", axis=0)


def _mean_of_views(graph: _Graph, name: str, shape: tuple[int, ...]) -> str:
    """[2 N, …] of both views -> [N, …]; a map is mirrored back first."""
    sizes = graph.constant(f"{name}_by_view_shape", np.array([2, -1, *shape]))
    by_view = graph.node("Reshape", [f"{name}_of_views", sizes], f"{name}_by_view")
    if len(shape) == 2:
        own, mirrored = (
            graph.node("Gather", [by_view, graph.constant(f"view_{i}", np.array([i]))], f"{name}_of_view_{i}", axis=0)
            for i in (0, 1)
        )
        leftwards = graph.constant(f"{name}_leftwards", np.arange(shape[1])[::-1])
        mirrored_back = graph.node("Gather", [mirrored, leftwards], f"{name}_mirrored_back", axis=3)
        by_view = graph.node("Concat", [own, mirrored_back], f"{name}_alike", axis=0)
    return graph.node("ReduceMean", [by_view], name, axes=[0], keepdims=0)


def _heat_map(graph: _Graph, fitted: head.FittedHead, cells: str, end: str) -> str:
    """The tensor `end`: [N, 1, columns] slopes of the logit, times [N, columns, cells] what each cell gives to each column.

    The slopes are the product of the kernels from the output back to the input, without the units
    that are off. A kernel is the first factor of its product, not transposed as the second:
    OpenVINO (2024.6 to 2026.4, on CPUs, in float32) takes the square kernel of two Gemms, of which
    one transposes it, for not transposed in either.
    """
    slopes = graph.constant("output_slopes", fitted.params[head.OUTPUT]["kernel"].T)
    for name in reversed([name for name in fitted.params if name != head.OUTPUT]):
        active = graph.node("Greater", [name, graph.constant(f"{name}_off", np.array(0, np.float32))], f"{name}_active")
        active = graph.node("Cast", [active], f"{name}_mask", to=TensorProto.FLOAT)
        slopes = graph.node("Mul", [slopes, active], f"{name}_kept")
        columns = graph.node("Gemm", [f"{name}_kernel", slopes], f"{name}_slopes_of_columns", transB=1)
        slopes = graph.node("Transpose", [columns], f"{name}_slopes", perm=[1, 0])
    side = fitted.fingerprint.recipe.grid
    grid = graph.constant("grid", np.array([-1, side, side]))
    if not fitted.own_pool.parts:
        at_cells = graph.node("Mul", [slopes, "features"], "contributions")
        shape = graph.constant("cells_shape", np.array([-1, side, side, vgg16.CHANNELS]))
        by_channel = graph.node("Reshape", [at_cells, shape], "contributions_of_channels")
        total = graph.node(
            "ReduceSum", [by_channel, graph.constant("channels_last", np.array([3]))], "shares", keepdims=0
        )
        return graph.node("Mul", [total, graph.constant("count", np.array(side**2, np.float32))], end)
    parts = {"avg": cells, "max": _at_maximum(graph, cells)}
    given = graph.node("Concat", [parts[part] for part in fitted.own_pool.parts], "given", axis=1)
    # -1 would not be told of a batch of none
    flat = graph.constant("columns_by_cells", np.array([0, 0, side**2]))
    given = graph.node("Reshape", [given, flat], "given_by_cells")
    if len(fitted.params) > 1:  # they differ from photo to photo
        slopes = graph.node("Unsqueeze", [slopes, graph.constant("row_axis", np.array([1]))], "slopes")
    return graph.node("Reshape", [graph.node("MatMul", [slopes, given], "contributions"), grid], end)


def _at_maximum(graph: _Graph, cells: str) -> str:
    """A channel's cells: their number times the maximum where it is reached (shared, where that is more than once), else 0."""
    top = graph.node("ReduceMax", [cells], "top", axes=[2, 3])
    reached = graph.node("Cast", [graph.node("Equal", [cells, top], "at_top")], "reached", to=TensorProto.FLOAT)
    times = graph.node("ReduceMean", [reached], "times_reached", axes=[2, 3])  # a share of the cells
    return graph.node("Div", [graph.node("Mul", [cells, reached], "tops"), times], "maxima")


def _normalise(graph: _Graph, mode: vgg16.Mode, photos: str) -> str:
    """`vgg16.normalise`, to NCHW. It is not folded into the first convolution, whose zero padding follows it."""
    x, order = photos, vgg16.CHANNEL_ORDER[mode]
    if list(order) != sorted(order):
        x = graph.node("Gather", [x, graph.constant("channel_order", np.array(order))], "channels", axis=3)
    x = graph.node("Sub", [x, graph.constant("mean", np.array(vgg16.MEAN[mode], np.float32))], "centred")
    x = graph.node("Div", [x, graph.constant("std", np.array(vgg16.STD[mode], np.float32))], "scaled")
    return graph.node("Transpose", [x], "normalised", perm=[0, 3, 1, 2])


def _backbone(graph: _Graph, params: vgg16.Params, x: str) -> str:
    for layer in vgg16.LAYERS:
        # HWIO to OIHW
        kernel = graph.constant(f"{layer.name}_kernel", params[layer.name]["kernel"].transpose(3, 2, 0, 1))
        bias = graph.constant(f"{layer.name}_bias", params[layer.name]["bias"])
        x = graph.node("Conv", [x, kernel, bias], layer.name, pads=[1, 1, 1, 1])
        x = graph.node("Relu", [x], f"{layer.name}_relu")
        if layer.pool:
            x = graph.node("MaxPool", [x], f"{layer.name}_pool", kernel_shape=[2, 2], strides=[2, 2])
    return x


def _pool(graph: _Graph, pool: Pool, cells: str) -> str:
    if not pool.parts:
        rows = graph.node("Transpose", [cells], "cells_last", perm=[0, 2, 3, 1])
        return graph.node("Flatten", [rows], "features")
    return graph.node("Concat", [_reduced(graph, part, cells) for part in pool.parts], "features", axis=1)


def _reduced(graph: _Graph, part: str, cells: str) -> str:
    """The averages or maxima of the cells, [N, 512]."""
    operator = {"avg": "ReduceMean", "max": "ReduceMax"}[part]
    return graph.node(operator, [cells], f"{operator}_cells", axes=[2, 3], keepdims=0)


def _strangeness(graph: _Graph, fitted: head.FittedHead, cells: str, end: str) -> str:
    """The tensor `end`, [N]: `heads.strangeness.Strangeness` of the pooled cells."""
    told, pool = fitted.strangeness, fitted.own_pool
    assert told is not None  # it was asked for
    wanted = strangeness.seen_of(pool)
    name = {"avg": "ReduceMean_cells", "max": "ReduceMax_cells"}[wanted.value]
    x = name if wanted.value in pool.parts else _reduced(graph, wanted.value, cells)
    columns = graph.constant("strangeness_columns", np.array([1]))
    squared = graph.node("ReduceSum", [graph.node("Mul", [x, x], "squares"), columns], "squared_length", keepdims=1)
    tiny = graph.constant("strangeness_tiny", np.array(strangeness.TINY, np.float32))
    length = graph.node("Sqrt", [graph.node("Add", [squared, tiny], "not_zero")], "length")
    unit = graph.node("Div", [x, length], "of_length_1")
    apart = graph.node("Sub", [unit, graph.constant("strangeness_mean", told.mean)], "apart")
    inside = graph.node("MatMul", [apart, graph.constant("strangeness_basis", told.basis)], "inside")
    whole, within = (
        graph.node(
            "ReduceSum", [graph.node("Mul", [part, part], f"{part}_squared"), columns], f"{part}_sum", keepdims=0
        )
        for part in (apart, inside)
    )
    return graph.node("Sub", [whole, within], end)


def _dense(graph: _Graph, fitted: head.FittedHead, x: str) -> str:
    for name, layer in fitted.params.items():
        kernel, bias = (graph.constant(f"{name}_{part}", layer[part]) for part in ("kernel", "bias"))
        x = graph.node("Gemm", [x, kernel, bias], name)
        if name != head.OUTPUT:
            x = graph.node("Relu", [x], f"{name}_relu")
    return x


def _probability(graph: _Graph, logit: str, end: str) -> str:
    """The tensor `end`: [sigmoid(-logit), sigmoid(logit)], written softmax([-logit / 2, logit / 2]).

    That keeps the digits of small probabilities, which 1 - sigmoid(logit) loses, and ONNX Runtime's
    approximate Sigmoid too.
    """
    both = graph.node("Concat", [graph.node("Neg", [logit], "negated"), logit], "both", axis=1)
    halved = graph.node("Mul", [both, graph.constant("half", np.array(0.5, np.float32))], "halved")
    return graph.node("Softmax", [halved], end, axis=1)
