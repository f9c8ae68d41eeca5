"""The ONNX file: its graph against NumPy and the Flax module, its contract, and what export refuses to write."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
import pytest
from helpers.exported import CELLS, POOLS, fitted_head, photo, reference_logit, session, sigmoid
from PIL import Image

from catdog_jax import __version__
from catdog_jax.backbone import vgg16, weights
from catdog_jax.backbone.pooling import Pool
from catdog_jax.commands import export, export_head
from catdog_jax.config import ExportConfig, Precision
from catdog_jax.console import console
from catdog_jax.deployment import graph, onnx_file, parity
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features import shards
from catdog_jax.files import sealed
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import RunDirectory
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DEFAULT, FIRST
from catdog_jax.runtime import predictor as predict

HEADS = {"linear": (), "one hidden layer": (8,), "two hidden layers": (8, 4)}
METADATA = {"classes": '["cats", "dogs"]', "recipe": json.dumps(FIRST.to_json())}


@pytest.fixture(scope="module")
def params() -> vgg16.Params:
    """Random convolutions whose activations keep their size from layer to layer (He initialisation)."""
    rng = np.random.default_rng(0)
    return {
        layer.name: {
            "kernel": rng.normal(0, np.sqrt(2 / (9 * layer.inputs)), (3, 3, layer.inputs, layer.outputs)).astype(
                np.float32
            ),
            "bias": rng.normal(0, 0.1, layer.outputs).astype(np.float32),
        }
        for layer in vgg16.LAYERS
    }


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.stack([photo(0), photo(1)])


def part(model: onnx.ModelProto, first: str, last: str) -> ort.InferenceSession:
    """The part of a model from one tensor to another."""
    for name, shape in {"normalised": ("N", 3, 224, 224), CELLS: ("N", 512, 7, 7)}.items():
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return session(onnx.utils.Extractor(model).extract_model([first], [last]))


# The graph


@pytest.mark.parametrize("mode", ["torch", "caffe", "unit"])
def test_preprocessing_in_the_graph_is_what_the_weights_were_trained_on(
    params: vgg16.Params, photos: np.ndarray, mode: vgg16.Mode
) -> None:
    rgb = photos.astype(np.float64)
    expected = {
        "torch": (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": rgb[..., ::-1] - [103.939, 116.779, 123.68],
        "unit": rgb / 255,
    }[mode]
    run = part(graph.build(params, mode, fitted_head("avg"), {}), "image", "normalised")
    (found,) = run.run(None, {"image": photos})
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("hidden", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("pool", POOLS)
def test_head_in_the_graph_is_the_head(params: vgg16.Params, pool: str, hidden: tuple[int, ...]) -> None:
    fitted = fitted_head(pool, hidden, feature_size=10 if "max" in pool else 1)
    cells = np.random.default_rng(2).gamma(0.5, 2, (3, 7, 7, 512)).astype(np.float32)
    run = part(graph.build(params, "torch", fitted, {}), CELLS, "probability")
    (found,) = run.run(None, {CELLS: cells.transpose(0, 3, 1, 2)})
    expected = sigmoid(reference_logit(fitted, cells))
    assert found.dtype == np.float32
    assert np.ptp(expected) > 1e-3  # the photos differ
    np.testing.assert_allclose(found, np.stack([1 - expected, expected], axis=1), atol=2e-6)


def test_the_whole_graph_agrees_with_the_flax_module_in_any_batch(params: vgg16.Params, photos: np.ndarray) -> None:
    fitted = fitted_head("avg", feature_size=100)
    cells = vgg16.VGG16().apply({"params": params}, vgg16.normalise(jnp.asarray(photos), "caffe"))
    logit = reference_logit(fitted, np.asarray(cells))
    run = session(graph.build(params, "caffe", fitted, {}))
    probability, heatmap = run.run(["probability", "heatmap"], {"image": photos})
    assert ((sigmoid(logit) > 0.01) & (sigmoid(logit) < 0.99)).all()
    np.testing.assert_allclose(probability[:, 1], sigmoid(logit), atol=1e-5)
    np.testing.assert_allclose(heatmap.mean(axis=(1, 2)) + fitted.params["output"]["bias"], logit, rtol=1e-4, atol=1e-4)
    (alone,) = run.run(["probability"], {"image": photos[1:]})
    np.testing.assert_allclose(alone, probability[1:], atol=1e-6)


@pytest.mark.parametrize(("pool", "mirror"), [("avg", False), ("max", True), ("none", False)])
def test_embeddings_are_the_flax_modules_averages_whatever_the_head(
    params: vgg16.Params, photos: np.ndarray, tmp_path: Path, pool: str, mirror: bool
) -> None:
    cells = np.asarray(
        vgg16.VGG16().apply({"params": params}, vgg16.normalise(jnp.asarray(photos), "torch")), np.float64
    )
    model = graph.build(params, "torch", fitted_head(pool), METADATA, mirror).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(model)
    found = predict.Predictor(tmp_path / "model.onnx", batch_size=2).embed(photos)
    assert found.dtype == np.float32
    expected = cells.mean(axis=(1, 2))
    assert np.linalg.norm(found - expected, axis=1).max() < 1e-5 * np.linalg.norm(expected, axis=1).min()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_pixels_are_cast_before_anything_else(params: vgg16.Params, mode: vgg16.Mode, mirror: bool) -> None:
    """TensorRT takes an input of uint8 only where a Cast follows."""
    model = graph.build(params, mode, fitted_head("avg"), {}, mirror)
    assert [node.op_type for node in model.graph.node if "image" in node.input] == ["Cast"]


def test_no_kernel_is_taken_both_ways(params: vgg16.Params) -> None:
    """OpenVINO takes a square kernel that one Gemm transposes and another does not for not transposed in either."""
    model = graph.build(params, "torch", fitted_head("avg+max", (1024,)), {})
    uses = [node for node in model.graph.node if "dense_0_kernel" in node.input]
    assert len(uses) == 2
    assert [list(node.input).index("dense_0_kernel") for node in uses] == [1, 0]  # a second factor once


def test_both_views_are_averaged(params: vgg16.Params, photos: np.ndarray) -> None:
    fitted = fitted_head("avg+max", (8,), feature_size=100)
    alone = session(graph.build(params, "torch", fitted, {}))
    own, mirrored = (alone.run(["probability", "heatmap"], {"image": view}) for view in (photos, photos[:, :, ::-1]))
    found = session(graph.build(params, "torch", fitted, {}, mirror=True)).run(
        ["probability", "heatmap"], {"image": photos}
    )
    assert np.abs(own[0] - mirrored[0]).max() > 1e-4
    np.testing.assert_allclose(found[0], (own[0] + mirrored[0]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[1], (own[1] + mirrored[1][:, :, ::-1]) / 2, atol=1e-4 * np.abs(own[1]).max())


@pytest.mark.parametrize("mirror", [False, True], ids=["one view", "both views"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_batch_of_none_has_answers_of_none(params: vgg16.Params, pool: str, mirror: bool) -> None:
    run = session(graph.build(params, "torch", fitted_head(pool, (8,)), {}, mirror=mirror))
    found = run.run(["probability", "heatmap"], {"image": np.empty((0, 224, 224, 3), np.uint8)})
    assert [(one.shape, one.dtype) for one in found] == [((0, 2), np.float32), ((0, 7, 7), np.float32)]


def test_small_probabilities_of_the_first_class_keep_their_digits(params: vgg16.Params) -> None:
    fitted = fitted_head("avg")
    output = {"kernel": np.zeros((512, 1), np.float32), "bias": np.float32([12.0])}
    run = part(graph.build(params, "torch", replace(fitted, params={"output": output}), {}), CELLS, "probability")
    (found,) = run.run(None, {CELLS: np.zeros((1, 512, 7, 7), np.float32)})
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(12.0)), rel=1e-5)  # 1 - 0.99999386 in float32 is 0.1 % off


@pytest.mark.parametrize("pool", ["avg+max", "none"])
def test_the_model_keeps_the_contract(params: vgg16.Params, pool: str) -> None:
    model = graph.build(params, "torch", fitted_head(pool, (8,)), METADATA)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert (
        sum(np.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name.startswith("block")) == 14_714_688
    )
    run = session(model)
    assert [(i.name, i.type, i.shape) for i in run.get_inputs()] == [("image", "tensor(uint8)", ["N", 224, 224, 3])]
    outputs = {output.name: (output.type, output.shape) for output in run.get_outputs()}
    assert outputs == {"probability": ("tensor(float)", ["N", 2]), "heatmap": ("tensor(float)", ["N", 7, 7])}
    assert run.get_modelmeta().custom_metadata_map == METADATA | {"heatmap": "linearised head", "precision": "fp32"}


def test_heat_map_of_a_linear_head_on_averages_adds_up_to_the_logit(params: vgg16.Params) -> None:
    fitted = fitted_head("avg")
    model = graph.build(params, "torch", fitted, METADATA)
    assert session(model).get_modelmeta().custom_metadata_map["heatmap"] == "class activation map"
    cells = np.random.default_rng(3).gamma(0.5, 2, (3, 7, 7, 512)).astype(np.float32)
    (heatmap,) = part(model, CELLS, "heatmap").run(None, {CELLS: cells.transpose(0, 3, 1, 2)})
    output = fitted.params["output"]
    np.testing.assert_allclose(heatmap, (cells.astype(np.float64) @ output["kernel"])[..., 0], atol=1e-4)
    np.testing.assert_allclose(heatmap.mean(axis=(1, 2)) + output["bias"], reference_logit(fitted, cells), atol=1e-5)


@pytest.mark.parametrize("hidden", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("pool", POOLS)
def test_heat_map_is_the_gradient_times_the_cells(params: vgg16.Params, pool: str, hidden: tuple[int, ...]) -> None:
    """The graph has no gradients; JAX's, through pooling and head, are an independent way to the same contributions."""
    fitted = fitted_head(pool, hidden, feature_size=10 if "max" in pool else 1)
    cells = np.random.default_rng(4).gamma(0.5, 2, (3, 7, 7, 512)).astype(np.float32)
    cells[cells < 0.5] = 0  # as ReLU leaves them
    cells[0, 2, 3, 7] = cells[0, 5, 1, 7] = 50  # a maximum that two cells share
    pooled = Pool(pool).apply
    slopes = jax.grad(lambda x: head.logits(fitted.params, pooled(x)).sum())(jnp.asarray(cells))
    expected = 49 * (np.asarray(slopes, np.float64) * cells).sum(axis=-1)
    (found,) = part(graph.build(params, "torch", fitted, {}), CELLS, "heatmap").run(
        None, {CELLS: cells.transpose(0, 3, 1, 2)}
    )
    assert found.shape == (3, 7, 7)
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# The stage


@pytest.fixture(scope="module")
def weights_file(params: vgg16.Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    weights.save(path, weights.Weights(params, "torch", weights.digest(params), "random"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes in three splits; of the test split one cannot be read."""
    root = tmp_path_factory.mktemp("photos")
    for seed, (split, name) in enumerate((s, c) for s in ("train", "validation", "test") for c in ("cats", "dogs")):
        (root / split / name).mkdir(parents=True)
        Image.fromarray(photo(seed)).save(root / split / name / "0.png")
    (root / "test" / "dogs" / "broken.jpg").write_bytes(b"no photo")
    return root


def make_run(directory: Path, params: vgg16.Params) -> Path:
    """A run directory whose head was trained on features of overridden preprocessing."""
    fingerprint = Fingerprint(
        weights_sha256=weights.digest(params),
        preprocessing="caffe",
        preprocessing_version=vgg16.PREPROCESSING_VERSION,
        image=FIRST.to_json(),
        classes=("cats", "dogs"),
    )
    directory.mkdir()
    fitted_head("avg+max", (8,), fingerprint, feature_size=100).save(directory / "head.safetensors")
    return directory


@pytest.fixture
def run(params: vgg16.Params, tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", params)


def settings(run: Path, weights_file: Path, folder: Path) -> ExportConfig:
    return ExportConfig(run=run, weights=str(weights_file), data=str(folder), parity_photos=2)


class Exported(NamedTuple):
    """One real export, which takes seconds: its file, what it said, and what JAX said of its photos."""

    path: Path
    said: str
    jax: np.ndarray


@pytest.fixture(scope="module")
def exported(
    params: vgg16.Params, weights_file: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    run = make_run(tmp_path_factory.mktemp("exported") / "run", params)
    fitted = head.load(run / "head.safetensors")
    metrics = {"n": 9, "metrics": {"accuracy": {"value": 1.0}}, "worst": [{"id": "private.jpg"}]}
    metrics |= {"own_features": True, "head_sha256": head.digest(fitted.params)}
    (run / "metrics.json").write_text(json.dumps(metrics))
    asked, answers = parity.expected, []

    def recorded(*arguments: Any) -> parity.Answers:
        answers.append(asked(*arguments))
        return answers[-1]

    with pytest.MonkeyPatch.context() as patch, console.capture() as captured:
        patch.setattr(parity, "_BATCH", 2)  # the smallest, as the rest of a batch is padding
        patch.setattr(parity, "expected", recorded)
        path = export.export(settings(run, weights_file, folder))
    return Exported(path, " ".join(captured.get().split()), answers[0].probabilities)


class HalfSession:
    """ONNX Runtime with a model that says 0.500001 of everything, so that a decision can differ where little else does."""

    def __init__(self, model: bytes, providers: list[str]):
        del model, providers

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        second = np.full(len(inputs["image"]), 0.500001)
        return [np.stack([1 - second, second], axis=1).astype(np.float32)]


def test_export_writes_a_file_that_stands_alone(exported: Exported, folder: Path) -> None:
    run = exported.path.parent
    assert sorted(one.name for one in run.iterdir()) == ["head.safetensors", "metrics.json", "model.onnx"]
    assert "agrees with JAX on 2 photos" in exported.said
    predictor = predict.Predictor(exported.path)
    assert predictor.classes == ("cats", "dogs")
    said = predictor.metadata
    fitted = head.load(run / "head.safetensors")
    assert said["preprocessing"] == "caffe"
    assert said["weights_sha256"] == fitted.fingerprint.weights_sha256
    assert json.loads(said["features"]) == fitted.fingerprint.to_json()
    assert len(said["features_fingerprint"]) == 64
    assert json.loads(said["recipe"]) == FIRST.to_json()
    # The recipe of this head has no level
    assert json.loads(said["decision"]) == {"threshold": 0.5, "abstain_below": None}
    assert json.loads(said["test_metrics"])["n"] == 9
    assert "private.jpg" not in str(said)
    assert json.loads(said["parity"]) == {"photos": 2, "tolerance": 1e-4}
    assert str(folder.parent) not in str(said)
    assert said["version"] == __version__
    assert "Apache-2.0" in said["licences"]
    assert "BSD-3-Clause" in said["licences"]


def test_a_tampered_model_disagrees_with_jax_and_leaves_the_old_file(
    exported: Exported, run: Path, weights_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = graph.build

    def tampered(params: vgg16.Params, mode: vgg16.Mode, fitted: head.FittedHead, *rest: Any) -> onnx.ModelProto:
        output = fitted.params["output"]
        shifted = {**fitted.params, "output": {**output, "bias": output["bias"] + np.float32(0.1)}}
        return build(params, mode, replace(fitted, params=shifted), *rest)

    (run / "model.onnx").write_bytes(b"the model of yesterday")
    monkeypatch.setattr(graph, "build", tampered)
    monkeypatch.setattr(parity, "expected", lambda *_: parity.Answers(exported.jax))
    message = (
        r"model\.onnx: expected JAX's probabilities within 0\.0001 .* on 2 photos of .*, found a difference of 0\.0"
    )
    with pytest.raises(CatdogError, match=message):
        export.export(settings(run, weights_file, folder))
    assert (run / "model.onnx").read_bytes() == b"the model of yesterday"
    assert sorted(one.name for one in run.iterdir()) == ["head.safetensors", "model.onnx"]


def test_a_model_that_disagrees_with_jax_leaves_no_file(
    run: Path, weights_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity.side_by_side.ort, "InferenceSession", HalfSession)
    monkeypatch.setattr(parity, "expected", lambda *_: parity.Answers(np.array([0.500001, 0.4])))
    with pytest.raises(CatdogError, match=r"found a difference of 0\.1 and 2 other decisions\. Nothing was written"):
        export.export(settings(run, weights_file, folder))
    assert [one.name for one in run.iterdir()] == ["head.safetensors"]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (0.5003, "found a difference of 0.0003 and 0 other decisions"),
        (0.499999, "found a difference of 2e-06 and 2 other decisions"),
        (np.nan, "found a difference of nan"),
    ],
)
def test_parity_fails_on_a_difference_a_decision_or_nan(
    expected: float, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity.side_by_side.ort, "InferenceSession", HalfSession)
    black = np.zeros((1, 224, 224, 3), np.uint8)
    assert parity.check("m.onnx", b"", parity.Answers(np.array([0.500001])), black, "photos").difference < 1e-6
    with pytest.raises(CatdogError, match=found):
        parity.check("m.onnx", b"", parity.Answers(np.array([expected])), black, "photos")


def test_parity_is_of_the_decisions_that_the_head_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity.side_by_side.ort, "InferenceSession", HalfSession)
    black = np.zeros((1, 224, 224, 3), np.uint8)
    assert parity.check("m.onnx", b"", parity.Answers(np.array([0.499999])), black, "photos", 0.2).difference < 1e-5
    with pytest.raises(CatdogError, match="and 2 other decisions"):
        parity.check("m.onnx", b"", parity.Answers(np.array([0.499999])), black, "photos", 0.5000005)


def test_other_weights_than_those_of_the_features_are_refused(run: Path, weights_file: Path, folder: Path) -> None:
    fitted = head.load(run / "head.safetensors")
    replace(fitted, fingerprint=replace(fitted.fingerprint, weights_sha256="0" * 64)).save(run / "head.safetensors")
    with pytest.raises(
        CatdogError, match=rf"vgg16\.safetensors: expected the weights .*sha256 {'0' * 64}, found [0-9a-f]{{64}} "
    ):
        export.export(settings(run, weights_file, folder))
    assert not (run / "model.onnx").exists()


def test_features_of_photos_decoded_in_another_way_are_refused(run: Path, weights_file: Path, folder: Path) -> None:
    fitted = head.load(run / "head.safetensors")
    other = replace(fitted.fingerprint, image=FIRST.to_json() | {"version": 0})
    replace(fitted, fingerprint=other).save(run / "head.safetensors")
    with pytest.raises(CatdogError, match=r"found: fingerprint: image: version: expected 1 or 2, found 0\."):
        export.export(settings(run, weights_file, folder))


FIGURES = {"n": 9, "metrics": {"accuracy": {"value": 1.0}}, "worst": [{"id": "private.jpg"}], "own_features": True}


@pytest.mark.parametrize("other", [{"own_features": False}, {"head_sha256": "0" * 64}, {"threshold": 0.2}])
def test_figures_of_other_photos_or_heads_stay_out_of_the_file(other: dict) -> None:
    fitted = fitted_head("avg")
    own = FIGURES | {"head_sha256": head.digest(fitted.params)}
    expected = {"split": "test", "n": 9, "warnings": [], "metrics": own["metrics"], "confusion": None}
    assert onnx_file.tested_figures(fitted, ("original",), own) == expected
    evaluation = SimpleNamespace(to_json=lambda: own)
    assert onnx_file.tested_figures(fitted, ("original",), evaluation) == expected
    for figures, views in ((own | other, ("original",)), (own, ("original", "mirror")), (None, ("original",))):
        assert onnx_file.tested_figures(fitted, views, figures) is None
    folds = onnx_file.tested_figures(fitted, ("original",), own | {"split": "folds"})
    assert folds == expected | {"split": "folds"}
    assert onnx_file.tested_figures(fitted, ("original",), own | {"split": "validation"}) is None


def test_a_file_without_test_figures_says_so_and_altered_ones_are_refused(
    run: Path, weights_file: Path, folder: Path, stand_in: None, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = settings(run, weights_file, folder)
    export.export(wanted)
    message = f"The file gets no test figures: {run / 'metrics.json'} holds none of this head"
    assert message in " ".join(capsys.readouterr().err.split())
    fitted = head.load(run / "head.safetensors")
    sealed.write_sealed_json(run / "metrics.json", FIGURES | {"head_sha256": head.digest(fitted.params)})
    assert json.loads(predict.Predictor(export.export(wanted)).metadata["test_metrics"])["n"] == 9
    assert "no test figures" not in capsys.readouterr().err
    (run / "metrics.json").write_text((run / "metrics.json").read_text().replace('"n": 9', '"n": 8'))
    with pytest.raises(CatdogError, match=r"metrics\.json: expected a metrics file .* it is altered"):
        export.export(wanted)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export whose comparison with JAX, which takes seconds, is left out."""
    monkeypatch.setattr(parity, "expected", lambda *_: np.zeros(2))
    monkeypatch.setattr(parity, "check", lambda name, *_: parity.Parity(2, name, 0.0))


@pytest.mark.parametrize("level", [0.64, None])
def test_the_level_to_abstain_at_goes_from_the_head_into_the_file(
    level: float | None, params: vgg16.Params, weights_file: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", params)
    fitted, loaded = head.load(run / "head.safetensors"), weights.load(str(weights_file), "caffe")
    fitted = replace(fitted, recipe=fitted.recipe | {"abstain_below": level})
    said = onnx_file.metadata(fitted, loaded, ("original",), None)
    assert json.loads(said["decision"]) == {"threshold": 0.5, "abstain_below": level}
    assert "test_metrics" not in said
    with pytest.raises(CatdogError, match="head: abstain_below: expected a number from 0 to 1, found NaN"):
        onnx_file.metadata(replace(fitted, recipe={"abstain_below": float("nan")}), loaded, ("original",), None)


def test_without_a_path_nothing_is_written_and_the_same_bytes_are_returned(
    run: Path, weights_file: Path, folder: Path, stand_in: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, options = head.load(run / "head.safetensors"), {"weights": str(weights_file), "parity_photos": 2}
    found = onnx_file.export(fitted, photos=sources.load(str(folder), ()), **options)
    assert [path.name for path in run.iterdir()] == ["head.safetensors"]
    assert not "".join(capsys.readouterr()).strip()
    assert (found.path, found.gate, found.tested, found.notes) == (None, None, False, ())
    assert "in memory" in repr(found)
    written = onnx_file.export(fitted, str(run / "own.onnx"), photos=str(folder), **options)
    assert bytes(written) == bytes(found) == (run / "own.onnx").read_bytes()


def test_a_head_on_other_features_cannot_be_exported() -> None:
    fitted = fitted_head("avg")
    for foreign in (fitted, replace(fitted, pool=None, fingerprint=Fingerprint(views=("original",)))):
        with pytest.raises(
            CatdogError, match=r"head: expected one .* features of this package, found one of 512 columns"
        ):
            onnx_file.export(foreign)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "--precision: expected fp32, fp16 or int8, found int4"),
        ({"views": "original"}, "--views: expected original or mirror"),
        ({"views": ("mirror",)}, "--views: expected original, with mirror or without, found mirror"),
        ({"parity_photos": 1}, "--parity-photos: expected 2 or more, found 1"),
        ({"gate_photos": -1}, "--gate-photos: expected 0 or more, found -1"),
    ],
)
def test_arguments_out_of_range_are_wrong_usage(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        onnx_file.export(fitted_head("avg"), **options)


def test_every_precision_of_the_command_line_can_be_made() -> None:
    assert tuple(onnx_file.PRECISIONS) == get_args(Precision)


def test_a_file_of_both_views_agrees_with_jax_and_has_their_figures(
    run: Path, weights_file: Path, folder: Path
) -> None:
    averaged = {"views": 2, "metrics": {"accuracy": {"value": 0.75}}}
    metrics = {"n": 9, "metrics": {"accuracy": {"value": 1.0}}, "confusion": [], "views_averaged": averaged}
    metrics |= {"own_features": True, "head_sha256": head.digest(head.load(run / "head.safetensors").params)}
    (run / "metrics.json").write_text(json.dumps(metrics))
    wanted = replace(settings(run, weights_file, folder), views=("original", "mirror"))
    said = predict.Predictor(export.export(wanted)).metadata
    assert json.loads(said["views"]) == ["original", "mirror"]
    assert json.loads(said["test_metrics"])["metrics"] == averaged["metrics"]


# The photos of the comparison


def test_unreadable_photos_are_passed_over_and_the_test_split_comes_first(folder: Path) -> None:
    left_out: dict[str, str] = {}
    pixels = parity.photos_of(sources.load(str(folder), ()), 2, left_out, FIRST)
    expected = [decoding.decode((folder / "test" / name / "0.png").read_bytes(), DEFAULT) for name in ("cats", "dogs")]
    assert sorted(one.tobytes() for one in pixels) == sorted(one.tobytes() for one in expected)


def test_photos_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    for split in sources.SPLITS:
        for name in ("cats", "dogs"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").write_bytes(b"no photo")
    with pytest.raises(CatdogError, match="expected at least 2 photos that can be read, found 0"):
        parity.photos_of(sources.load(str(tmp_path)), 32, {}, FIRST)


def test_photos_that_are_left_out_are_counted_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_out: dict[str, str] = {}
    parity.photos_of(sources.load(str(folder), ()), 6, left_out, FIRST)
    export_head._say_left_out(left_out)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "photos that cannot be decoded and were left out of the checks: 1, for example 'test/dogs/broken.jpg': expected JPEG"
        in said
    )
    export_head._say_left_out({})
    assert not capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_failing_disk_stops_the_checks(
    run: Path, weights_file: Path, folder: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an int8 file it is the photos of the gate and the calibration that fail."""
    read = decoding.read_photo

    def fail(path: Path) -> bytes:
        if (precision == "int8") == ("test" not in path.parts):
            raise decoding.UnreadableError("cannot be read: Input/output error")
        return read(path)

    monkeypatch.setattr(decoding, "read_photo", fail)
    monkeypatch.setattr(sources, "_BEFORE_RETRY", 0)
    if precision == "int8":
        monkeypatch.setattr(parity, "expected", lambda *_: np.zeros(2))
        monkeypatch.setattr(parity, "check", lambda *_: None)
    with pytest.raises(CatdogError, match=r"Input/output error, twice\. Repair the disk"):
        export.export(replace(settings(run, weights_file, folder), precision=precision))
    assert [one.name for one in run.iterdir()] == ["head.safetensors"]


def test_by_default_the_photos_are_those_of_the_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = sources.load
    monkeypatch.setattr(
        sources,
        "load",
        lambda source, *_, **__: load(str(folder)) if source in ("demo", "photos") else pytest.fail(source),
    )
    run, message = RunDirectory(tmp_path), "The photos of the training are not at hand"
    assert message in parity.photos_at_hand(run, ())[1]
    (tmp_path / "features").mkdir()
    shards.write_manifest(tmp_path / "features", "photos", [], Fingerprint())
    (tmp_path / "config.json").write_text(json.dumps({"features": str(tmp_path / "features")}))
    found, note = parity.photos_at_hand(run, ())
    assert (found.classes, note) == (("cats", "dogs"), "")
    (tmp_path / "features" / "manifest.json").unlink()
    found, note = parity.photos_at_hand(run, ())
    assert found.classes == ("cats", "dogs")
    assert message in note
