"""fp16 and int8 files of a small network, the figures they are judged by, and the gate."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import sklearn.metrics
from onnx import TensorProto, helper, numpy_helper

from catdog_jax import data, export, variants
from catdog_jax.config import ExportConfig
from catdog_jax.errors import CatdogError


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
    blocks = rng.integers(0, 256, (count, 14, 14, 3)) * np.linspace(0.05, 1, count)[:, None, None, None]  # dark to bright
    return np.repeat(np.repeat(blocks.astype(np.uint8), 16, axis=1), 16, axis=2)


def probabilities(model: bytes, pixels: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["probability"], {"image": pixels})[0][:, 1]


def test_fp16_halves_the_weights_and_changes_probabilities_by_rounding():
    model, pixels = network(), photos(8)
    halved = variants.to_fp16(model)
    onnx.checker.check_model(halved, full_check=True)
    found = {one.name: one for one in onnx.load_from_string(halved).graph.initializer}
    assert found["kernel_fp16"].data_type == TensorProto.FLOAT16
    assert found["bias"].data_type == TensorProto.FLOAT  # too small to matter
    difference = np.abs(probabilities(halved, pixels) - probabilities(model, pixels)).max()
    assert 0 < difference < 1e-3


def test_int8_keeps_the_probabilities_the_contract_and_the_metadata():
    model, pixels = network(), photos(16)
    quantised = variants.to_int8(model, list(pixels[::2]))
    loaded = onnx.load_from_string(quantised)
    kernels = [one for one in loaded.graph.initializer if one.data_type == TensorProto.INT8 and len(one.dims) == 4]
    assert [list(kernel.dims) for kernel in kernels] == [[64, 3, 3, 3]]
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in loaded.graph.node}
    assert {one.key: one.value for one in loaded.metadata_props} == {"classes": '["cats", "dogs"]'}
    expected = probabilities(model, pixels)
    assert np.ptp(expected) > 0.3  # or the comparison says nothing
    np.testing.assert_allclose(probabilities(quantised, pixels), expected, atol=0.05)


def test_the_figures_are_those_of_scikit_learn_and_the_drop_is_paired():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    fp32 = np.clip(labels * 0.6 + rng.uniform(0, 0.4, 400), 0.01, 0.99)
    found = np.where(rng.uniform(size=400) < 0.05, 1 - fp32, fp32)
    gate = variants.compare(found, fp32, labels, 2.0)
    accuracies = [sklearn.metrics.accuracy_score(labels, side >= 0.5) for side in (found, fp32)]
    assert (gate.accuracy, gate.fp32_accuracy) == tuple(pytest.approx(one) for one in accuracies)
    assert gate.log_loss == pytest.approx(sklearn.metrics.log_loss(labels, found))
    assert gate.drop == pytest.approx(accuracies[1] - accuracies[0])
    right, fp32_right = (found >= 0.5) == labels, (fp32 >= 0.5) == labels
    drawn = rng.integers(0, 400, (4000, 400))
    drops = fp32_right[drawn].mean(axis=1) - right[drawn].mean(axis=1)
    assert (gate.drop_low, gate.drop_high) == tuple(pytest.approx(end, abs=0.003) for end in np.percentile(drops, (2.5, 97.5)))


def test_a_few_photos_without_a_difference_leave_a_drop_possible():
    probabilities = np.array([0.1, 0.9, 0.2, 0.8])
    gate = variants.compare(probabilities, probabilities, np.array([0, 1, 0, 1]), 1.0)
    assert gate.drop == 0
    assert -gate.drop_low == gate.drop_high > 0.3


def test_both_files_judge_the_same_photos():
    model, pixels = network(), photos(11)
    labels = np.arange(11) % 2
    gate = variants.judge(variants.to_fp16(model), model, iter(zip(pixels, labels, strict=True)), 11)
    expected = (probabilities(model, pixels) >= 0.5) == labels
    assert (gate.n, gate.fp32_accuracy) == (11, pytest.approx(expected.mean()))
    assert gate.speed > 0


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """An export whose fp32 file is the small network, on photos that are made up."""
    records = [
        data.Record(f"{split}/{label}/{i}", label, split, 1, lambda: b"")
        for split in ("train", "validation")
        for label in (0, 1)
        for i in range(3)
    ]
    monkeypatch.setattr(export, "_parity_dataset", lambda _: data.Dataset("made", ("cats", "dogs"), tuple(records)))
    monkeypatch.setattr(export, "_readable", lambda records: [photos(1)[0] for _ in records])
    return tmp_path / "model-fp16.onnx"


def gate(drop: float) -> variants.Gate:
    return variants.Gate(500, 0.98 - drop, 0.05, 0.98, 0.04, drop, drop - 0.002, drop + 0.002, 1.0)


def test_a_file_that_judges_worse_is_refused_unless_forced(drawn, monkeypatch):
    monkeypatch.setattr(variants, "judge", lambda *_: gate(0.004))
    with pytest.raises(
        CatdogError, match=r"model-fp16.onnx: expected fp16 within 0.3 points of fp32, found .*a drop of 0.40 points"
    ):
        export._variant(ExportConfig(precision="fp16"), drawn, network(), ("cats", "dogs"))
    model, _ = export._variant(ExportConfig(precision="fp16", force=True), drawn, network(), ("cats", "dogs"))
    known = {one.key: one.value for one in onnx.load_from_string(model).metadata_props}
    assert (known["precision"], json.loads(known["gate"])["drop"]) == ("fp16", 0.004)


def test_a_file_that_judges_as_well_says_so(drawn, monkeypatch):
    monkeypatch.setattr(variants, "judge", lambda *_: gate(0.003))
    _, told = export._variant(ExportConfig(precision="fp16"), drawn, network(), ("cats", "dogs"))
    assert "accuracy 97.70% against fp32's 98.00% on 500 validation photos of made" in told


def test_photos_of_other_classes_cannot_be_the_gate(drawn):
    with pytest.raises(CatdogError, match=r"made: expected photos of \('birds', 'fish'\).*--data"):
        export._variant(ExportConfig(precision="int8"), drawn, network(), ("birds", "fish"))
