"""The head against NumPy in float64, and its file."""

import dataclasses

import jax
import numpy as np
import pytest

from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import CatdogError
from catdog_jax.heads import head
from catdog_jax.photos.fingerprint import Fingerprint


def fitted(hidden: tuple[int, ...] = (16,), pool: str = "avg") -> head.FittedHead:
    rng = np.random.default_rng(0)
    widths = [{"avg": 512, "avg+max": 1024}[pool], *hidden, 1]
    names = [*(f"dense_{i}" for i in range(len(hidden))), head.OUTPUT]
    params = {
        name: {
            "kernel": (rng.standard_normal((widths[i], widths[i + 1])) / np.sqrt(widths[i])).astype(np.float32),
            "bias": rng.standard_normal(widths[i + 1]).astype(np.float32),
        }
        for i, name in enumerate(names)
    }
    return head.FittedHead(
        Pool(pool), params, ("cats", "dogs"), Fingerprint(pool="none", views=("original",)), {"l2": 0.05}
    )


def expected_probabilities(params, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    for name, layer in params.items():
        x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
        x = x if name == head.OUTPUT else np.maximum(x, 0)
    return 1 / (1 + np.exp(-x[:, 0]))


@pytest.mark.parametrize("hidden", [(), (16,), (32, 8)])
def test_probabilities_are_those_of_the_definition(hidden):
    params = fitted(hidden).params
    x = np.random.default_rng(1).random((1500, 512)).astype(np.float16)
    found = head.probabilities(params, x)
    assert found.shape == (1500,)
    np.testing.assert_allclose(found, expected_probabilities(params, x), atol=2e-6)
    assert head.probabilities(params, x[:0]).shape == (0,)


def test_extreme_logits_do_not_overflow():
    params = {head.OUTPUT: {"kernel": np.full((512, 1), 10, np.float32), "bias": np.zeros(1, np.float32)}}
    x = np.stack([np.full(512, 1.0), np.full(512, -1.0)])
    assert head.probabilities(params, x).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_standardisation_folds_exactly(hidden):
    params = fitted(hidden).params
    rng = np.random.default_rng(2)
    mean, deviation = rng.random(512) * 3, rng.random(512) + 0.1
    x = rng.random((40, 512)) * 4
    folded = head.fold_standardisation(params, mean, deviation)
    np.testing.assert_allclose(
        expected_probabilities(folded, x), expected_probabilities(params, (x - mean) / deviation), rtol=1e-4
    )
    assert list(folded) == list(params)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    """For a linear head of ones on ones, a logit is the number of kept features, scaled."""
    params = {head.OUTPUT: {"kernel": np.ones((512, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    x = np.ones((400, 512), np.float32)
    logits = np.asarray(head.logits(params, x, 0.25, jax.random.key(0)))
    kept = logits / 512 * 0.75
    assert kept.mean() == pytest.approx(0.75, abs=0.005)
    assert kept.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 512), rel=0.2)
    np.testing.assert_allclose(head.logits(params, x), 512)


def test_heads_of_different_dropout_run_under_vmap():
    params = fitted(()).params
    x = np.ones((8, 512), np.float32)
    shares = jax.numpy.array([0.0, 0.5, 0.9])
    logits = jax.vmap(lambda share: head.logits(params, x, share, jax.random.key(0)))(shares)
    assert logits.shape == (3, 8)
    np.testing.assert_allclose(logits[0], head.logits(params, x), rtol=1e-6)


def test_a_head_survives_its_file(tmp_path):
    path = tmp_path / "head.safetensors"
    before = fitted((12, 3), "avg+max")
    before.save(path)
    after = head.load(path)
    assert dataclasses.replace(after, params={}) == dataclasses.replace(before, params={})
    assert list(after.params) == ["dense_0", "dense_1", "output"]
    for name, layer in before.params.items():
        for part, array in layer.items():
            np.testing.assert_array_equal(after.params[name][part], array)
    first = path.read_bytes()
    before.save(path)
    assert path.read_bytes() == first


def test_any_altered_byte_of_the_tensors_is_found(tmp_path):
    path = tmp_path / "head.safetensors"
    fitted().save(path)
    intact = path.read_bytes()
    for place in (-1, -1000, len(intact) // 2):
        altered = bytearray(intact)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(CatdogError, match="altered tensors"):
            head.load(path)


@pytest.mark.parametrize("content", [b"", b"not a head", b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 64])
def test_a_foreign_file_is_an_error(tmp_path, content):
    path = tmp_path / "head.safetensors"
    path.write_bytes(content)
    with pytest.raises(CatdogError, match=r"head.safetensors: expected a head of `catdog train`, found: .*Train again"):
        head.load(path)


@pytest.mark.parametrize("name", ["h\udc81nde", "two\nlines"])
def test_classes_that_are_no_text_are_refused(tmp_path, name):
    dataclasses.replace(fitted(), classes=("cats", name)).save(tmp_path / "head.safetensors")
    with pytest.raises(CatdogError, match="expected names in UTF-8 without control characters"):
        head.load(tmp_path / "head.safetensors")


def test_a_missing_head_says_what_to_run(tmp_path):
    with pytest.raises(CatdogError, match=r"expected a trained head, found no file\. Run `catdog train` first"):
        head.load(tmp_path / "head.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["output"].update(kernel=np.zeros((7, 1), np.float32)),
            r"output of shape \(7, 1\).*expected 16 rows",
        ),
        (lambda p: p["dense_0"].update(kernel=np.zeros((1024, 16), np.float32)), "expected 512 rows"),
        (lambda p: p["output"].update(bias=np.full(1, np.nan, np.float32)), "NaN or infinity"),
        (lambda p: p.pop("output"), "expected one of 'output'"),
    ],
)
def test_a_head_that_cannot_be_is_an_error(tmp_path, change, message):
    broken = fitted()
    change(broken.params)
    broken.save(tmp_path / "head.safetensors")
    with pytest.raises(CatdogError, match=message):
        head.load(tmp_path / "head.safetensors")
