"""Models of other sizes than 224: the graph against Flax and float64, and what the file says of its recipe."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from helpers.exported import POOLS

from catdog_jax.backbone import vgg16, weights, winograd
from catdog_jax.backbone.pooling import Pool
from catdog_jax.deployment import graph, onnx_file, triton
from catdog_jax.errors import CatdogError
from catdog_jax.features.extractor import Extractor
from catdog_jax.heads import head
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.runtime import model_file
from catdog_jax.runtime.predictor import Predictor

SIZE = 96
RECIPE = DecodingRecipe(2, SIZE, "crop")


def linear(pool: str, recipe: DecodingRecipe) -> head.FittedHead:
    columns = Pool(pool).columns(recipe.grid)
    kernel = np.random.default_rng(1).normal(0, 1 / np.sqrt(columns), (columns, 1)).astype(np.float32)
    params = {head.OUTPUT: {"kernel": kernel, "bias": np.zeros(1, np.float32)}}
    prints = Fingerprint(image=recipe.to_json(), preprocessing="torch", preprocessing_version=1)
    return head.FittedHead(Pool(pool), params, ("cats", "dogs"), prints, {"pool": pool, "abstain_below": None})


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def cells(photos: np.ndarray) -> np.ndarray:
    return np.asarray(vgg16.forward(weights.random().params, vgg16.normalise(photos, "torch")))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_the_graph_of_another_size_says_what_float64_says(pool, mirror, photos, cells, tmp_path):
    fitted, loaded = linear(pool, RECIPE), weights.random()
    described = onnx_file.metadata(fitted, loaded, ("original",), None)
    model = graph.build(loaded.params, "torch", fitted, described, mirror)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    predictor = Predictor(path)
    assert predictor.recipe == RECIPE
    assert json.loads(predictor.metadata["recipe"]) == RECIPE.to_json()
    found, maps = predictor.explain(photos)
    assert maps is not None
    assert maps.shape == (2, 3, 3)
    if mirror:
        return
    rows = Pool(pool).apply(cells.astype(np.float64))
    logits = rows @ fitted.params[head.OUTPUT]["kernel"][:, 0].astype(np.float64)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-logits)), atol=1e-4)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits, atol=1e-3)
    assert predictor.embed(list(photos)).shape == (2, 512)
    with pytest.raises(CatdogError, match=r"photos: expected uint8 \[N, 96, 96, 3\], found uint8 \[1, 224, 224, 3\]"):
        predictor.probabilities(np.zeros((1, 224, 224, 3), np.uint8))
    text = triton.configuration(model_file.described(path.read_bytes()))
    assert "dims: [ 96, 96, 3 ]" in text
    assert "dims: [ 3, 3 ]" in text


def test_a_model_whose_input_is_not_its_recipes_is_refused(tmp_path):
    fitted, loaded = linear("avg", RECIPE), weights.random()
    described = onnx_file.metadata(fitted, loaded, ("original",), None)
    described["recipe"] = json.dumps(DecodingRecipe(2, 224, "crop").to_json())
    (tmp_path / "m.onnx").write_bytes(graph.build(loaded.params, "torch", fitted, described).SerializeToString())
    with pytest.raises(
        CatdogError, match=r"found the input image .* \[N, 96, 96, 3\] instead of .* \[N, 224, 224, 3\]"
    ):
        Predictor(tmp_path / "m.onnx")


@pytest.mark.parametrize("pool", POOLS)
def test_a_head_of_another_size_is_read_again(pool, tmp_path):
    fitted = linear(pool, RECIPE)
    fitted.save(tmp_path / "head.safetensors")
    found = head.load(tmp_path / "head.safetensors")
    assert (found.columns, found.fingerprint.recipe) == (fitted.columns, RECIPE)


def test_the_extractor_takes_other_sizes(photos, cells):
    for conv in ("direct", "winograd"):
        found = Extractor(weights.random(), pool="none", conv=conv, precision="float32", batch_size=1, size=SIZE)(
            photos
        )
        np.testing.assert_allclose(found, cells.reshape(2, -1), rtol=1e-3, atol=1e-4)
    with pytest.raises(CatdogError, match="expected uint8"):
        Extractor(weights.random(), size=SIZE)(np.zeros((1, 224, 224, 3), np.uint8))


def test_winograd_and_onnx_runtime_agree_at_320():
    """ONNX Runtime's own convolutions are the reference."""
    recipe = DecodingRecipe(2, 320, "letterbox")
    loaded, fitted = weights.random(), linear("avg", recipe)
    photo = np.random.default_rng(2).integers(0, 256, (1, 320, 320, 3), np.uint8)
    session = ort.InferenceSession(graph.build(loaded.params, "torch", fitted, {}).SerializeToString())
    probability, heat = session.run(None, {"image": photo})
    assert heat.shape == (1, 10, 10)
    cells = winograd.forward(winograd.transform_kernels(loaded.params), vgg16.normalise(photo, "torch"))
    assert cells.shape == (1, 10, 10, 512)
    expected = fitted(np.asarray(cells).mean(axis=(1, 2)))
    np.testing.assert_allclose(probability[:, 1], expected, atol=1e-5)
