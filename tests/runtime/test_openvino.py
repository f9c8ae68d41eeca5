"""Exported files in OpenVINO, another engine that users run them in: probabilities and heat maps.

Up to 2026.4 at least, its float32 CPU plugin computes garbage where one square kernel feeds two
Gemms of which one transposes it, as the heat map did. Hence the heads with square kernels."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.exported import CELLS, COLUMNS, POOLS, fitted_head, photo, reference_logit, session, sigmoid

from catdog_jax.backbone import vgg16
from catdog_jax.deployment import graph, precisions
from catdog_jax.heads import head
from catdog_jax.photos.demo import drawing

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # or importing OpenVINO reports home
openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'catdog-jax[dev]'")

PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"
OUTPUTS = ("probability", "heatmap")
CLOSE, FAR = 0.02, 0.1  # probabilities, and cells by the largest: in 8 bits, engines round differently


def in_openvino(model: bytes, name: str, values: np.ndarray) -> list[np.ndarray]:
    """What OpenVINO says of an input, on a CPU in float32 (and in 8 bits where the file is)."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: Any = compiled({name: values})
    return [np.array(found[output]) for output in OUTPUTS]


def in_onnxruntime(model: bytes, values: np.ndarray) -> list[np.ndarray]:
    return session(onnx.load_from_string(model)).run(list(OUTPUTS), {"image": values})


def reference_heat_map(fitted: head.FittedHead, cells: np.ndarray) -> np.ndarray:
    """In float64, from cells [N, 7, 7, 512]: the slope of the logit by each column, times what a cell gives to the column."""
    cells = cells.astype(np.float64)
    top = cells.max(axis=(1, 2), keepdims=True)
    reached = cells == top
    tops = 49 * cells * reached / reached.sum(axis=(1, 2), keepdims=True)
    given = {"avg": [cells], "max": [tops], "avg+max": [cells, tops], "none": [49 * cells]}[fitted.pool]
    x = cells.reshape(len(cells), -1) if fitted.pool == "none" else np.hstack([one.mean(axis=(1, 2)) for one in given])
    *hidden, last = fitted.params.values()
    masks = []
    for layer in hidden:
        x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
        masks.append(x > 0)
        x = np.maximum(x, 0)
    slopes = np.tile(last["kernel"].T.astype(np.float64), (len(cells), 1))
    for layer, mask in zip(reversed(hidden), reversed(masks), strict=True):
        slopes = (slopes * mask) @ layer["kernel"].T.astype(np.float64)
    shape = (len(cells), 7, 7, 512) if fitted.pool == "none" else (len(cells), 1, 1, -1)
    return (slopes.reshape(shape) * np.concatenate(given, axis=3)).sum(axis=3)


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    """The convolutions with an eighth of their channels, which compile in no time."""
    widths = {3: 3, **{width: width // 8 for width in (64, 128, 256, 512)}}
    layers = [one._replace(inputs=widths[one.inputs], outputs=widths[one.outputs]) for one in vgg16.LAYERS]
    layers[-1] = layers[-1]._replace(outputs=vgg16.CHANNELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "LAYERS", tuple(layers))
        yield


def built(fitted: head.FittedHead, mirror: bool = False) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    params = {
        one.name: {
            "kernel": rng.normal(0, np.sqrt(2 / (9 * one.inputs)), (3, 3, one.inputs, one.outputs)).astype(np.float32),
            "bias": rng.normal(0, 0.1, one.outputs).astype(np.float32),
        }
        for one in vgg16.LAYERS
    }
    return graph.build(params, "caffe", fitted, {}, mirror)


@pytest.mark.parametrize("square", [False, True], ids=["linear", "square kernels"])
@pytest.mark.parametrize("pool", POOLS)
def test_every_head_is_right(pool: str, square: bool) -> None:
    hidden = (32 if pool == "none" else COLUMNS[pool], 32, 32) if square else ()
    fitted = fitted_head(pool, hidden, feature_size=10 if "max" in pool else 1)
    model = built(fitted)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(CELLS, onnx.TensorProto.FLOAT, ("N", 512, 7, 7)))
    ending = onnx.utils.Extractor(model).extract_model([CELLS], list(OUTPUTS)).SerializeToString()
    cells = np.random.default_rng(5).gamma(0.5, 2, (3, 7, 7, 512)).astype(np.float32)
    probability, heatmap = in_openvino(ending, CELLS, np.ascontiguousarray(cells.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(probability[:, 1], sigmoid(reference_logit(fitted, cells)), atol=1e-5)
    expected = reference_heat_map(fitted, cells)
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(heatmap, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("mirror", [False, True], ids=["original", "both views"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_and_view_says_what_onnx_runtime_says(precision: str, mirror: bool) -> None:
    photos = np.stack([photo(seed) for seed in range(3)])
    model = built(fitted_head("avg", (512,), feature_size=100), mirror).SerializeToString()
    if precision != "fp32":
        model = precisions.to_fp16(model) if precision == "fp16" else precisions.to_int8(model, list(photos))
    expected, found = in_onnxruntime(model, photos), in_openvino(model, "image", photos)
    assert np.ptp(expected[0][:, 1]) > 1e-3  # the photos differ
    close, far = (CLOSE, FAR) if precision == "int8" else (1e-5, 1e-4)
    np.testing.assert_allclose(found[0], expected[0], atol=close)
    np.testing.assert_allclose(found[1], expected[1], atol=far * np.abs(expected[1]).max())


def test_the_published_file_says_what_it_says_in_onnx_runtime() -> None:
    photos = np.stack([np.asarray(drawing.draw(kind, np.random.default_rng(4))) for kind in ("cat", "dog")])
    model = PUBLISHED.read_bytes()
    expected, found = in_onnxruntime(model, photos), in_openvino(model, "image", photos)
    np.testing.assert_allclose(found[0], expected[0], atol=CLOSE)
    off = np.sqrt(np.mean((found[1] - expected[1]) ** 2) / np.mean(expected[1] ** 2))
    assert off < 0.25  # a tie of two maxima may fall otherwise in 8 bits; with the fault it is about 1
