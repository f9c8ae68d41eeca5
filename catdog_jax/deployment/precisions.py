"""Smaller files of an exported model, float16 and int8; gate.py says whether they are let out.

fp16 stores the weights in half the bytes and computes in float32, so it is as fast as fp32 and
differs by rounding alone. int8 is onnxruntime's static quantisation in QDQ form: per-channel
symmetric weights, activations calibrated on training photos; the preprocessing and the head stay in
float32, stored as in fp16. The weights use seven of their eight bits, for the sake of CPUs that
would answer otherwise: see `saturating`.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from catdog_jax.console import quieted
from catdog_jax.errors import CatdogError

CALIBRATION_PHOTOS = 128
_BATCH = 8
_PAIR = (2**15 - 1) // (2**8 - 1)  # what two weights of one sign may sum to
_SMALL = 1024  # constants of fewer values stay float32: halving them saves nothing


class Precision(NamedTuple):
    """How the file of a precision is made.

    Attributes:
      splits: of the photos that this and the gate take; none of fp32, which is what the others are
        compared with.
      convert: from the float32 file, and photos of the training, uint8 [size, size, 3] each.
    """

    splits: tuple[str, ...]
    convert: Callable[[bytes, Sequence[np.ndarray]], bytes]


def to_fp16(model: bytes) -> bytes:
    """The same graph with its large constants stored as float16 and cast to float32 when the model is loaded."""
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    casts = []
    for constant in graph.initializer:
        name, values = constant.name, numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or values.size < _SMALL:
            continue
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [constant.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return loaded.SerializeToString(deterministic=True)


def to_int8(model: bytes, photos: Sequence[np.ndarray]) -> bytes:
    """The same graph with its convolutions in 8 bits.

    The ranges of the activations are measured on the photos, uint8 [size, size, 3] each.

    Raises:
      CatdogError: there are no photos.
    """
    if not photos:
        raise CatdogError("int8: expected training photos that can be decoded, found none. Check --data.")
    batches = [np.stack(photos[i : i + _BATCH]) for i in range(0, len(photos), _BATCH)]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    # The quantiser gives advice on the root logger and on stdout
    with tempfile.TemporaryDirectory() as folder, quieted(), contextlib.redirect_stdout(io.StringIO()):
        source, result = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantization.quantize_static(
            source,
            result,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "MaxPool"],
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        quantised = onnx.load(result)
    properties = onnx.load_from_string(model).metadata_props
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(properties)
    return to_fp16(quantised.SerializeToString())  # what stayed float32: a wide head is a fifth of the file


def saturating(model: bytes) -> list[str]:
    """The names of the 8-bit kernels [filters, ...] that some CPUs multiply wrongly; none in a file that is let out.

    x86 CPUs without VNNI (before 2019, and many after) multiply unsigned activations by signed
    weights and add two such products in 16 signed bits, which saturate (the instruction
    vpmaddubsw); others add them in 32 bits. With activations up to 255 the two agree on whatever
    photo if no two weights of a filter sum beyond 128 = 32,767 // 255 in either direction. Which
    two meet is the engine's affair, so any two must fit. Signed activations gain nothing:
    engines shift them by 128 to use the same instruction.
    """
    graph = onnx.load_from_string(model).graph
    kernels = (tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1)
    constants = {tensor.name: tensor for tensor in kernels}
    names = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    return [name for name in names if not _adds_up(numpy_helper.to_array(constants[name]))]


def _adds_up(kernel: np.ndarray) -> bool:
    ordered = np.sort(kernel.reshape(len(kernel), -1).astype(np.int32), axis=1)
    ends = np.stack([ordered[:, :2], ordered[:, -2:]])  # the two lowest and the two highest of each filter
    return bool(np.abs(ends.sum(axis=2)).max() <= _PAIR)


def described(model: bytes, properties: dict[str, Any]) -> bytes:
    """The model with further `metadata_props`."""
    loaded = onnx.load_from_string(model)
    known = {entry.key: entry.value for entry in loaded.metadata_props}
    helper.set_model_props(loaded, known | {key: str(value) for key, value in properties.items()})
    return loaded.SerializeToString(deterministic=True)


PRECISIONS = {
    "fp32": Precision((), lambda model, _: model),
    "fp16": Precision(("validation",), lambda model, _: to_fp16(model)),
    "int8": Precision(("train", "validation"), to_int8),
}
