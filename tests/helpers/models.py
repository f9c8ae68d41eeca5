"""Small models of the contract's signature, whose answers are known."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catdog_jax.photos import decoding

METADATA = {"classes": '["cats", "dogs"]', "recipe": json.dumps(decoding.RECIPE)}


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


def save_grey(path: Path, grey: int) -> Path:
    Image.new("RGB", (16, 12), (grey, grey, grey)).save(path, "PNG")
    return path
