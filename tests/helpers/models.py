"""Small models of the contract's signature, whose answers are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catdog_jax.photos.recipe import FIRST

METADATA = {"classes": '["cats", "dogs"]', "recipe": json.dumps(FIRST.to_json())}


def probability_of_dogs(grey: float) -> float:
    """What `tiny_model` answers for a photo of one grey: the brighter, the more of a dog."""
    return 1 / (1 + np.exp(-(grey - 127.5) / 8))


def tiny_model(
    shape: tuple[str | int, ...] = ("N", 224, 224, 3),
    kind: int = TensorProto.UINT8,
    name: str = "image",
    output: str = "probability",
    metadata: dict[str, str] = METADATA,
    scale: float = 8.0,
) -> onnx.ModelProto:
    constants = {"middle": np.float32([127.5]), "scale": np.float32([scale]), "column": np.array([-1, 1])}
    nodes = [
        helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["quotient"]),
        helper.make_node("Reshape", ["quotient", "column"], ["logit"]),
        helper.make_node("Neg", ["logit"], ["negated"]),
        helper.make_node("Sigmoid", ["logit"], ["second"]),
        helper.make_node("Sigmoid", ["negated"], ["first"]),
        helper.make_node("Concat", ["first", "second"], [output], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], 2])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model


def strange_model(above: float = 0.5, abstain_below: float | None = 0.75) -> onnx.ModelProto:
    """`tiny_model` that knows strangers: the strangeness is the mean brightness, from 0 to 1."""
    rule = {"threshold": 0.5, "abstain_below": abstain_below, "strange_above": above}
    model = tiny_model(metadata=METADATA | {"decision": json.dumps(rule)})
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "white"))
    model.graph.node.append(helper.make_node("Div", ["mean", "white"], ["strangeness"]))
    model.graph.output.append(helper.make_tensor_value_info("strangeness", TensorProto.FLOAT, ["N"]))
    return model


def save_grey(path: Path, grey: int) -> Path:
    Image.new("RGB", (16, 12), (grey, grey, grey)).save(path, "PNG")
    return path


KERNEL = np.random.default_rng(0).normal(0, 0.02, (512, 3)).astype(np.float32)


def embedding_model(**options: Any) -> onnx.ModelProto:
    """`tiny_model` with the tensor that embeddings are of: a linear map of each cell's mean colour, cut off at 0."""
    model = tiny_model(**options)
    model.graph.initializer.append(numpy_helper.from_array(KERNEL[:, :, None, None], "kernel"))
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[32, 32], strides=[32, 32]),
            helper.make_node("Conv", ["means", "kernel"], ["convolved"]),
            helper.make_node("Relu", ["convolved"], ["block5_conv3_pool"]),
        ]
    )
    return model


def embedding(pixels: np.ndarray) -> np.ndarray:
    """What `embedding_model` gives of a photo, uint8 [224, 224, 3], in float64 [512]."""
    cells = pixels.astype(np.float64).reshape(7, 32, 7, 32, 3).mean(axis=(1, 3))
    return np.maximum(cells @ KERNEL.T.astype(np.float64), 0).mean(axis=(0, 1))
