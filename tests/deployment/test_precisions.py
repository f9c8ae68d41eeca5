"""fp16 and int8 files of a small network, the figures they are judged by, and the gate."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import sklearn.metrics
from helpers.networks import exactly, is_exact, kernels, network, on_an_old_cpu, photos, probabilities
from onnx import TensorProto, numpy_helper

from catdog_jax.deployment import gate, onnx_file, precisions
from catdog_jax.errors import CatdogError
from catdog_jax.photos import sources
from catdog_jax.photos.recipe import FIRST
from catdog_jax.runtime import side_by_side


def test_fp16_halves_the_weights_and_changes_probabilities_by_rounding():
    model, pixels = network(), photos(8)
    halved = precisions.to_fp16(model)
    onnx.checker.check_model(halved, full_check=True)
    found = {one.name: one for one in onnx.load_from_string(halved).graph.initializer}
    assert found["kernel_fp16"].data_type == TensorProto.FLOAT16
    assert found["bias"].data_type == TensorProto.FLOAT  # too small to matter
    difference = np.abs(probabilities(halved, pixels) - probabilities(model, pixels)).max()
    assert 0 < difference < 1e-3


def test_int8_keeps_the_probabilities_the_contract_and_the_metadata():
    model, pixels = network(), photos(16)
    quantised = precisions.to_int8(model, list(pixels[::2]))
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
    measured = gate.compare(found, fp32, labels, 2.0)
    accuracies = [sklearn.metrics.accuracy_score(labels, side >= 0.5) for side in (found, fp32)]
    assert (measured.accuracy, measured.fp32_accuracy) == tuple(pytest.approx(one) for one in accuracies)
    assert measured.log_loss == pytest.approx(sklearn.metrics.log_loss(labels, found))
    assert measured.drop == pytest.approx(accuracies[1] - accuracies[0])
    right, fp32_right = (found >= 0.5) == labels, (fp32 >= 0.5) == labels
    drawn = rng.integers(0, 400, (4000, 400))
    drops = fp32_right[drawn].mean(axis=1) - right[drawn].mean(axis=1)
    assert (measured.drop_low, measured.drop_high) == tuple(
        pytest.approx(end, abs=0.003) for end in np.percentile(drops, (2.5, 97.5))
    )


def test_both_files_decide_by_the_threshold_of_the_head():
    labels, fp32, found = np.array([0, 1, 1]), np.array([0.1, 0.3, 0.9]), np.array([0.1, 0.1, 0.9])
    assert gate.compare(found, fp32, labels, 1.0).drop == 0
    assert gate.compare(found, fp32, labels, 1.0, 0.2).drop == pytest.approx(1 / 3)


def test_a_few_photos_without_a_difference_leave_a_drop_possible():
    probabilities = np.array([0.1, 0.9, 0.2, 0.8])
    measured = gate.compare(probabilities, probabilities, np.array([0, 1, 0, 1]), 1.0)
    assert measured.drop == 0
    assert -measured.drop_low == measured.drop_high > 0.3


def test_both_files_judge_the_same_photos():
    model, pixels = network(), photos(11)
    labels = np.arange(11) % 2
    measured = gate.measure(
        precisions.to_fp16(model), model, iter(zip(([one, one] for one in pixels), labels, strict=True)), 11
    )
    expected = (probabilities(model, pixels) >= 0.5) == labels
    assert (measured.n, measured.fp32_accuracy) == (11, pytest.approx(expected.mean()))
    assert measured.speed > 0


# CPUs without VNNI


def with_kernel(kernel: np.ndarray) -> bytes:
    """A quantised model with these weights, int8 [64, 3, 3, 3]."""
    model = onnx.load_from_string(precisions.to_int8(network(), list(photos(2))))
    stored = next(one for one in model.graph.initializer if one.data_type == TensorProto.INT8 and len(one.dims) == 4)
    stored.CopyFrom(numpy_helper.from_array(kernel, stored.name))
    return model.SerializeToString()


@pytest.mark.parametrize(("weights", "exact"), [
    ((127, 127), False),  # what the quantiser gives without its reduced range: 255 * 254 is 64,770
    ((-127, -2), False),
    ((100, 29), False),
    ((100, 28), True),
    ((-64, -64), True),
    ((127, -127), True),  # one takes from the other
])  # fmt: skip
def test_two_weights_of_a_filter_are_found_that_some_cpus_multiply_wrongly(weights, exact):
    kernel = np.zeros((64, 3, 3, 3), np.int8)
    kernel[7, 0, 0, 0], kernel[7, 2, 2, 1] = weights  # far apart: engines differ in which they pair
    assert is_exact(kernel) == exact
    assert (precisions.saturating(with_kernel(kernel)) == []) == exact


def test_the_worst_photo_is_summed_up_alike_on_all_cpus():
    model = precisions.to_int8(network(), list(photos(4)))
    assert all(is_exact(kernel) for kernel in kernels(model).values())
    assert precisions.saturating(model) == []
    widest = max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels(model).values())
    assert widest == 64  # no bit is left unused


def test_a_file_that_some_cpus_multiply_wrongly_is_not_written(drawn, monkeypatch):
    wide = with_kernel(np.full((64, 3, 3, 3), 127, np.int8))
    made = precisions.PRECISIONS["int8"]._replace(convert=lambda *_: wide)
    monkeypatch.setitem(precisions.PRECISIONS, "int8", made)
    with pytest.raises(
        CatdogError, match=r"all CPUs multiply alike, found \S+, which saturate without VNNI\. Nothing was written"
    ):
        drawn("int8")


@pytest.mark.long
def test_an_old_cpu_answers_as_a_new_one(tmp_path):
    pixels = photos(3)
    model = precisions.to_int8(network(), list(pixels))
    assert np.ptp(exactly(model, pixels)) > 0.1  # or the comparison says nothing
    np.testing.assert_allclose(on_an_old_cpu(model, pixels, tmp_path), exactly(model, pixels), atol=1e-5)
    kernel = np.full((64, 3, 3, 3), 64, np.int8)
    kernel[:, :, 0] = -127
    saturates = with_kernel(kernel)  # or the emulator shows nothing
    assert np.abs(on_an_old_cpu(saturates, pixels, tmp_path) - exactly(saturates, pixels)).max() > 5e-3


@pytest.fixture
def drawn(monkeypatch):
    """Makes a smaller file of the small network, on photos that are made up."""
    records = [
        sources.Record(f"{split}/{label}/{i}", label, split, 1, lambda: b"")
        for split in ("train", "validation")
        for label in (0, 1)
        for i in range(3)
    ]
    dataset = sources.Dataset("made", ("cats", "dogs"), tuple(records))
    monkeypatch.setattr(
        side_by_side,
        "readable",
        lambda records, _, recipes: (([photos(1)[0]] * len(recipes), one.label) for one in records),
    )

    def make(precision, classes=("cats", "dogs"), force=False, splits=("train", "validation")):
        taken = dataclasses.replace(dataset, records=tuple(one for one in records if one.split in splits))
        return onnx_file.smaller("m.onnx", network(), precision, taken, classes, 500, force, {}, FIRST)

    return make


def figures(drop: float) -> gate.Gate:
    return gate.Gate(500, 0.98 - drop, 0.05, 0.98, 0.04, drop, drop - 0.002, drop + 0.002, 1.0)


def test_a_file_that_is_less_accurate_is_refused_unless_forced(drawn, monkeypatch):
    monkeypatch.setattr(gate, "measure", lambda *_: figures(0.004))
    with pytest.raises(
        CatdogError, match=r"m.onnx: expected fp16 within 0.3 points of fp32, found .*a drop of 0.40 points"
    ):
        drawn("fp16")
    model, _ = drawn("fp16", force=True)
    known = {one.key: one.value for one in onnx.load_from_string(model).metadata_props}
    assert (known["precision"], json.loads(known["gate"])["drop"]) == ("fp16", 0.004)


def test_a_file_that_is_as_accurate_says_so(drawn, monkeypatch):
    monkeypatch.setattr(gate, "measure", lambda *_: figures(0.003))
    _, measured = drawn("fp16")
    said = measured.said("made")
    assert "accuracy 97.70% against fp32's 98.00% on 500 validation photos of made" in said


def test_without_validation_photos_training_photos_are_taken_and_called_so(drawn, monkeypatch):
    counts = []
    monkeypatch.setattr(gate, "measure", lambda *given: counts.append(given[3]) or figures(0.0))
    model, measured = drawn("fp16", splits=("train",))
    assert counts == [6]
    assert "on 500 training photos, having no others, of made" in measured.said("made")
    known = {one.key: one.value for one in onnx.load_from_string(model).metadata_props}
    assert json.loads(known["gate"])["split"] == "train"


def test_photos_of_other_classes_cannot_be_the_gate(drawn):
    with pytest.raises(CatdogError, match=r"made: expected photos of \('birds', 'fish'\).*--data"):
        drawn("int8", classes=("birds", "fish"))
