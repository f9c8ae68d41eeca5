"""What an ONNX file asks for, read from its bytes before ONNX Runtime sees it.

A model is a program. This admits the operators that `catdog export` writes, in one graph, with all
data inside the file. A walk over the messages finds them, whose fields have the numbers of
onnx.proto; wire.py reads them, so that the size of a file costs nothing, in bounded steps.

What a model computes with a photo is not bounded: a file of few bytes may still ask for much work
and memory.
"""

import math
from collections.abc import Iterable

from catdog_jax.errors import CatdogError
from catdog_jax.runtime.wire import Field, Wire

MAX_BYTES = 2**29  # a head of 1,024 on all cells, in float32, makes 162 MB
MAX_IR = 10  # what ONNX Runtime 1.20, the oldest that we admit, reads
MAX_RANK = 32
MAX_ATTRIBUTE = 2**8  # pads, strides, axes
OPERATORS = frozenset({
    "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DequantizeLinear", "Div", "Equal", "Flatten", "Gather",
    "Gemm", "Greater", "MatMul", "MaxPool", "Mul", "Neg", "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "Sigmoid", "Softmax", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
_OF_CONSTANTS = frozenset({"Cast", "DequantizeLinear"})  # computed once, when a model is loaded
# Bytes of a field of a tensor that is not its raw data, and takes up to eight times as much in
# memory
_BESIDE_RAW = 2**16


def screen(model: bytes) -> frozenset[str]:
    """Checks what a model asks for. Its inputs, outputs and metadata are for others to check.

    Returns:
      The names of its tensors: inputs, constants, and what its nodes compute.

    Raises:
      CatdogError: what was expected of which field, and what was found; without the path.
    """
    if len(model) > MAX_BYTES:
        raise CatdogError(f"expected at most {MAX_BYTES:,} bytes, found {len(model):,}")
    if model[4:8] == b"ORTM":
        raise CatdogError("expected an ONNX model of `catdog export`, found one in ONNX Runtime's own format")
    try:
        return _Screen().model(memoryview(model))
    except ValueError as error:
        raise CatdogError(
            f"expected an ONNX model of `catdog export`, found what ONNX Runtime cannot load ({error})"
        ) from None


class _Screen:
    """One walk over a file; wire.py reads the messages."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._constants: dict[str, int] = {}  # name -> how many values
        self._known: set[str] = set()
        self._computed = 0  # values that are computed when the model is loaded

    def model(self, message: memoryview) -> frozenset[str]:
        fields = self._wire.fields(message)
        version = max(self._wire.numbers(fields, 1), default=0)
        if version > MAX_IR:
            raise CatdogError(f"ir_version: expected at most {MAX_IR}, found {version}")
        for number, name in ((20, "training_info"), (25, "functions")):
            _refuse(fields, number, name)
        graphs = self._wire.messages(fields, 7)
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} graphs")
        self._graph(graphs[0])
        if self._computed > 2 * len(message):
            raise CatdogError(
                f"constants: expected at most {2 * len(message):,} computed values, found {self._computed:,}"
            )
        return frozenset(self._known - {""})

    def _graph(self, message: memoryview) -> None:
        fields = self._wire.fields(message)
        _refuse(fields, 15, "sparse_initializer")
        for tensor in self._wire.messages(fields, 5):
            name, size = self._tensor(tensor)
            self._constants[name] = size
        inputs = (self._wire.fields(entry) for entry in self._wire.messages(fields, 11))
        self._known = {"", *self._constants, *(name for entry in inputs for name in self._wire.texts(entry, 1))}
        for node in self._wire.messages(fields, 1):
            self._node(self._wire.fields(node))

    def _node(self, fields: list[Field]) -> None:
        inputs, outputs, names, operators, domains = (self._wire.texts(fields, number) for number in (1, 2, 3, 4, 7))
        where = " ".join(["node", *(names or outputs)])[:100]
        if foreign := set(domains) - {"", "ai.onnx"}:
            raise CatdogError(
                f"{where}: expected an operator of ONNX itself, found one of the domain {_listed(foreign)}"
            )
        if not operators or set(operators) - OPERATORS:
            raise CatdogError(
                f"{where}: expected an operator that `catdog export` writes, found {_listed(operators) or 'none'}"
            )
        if unknown := set(inputs) - self._known:
            raise CatdogError(f"{where}: expected inputs from nodes before it, found {_listed(unknown)}")
        for attribute in self._wire.messages(fields, 5):
            self._attribute(where, self._wire.fields(attribute))
        self._known.update(outputs)
        if set(inputs) <= self._constants.keys() | {""}:
            if set(operators) - _OF_CONSTANTS:
                raise CatdogError(
                    f"{where}: expected an input that depends on the photo, found {_listed(operators)} of constants"
                )
            size = sum(self._constants.get(name, 0) for name in inputs)
            self._computed += size
            self._constants.update(dict.fromkeys(outputs, size))

    def _attribute(self, where: str, fields: list[Field]) -> None:
        where = " ".join([f"{where}:", *self._wire.texts(fields, 1)])[:200]
        for number in (6, 11):
            _refuse(fields, number, f"{where}: graph")
        for number in (5, 10, 22, 23):
            _refuse(fields, number, f"{where}: tensor")
        extreme = max(self._wire.numbers(fields, 3) + self._wire.numbers(fields, 8), key=abs, default=0)
        if abs(extreme) > MAX_ATTRIBUTE:
            raise CatdogError(f"{where}: expected numbers up to {MAX_ATTRIBUTE}, found {extreme}")

    def _tensor(self, message: memoryview) -> tuple[str, int]:
        """The name of a tensor that is whole in the file, and how many values it has."""
        fields = self._wire.fields(message)
        name = " ".join(self._wire.texts(fields, 8))[:100]
        entries = [self._wire.fields(entry) for entry in self._wire.messages(fields, 13)]
        if entries or any(self._wire.numbers(fields, 14)):
            where = _listed(
                text
                for entry in entries
                if self._wire.texts(entry, 1) == ["location"]
                for text in self._wire.texts(entry, 2)
            )
            raise CatdogError(f"tensor {name}: expected its data in the file itself, found them elsewhere ({where})")
        beside = max((len(f.value) for f in fields if isinstance(f.value, memoryview) and f.number != 9), default=0)
        if beside > _BESIDE_RAW:
            raise CatdogError(f"tensor {name}: expected raw data, found {beside:,} bytes of another form")
        shape = self._wire.numbers(fields, 1)
        size = math.prod(shape[:MAX_RANK])
        if (
            len(shape) > MAX_RANK or any(extent < 0 for extent in shape) or size > 2 * len(message)
        ):  # two values of 4 bits may share a byte
            raise CatdogError(
                f"tensor {name}: expected data for its shape {str(shape)[:100]}, found {len(message):,} bytes"
            )
        return name, size


def _refuse(fields: list[Field], number: int, name: str) -> None:
    if any(field.number == number for field in fields):
        raise CatdogError(f"{name}: expected none, found one")


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts))[:100]
