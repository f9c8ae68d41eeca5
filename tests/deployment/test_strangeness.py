"""The output `strangeness` of an exported graph, against NumPy in float64, and what its parity refuses."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.exported import CELLS, POOLS, fitted_head, photo, session

from catdog_jax.backbone import vgg16
from catdog_jax.backbone.layers import CHANNELS
from catdog_jax.backbone.pooling import Pool
from catdog_jax.deployment import graph, parity, precisions
from catdog_jax.errors import CatdogError
from catdog_jax.heads import head, strangeness


@pytest.fixture(scope="module")
def params() -> vgg16.Params:
    """Convolutions of random weights, of little size: what is after them is looked at."""
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


def told(pool: str, hidden: tuple[int, ...] = ()) -> head.FittedHead:
    """A random head that tells strangers."""
    rng = np.random.default_rng(3)
    columns = CHANNELS
    fitted = strangeness.fit([rng.gamma(0.5, 2, (80, columns))])
    return replace(fitted_head(pool, hidden), strangeness=fitted, recipe={"strange_above": 0.5})


def reference(fitted: head.FittedHead, cells: np.ndarray) -> np.ndarray:
    """The definition, in float64: the squared distance of features of length 1 from the space."""
    cells = cells.astype(np.float64)
    seen = cells.max(axis=(1, 2)) if fitted.pool == "max" else cells.mean(axis=(1, 2))
    apart = seen / np.linalg.norm(seen, axis=1, keepdims=True) - fitted.strangeness.mean
    basis = fitted.strangeness.basis.astype(np.float64)
    return ((apart - apart @ basis @ basis.T) ** 2).sum(axis=1)


def from_cells(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """The part of a model from the cells to an output."""
    grid = vgg16.GRID
    info = onnx.helper.make_tensor_value_info(CELLS, onnx.TensorProto.FLOAT, ("N", vgg16.CHANNELS, grid, grid))
    model.graph.value_info.append(info)
    return onnx.utils.Extractor(model).extract_model([CELLS], [output])


@pytest.mark.parametrize("hidden", [(), (8,)], ids=["linear", "mlp"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_is_the_strangeness_of_the_head(params, pool, hidden, precision):
    fitted = told(pool, hidden)
    cells = np.random.default_rng(2).gamma(0.5, 2, (3, *Pool.NONE.shape(7))).astype(np.float32)
    part = from_cells(graph.build(params, "torch", fitted, {}), "strangeness")
    if precision == "fp16":
        part = onnx.load_from_string(precisions.to_fp16(part.SerializeToString()))
    (found,) = session(part).run(None, {CELLS: cells.transpose(0, 3, 1, 2)})
    assert found.shape == (3,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(fitted, cells), atol=1e-5 if precision == "fp32" else 1e-3)
    np.testing.assert_allclose(found, fitted.strange(Pool(pool).apply(cells).reshape(3, -1)), atol=1e-3)


def test_of_two_views_it_is_the_mean_and_a_batch_of_none_has_none(params):
    fitted, pixels = told("avg"), np.stack([photo(0), photo(1)])
    one = session(graph.build(params, "torch", fitted, {}))
    both = session(graph.build(params, "torch", fitted, {}, mirror=True))
    own, mirrored = (
        one.run(["strangeness"], {"image": np.ascontiguousarray(x)})[0] for x in (pixels, pixels[:, :, ::-1])
    )
    assert np.abs(own - mirrored).max() > 1e-5
    np.testing.assert_allclose(both.run(["strangeness"], {"image": pixels})[0], (own + mirrored) / 2, atol=1e-6)
    for run in (one, both):
        assert run.run(["strangeness"], {"image": pixels[:0]})[0].shape == (0,)


def test_it_is_of_operators_that_stay_in_float32_and_leaves_the_others_as_they_are(params):
    """What int8 quantises are the operators of the convolutions."""
    plain = graph.build(params, "torch", replace(told("avg"), strangeness=None), {})
    model = graph.build(params, "torch", told("avg"), {})
    assert [output.name for output in plain.graph.output] == ["probability", "heatmap"]
    assert [output.name for output in model.graph.output] == ["probability", "heatmap", "strangeness"]
    known = {node.name for node in plain.graph.node}
    added = {node.op_type for node in model.graph.node if node.name not in known}
    assert not added & {"Conv", "Relu", "MaxPool"}
    size = len(model.SerializeToString()) - len(plain.SerializeToString())
    assert 0 < size < 50_000
    onnx.checker.check_model(model, full_check=True)


def test_parity_is_of_the_strangeness_too(monkeypatch):
    pixels = np.stack([photo(i) for i in range(3)])
    probability, strange = np.full((3, 2), 0.5, np.float32), np.array([0.2, 0.3, 0.4], np.float32)

    def number(one: np.ndarray) -> int:
        return int((pixels == one).all(axis=(1, 2, 3)).argmax())

    def opened(model: bytes, outputs: list[str]):
        assert outputs == ["probability", "strangeness"]
        return lambda given: [probability[: len(given)], strange[[number(one) for one in given]]]

    monkeypatch.setattr(parity.side_by_side, "opened_for", opened)
    agreed = parity.check("m.onnx", b"", parity.Answers(np.full(3, 0.5), strange.astype(float)), pixels, "demo")
    assert agreed.strangeness == pytest.approx(0, abs=1e-7)
    for wrong in (np.array([0.2, 0.3, 0.41]), np.array([0.2, np.nan, 0.4])):
        with pytest.raises(
            CatdogError, match=r"m.onnx: expected the strangeness within 0.0001 of JAX's on 3 photos of demo"
        ):
            parity.check("m.onnx", b"", parity.Answers(np.full(3, 0.5), wrong), pixels, "demo")
