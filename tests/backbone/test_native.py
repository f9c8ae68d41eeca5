"""The convolutions in C++ against direct convolution in float64 in float32."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from helpers.convolutions import direct, pooled, random_layer, relative_error

from catdog_jax import numerics
from catdog_jax.backbone import native, vgg16
from catdog_jax.backbone.vgg16 import Conv


@pytest.fixture(scope="module", autouse=True)
def _needs_a_compiler():
    if lacking := native.reason():
        pytest.skip(lacking)


def convolve(x, kernel, bias, pool=False):
    layer = Conv("layer", *kernel.shape[2:], pool)
    params = {"layer": {"kernel": native.transform_kernel(kernel), "bias": bias}}
    return np.asarray(jax.jit(lambda params, x: native.forward(params, x, [layer]))(params, x))


# Tiles of 4 alone, of 6 alone, of both along either axis, cut at the edges; more tiles than a block has
@pytest.mark.parametrize(("inputs", "pool"), [(3, False), (32, False), (32, True)])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (2, 3), (4, 4), (6, 6), (5, 7), (7, 5), (14, 14), (15, 9), (28, 30), (57, 23), (113, 13)],
)
def test_any_size_gives_what_direct_convolution_gives(height, width, inputs, pool):
    rng = np.random.default_rng(height * 1000 + width)
    x = rng.standard_normal((3, height, width, inputs)).astype(np.float32)
    kernel, bias = random_layer(rng, inputs, 64)
    expected = direct(x, kernel, bias)
    expected = pooled(expected) if pool else expected
    found = convolve(x, kernel, bias, pool)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(initial=0))


@pytest.mark.parametrize("layer", vgg16.LAYERS, ids=lambda layer: layer.name)
def test_each_layer_stays_within_2e_5(layer):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1, 15, 22, layer.inputs)), 0).astype(np.float32)
    kernel, bias = random_layer(rng, layer.inputs, layer.outputs)
    expected = direct(x, kernel, bias)
    expected = pooled(expected) if layer.pool else expected
    assert relative_error(convolve(x, kernel, bias, layer.pool), expected) < 2e-5


def test_no_photos_give_no_cells():
    kernel, bias = random_layer(np.random.default_rng(0), 32, 32)
    assert convolve(np.zeros((0, 8, 8, 32), np.float32), kernel, bias).shape == (0, 8, 8, 32)


def test_what_is_no_number_stays_none():
    kernel, bias = random_layer(np.random.default_rng(0), 32, 32)
    x = np.zeros((1, 8, 8, 32), np.float32)
    x[0, 3, 3, 5] = np.nan
    assert np.isnan(convolve(x, kernel, bias)[0, 2:5, 2:5]).all()


@pytest.mark.parametrize("size", [224, 320])
def test_all_thirteen_layers_are_right_on_real_photos(real_weights, shared_photos, size):
    """Against float64, and whatever is computed beside a photo."""
    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DecodingRecipe

    some, recipe = shared_photos[:: 8 if size > 224 else 3], DecodingRecipe(size=size)
    photos = np.stack([decoding.decode(photo.read_bytes(), recipe) for photo in some])
    x = np.asarray(vgg16.normalise(photos, real_weights.mode))
    expected = numerics.convolutions(real_weights.params, x[:1].astype(np.float64))
    params = native.transform_kernels(real_weights.params)
    forward = jax.jit(native.forward)
    found = np.asarray(forward(params, x))
    assert found.shape == (len(photos), size // 32, size // 32, 512)
    assert np.abs(found[:1] - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(np.asarray(forward(params, x[-1:])), found[-1:])


def test_calls_at_once_do_not_disturb_each_other():
    """Two threads, each with scratch memory of its own, and sizes that make it grow."""
    rng = np.random.default_rng(0)
    kernel, bias = random_layer(rng, 64, 64)
    photos = [rng.standard_normal((1, size, size, 64)).astype(np.float32) for size in (6, 30, 14, 60) * 4]
    alone = [convolve(x, kernel, bias) for x in photos]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(lambda x: convolve(x, kernel, bias), photos), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_outputs_that_fill_no_register_are_refused():
    with pytest.raises(ValueError, match=r"kernel: expected a multiple of \d+ outputs, found 33"):
        native.transform_kernel(np.zeros((3, 3, 32, 33), np.float32))


def test_without_a_compiler_the_package_computes_by_winograd(tmp_path):
    """A process of its own with two devices: what "auto" takes, and that --conv native is one line of error."""
    program = """if True:
        from catdog_jax import jax_environment
        jax_environment.prepare()
        from catdog_jax.backbone import weights
        from catdog_jax.features.extractor import Extractor
        made = Extractor(weights.random(), batch_size=1)
        print(made.conv, made.note)
        Extractor(weights.random(), batch_size=1, conv="native")
    """
    environment = os.environ | {"CXX": "nowhere", "CATDOG_CACHE": str(tmp_path), "JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("winograd --conv native would be faster: expected a C++ compiler (nowhere)")
    assert done.stderr.strip().splitlines()[-1].endswith("Install g++ or clang++. Or leave --conv out.")
