"""A stranger's ONNX file is screened before ONNX Runtime sees it; what `catdog export` writes passes."""

import itertools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import measured
from helpers.figures import record
from helpers.models import tiny_model
from helpers.networks import network, photos
from onnx import TensorProto, helper, numpy_helper

from catdog_jax.backbone import vgg16
from catdog_jax.backbone.pooling import Pool
from catdog_jax.deployment import graph, precisions
from catdog_jax.errors import CatdogError
from catdog_jax.heads import head
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.runtime import model_check
from catdog_jax.runtime.predictor import Predictor

PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"
MOST = 400  # MB that refusing a file may take, the interpreter and ONNX Runtime included
Change = Callable[[onnx.ModelProto], object]


def external(location: str, **more: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, location, **more)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL

    return change


def constant(value: np.ndarray, name: str) -> Change:
    return lambda model: model.graph.initializer.append(numpy_helper.from_array(value, name))


def node(operator: str, inputs: list[str], **options: object) -> Change:
    return lambda model: model.graph.node.append(helper.make_node(operator, inputs, ["made"], name="bomb", **options))


def subgraph(operator: str, attribute: str) -> Change:
    inner = helper.make_graph([], "inner", [], [])
    return node(operator, ["mean"], **{attribute: inner})


def hidden_subgraph(model: onnx.ModelProto) -> None:
    """In an attribute that an admitted operator does not have."""
    model.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "inner", [], [])))


def function(model: onnx.ModelProto) -> None:
    made = helper.make_function("own", "Relu", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    model.functions.append(made)


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.float32([1]), "few")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0]), "where"), [2**40])
    )


def claim(model: onnx.ModelProto) -> None:
    """A constant of a terabyte without data."""
    model.graph.initializer.append(TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20]))


def unpacked(model: onnx.ModelProto) -> None:
    """Numbers of a byte each, which take eight in memory."""
    model.graph.initializer.append(helper.make_tensor("ones", TensorProto.INT64, [10**5], [1] * 10**5))


def outer_product(model: onnx.ModelProto) -> None:
    """A terabyte, computed from 4 MB when the model is loaded."""
    for shape, name in (((2**19, 1), "column"), ((1, 2**19), "row")):
        constant(np.zeros(shape, np.float32), name)(model)
    node("Mul", ["column", "row"])(model)


def casts(model: onnx.ModelProto) -> None:
    """Copies of one constant, made when the model is loaded."""
    constant(np.zeros(2**20, np.float16), "half")(model)
    made = [helper.make_node("Cast", ["half"], [f"copy {i}"], to=TensorProto.DOUBLE) for i in range(900)]
    model.graph.node.extend(made)


def out_of_order(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["later"], ["first"], to=1))
    constant(np.zeros(3, np.float16), "half")(model)
    model.graph.node.append(helper.make_node("Cast", ["half"], ["later"], to=1))


def set_version(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def padded(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("pads", [0, 10**6]))


def with_training(model: onnx.ModelProto) -> None:
    model.training_info.add()


ELSEWHERE = r"tensor middle: expected its data in the file itself, found them elsewhere \({}\)"
WRITES = "node bomb: expected an operator that `catdog export` writes, found "
CHANGES: dict[str, tuple[Change, str]] = {
    "external, beside": (external("data.bin"), ELSEWHERE.format(r"data\.bin")),
    "external, above": (external("../../etc/passwd", offset=0, length=4), ELSEWHERE.format(r"\.\./\.\./etc/passwd")),
    "external, absolute": (external("/etc/passwd"), ELSEWHERE.format("/etc/passwd")),
    "external, a link": (external("link.bin"), ELSEWHERE.format(r"link\.bin")),
    "external, a hard link": (external("hard.bin"), ELSEWHERE.format(r"hard\.bin")),
    "IR 99": (set_version, "ir_version: expected at most 10, found 99"),
    "functions": (function, "functions: expected none, found one"),
    "training": (with_training, "training_info: expected none, found one"),
    "a custom domain": (node("Relu", ["mean"], domain="evil.ops"), "of ONNX itself, found one of the domain evil.ops"),
    "Microsoft's domain": (node("Gelu", ["mean"], domain="com.microsoft"), "found one of the domain com.microsoft"),
    **{
        name: (subgraph(name, key), WRITES + name)
        for name, key in (("If", "then_branch"), ("Loop", "body"), ("Scan", "body"))
    },
    **{
        name: (node(name, ["mean", "column"]), WRITES + name)
        for name in ("Expand", "Tile", "Pad", "Resize", "ScatterND")
    },
    **{
        name: (node(name, ["column"]), WRITES + name)
        for name in ("ConstantOfShape", "RandomNormal", "NonZero", "Unknown")
    },
    "Constant": (node("Constant", [], value=numpy_helper.from_array(np.zeros(9))), WRITES + "Constant"),
    "a hidden subgraph": (hidden_subgraph, r"node pixels: body: graph: expected none, found one"),
    "sparse": (sparse, "sparse_initializer: expected none, found one"),
    "a claim": (claim, r"tensor huge: expected data for its shape \[1048576, 1048576\], found \d+ bytes"),
    "unpacked": (unpacked, "tensor ones: expected raw data, found 100,000 bytes of another form"),
    "outer product": (outer_product, "node bomb: expected an input that depends on the photo, found Mul of constants"),
    "casts": (casts, r"constants: expected at most [\d,]+ computed values, found 943,718,400"),
    "out of order": (out_of_order, "node first: expected inputs from nodes before it, found later"),
    "pads": (padded, r"node mean: pads: expected numbers up to 256, found 1000000"),
}


def refused(path: Path) -> str:
    with pytest.raises(CatdogError) as caught:
        Predictor(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("Nothing of it was run; use a model of `catdog export`.")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_export_contains_is_refused_by_name(tmp_path, name):
    change, expected = CHANGES[name]
    model = tiny_model()
    change(model)
    path = tmp_path / "model" / "m.onnx"
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    (path.parent / "data.bin").write_bytes(bytes(4))
    (path.parent / "link.bin").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", path.parent / "hard.bin")
    path.write_bytes(model.SerializeToString())
    assert re.search(expected, refused(path))


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


TINY = tiny_model().SerializeToString()
BYTES: dict[str, tuple[bytes, str]] = {
    "ONNX Runtime's format": (b"\x20\0\0\0ORTM" + TINY, "found one in ONNX Runtime's own format"),
    "two graphs": (TINY + field(7, b""), r"cannot load \(2 graphs\)"),
    # Of a repeated field protobuf takes the last; the walk looks at all.
    "two versions": (varint(1 << 3) + varint(99) + TINY, "ir_version: expected at most 10, found 99"),
    "a number for a graph": (TINY + varint(7 << 3) + b"\1", r"cannot load \(a number in field 7\)"),
    "a group": (TINY + varint(100 << 3 | 3), r"cannot load \(a field of wire type 3\)"),
    "a length beyond the file": (TINY + varint(100 << 3 | 2) + varint(2**40), "a field that is cut off"),
    "a number without an end": (TINY + b"\xff" * 11, "a number that does not end"),
    "ten million fields": (TINY + b"\x08\x01" * 10**7, "more than 200,000 numbers"),
    "a million dimensions": (TINY + field(7, field(5, field(1, b"\1" * 10**6))), "2 graphs|more than 200,000 numbers"),
    "a long name": (field(7, field(1, field(3, b"x" * 10**6))), "a name of more than 4,096 bytes"),
    "a name of no text": (field(7, field(1, field(4, b"\xff\xfe"))), "cannot load .*codec can't decode"),
    "no operator": (field(7, field(1, b"")), "node: expected an operator that `catdog export` writes, found none"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_mislead_are_refused_soon(name):
    data, expected = BYTES[name]
    start = time.perf_counter()
    with pytest.raises(CatdogError, match=expected):
        model_check.screen(data)
    assert time.perf_counter() - start < 2


def test_an_operator_named_twice_is_the_worse_of_both():
    model = tiny_model()
    model.graph.node[0].op_type = "Expand"
    made = field(1, model.graph.node[0].SerializeToString() + field(4, b"Cast"))
    del model.graph.node[0]
    graph = made + model.graph.SerializeToString()
    model.ClearField("graph")
    with pytest.raises(CatdogError, match="expected an operator that `catdog export` writes, found Cast, Expand"):
        model_check.screen(model.SerializeToString() + field(7, graph))


@pytest.mark.parametrize("kind", ["a terabyte", "a pipe", "a folder"])
def test_what_is_no_file_of_its_size_is_refused_unread(tmp_path, kind):
    path = tmp_path / "m.onnx"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 2**40)
    expected = {
        "a terabyte": "more than 536,870,912 bytes",
        "a pipe": "not a regular file",
        "a folder": "Is a directory",
    }
    with pytest.raises(
        CatdogError, match=rf"m\.onnx: expected an ONNX model of `catdog export`, found {expected[kind]}"
    ):
        Predictor(path)


@pytest.mark.parametrize("stage", ["predict", "serve"])
def test_bombs_end_in_one_line_and_little_memory(tmp_path, stage, request):
    model = tiny_model()
    outer_product(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    arguments = ["x.jpg"] if stage == "predict" else ["--port", "0"]
    done = measured.run("catdog", stage, "--model", tmp_path / "m.onnx", *arguments)
    assert done.status == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 0
    assert "found Mul of constants" in done.err
    assert done.peak < MOST
    figures = {"kinds refused": len(CHANGES) + len(BYTES), f"RSS in MB of {stage}": done.peak}
    record(f"hostile models, {stage}", figures, request.config.getoption("--long"))


# What must pass


def fitted(pool: str, hidden: tuple[int, ...]) -> head.FittedHead:
    widths = (Pool(pool).columns(7), *hidden, 1)
    names = [*(f"dense_{i}" for i in range(len(hidden))), head.OUTPUT]
    params = {
        name: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
        for name, shape in zip(names, itertools.pairwise(widths), strict=True)
    }
    return head.FittedHead(Pool(pool), params, ("cats", "dogs"), Fingerprint(), {})


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize("pool", ["none", "avg", "max", "avg+max"])
def test_every_export_passes(pool, hidden):
    shapes = {layer.name: (3, 3, layer.inputs, layer.outputs) for layer in vgg16.LAYERS}
    params = {
        name: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[3], np.float32)}
        for name, shape in shapes.items()
    }
    model = graph.build(params, "torch", fitted(pool, hidden), {}).SerializeToString()
    start = time.perf_counter()
    model_check.screen(model)
    assert time.perf_counter() - start < 0.05  # seconds, for 59 MB
    if hidden:
        model_check.screen(precisions.to_fp16(model))


def test_a_quantised_model_passes():
    model_check.screen(precisions.to_int8(network(), list(photos(2))))


def test_the_published_model_passes_and_loads():
    if not PUBLISHED.exists():
        pytest.skip("needs artifacts/default/model-int8.onnx")
    model_check.screen(PUBLISHED.read_bytes())
    assert Predictor(PUBLISHED).classes == ("cats", "dogs")
