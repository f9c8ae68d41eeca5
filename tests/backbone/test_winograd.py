"""Winograd's convolutions against direct convolution in float64."""

import numpy as np
import pytest
from helpers.convolutions import direct, pooled, random_layer, relative_error

from catdog_jax.backbone import vgg16, winograd


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("height", "width"),
    [(4, 4), (2, 2), (2, 3), (5, 7), (14, 14), (15, 9), (28, 30), (112, 16), (113, 13), (120, 5), (126, 4)],
)
def test_any_size_gives_what_direct_convolution_gives(height, width, pool):
    rng = np.random.default_rng(height * 1000 + width)
    x = rng.standard_normal((2, height, width, 16)).astype(np.float32)
    kernel, bias = random_layer(rng, 16, 24)
    expected = direct(x, kernel, bias)
    found = winograd.convolve(x, winograd.transform_kernel(kernel), bias, pool)
    expected = pooled(expected) if pool else expected
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize(
    "layer", [layer for layer in vgg16.LAYERS[1:] if layer.name in ("block3_conv3", "block5_conv3")]
)
def test_wide_layers_stay_within_1e_5(layer):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1, 14, 14, layer.inputs)), 0).astype(np.float32)
    kernel, bias = random_layer(rng, layer.inputs, layer.outputs)
    found = winograd.convolve(x, winograd.transform_kernel(kernel), bias)
    assert relative_error(found, direct(x, kernel, bias)) < 1e-5


@pytest.mark.parametrize("size", [96, 320])
def test_all_thirteen_layers_agree_with_the_module(real_weights, shared_photos, size):
    """On a real photo with the real weights: closer than float16, in which the features are kept, can tell."""
    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DecodingRecipe

    photo = decoding.decode(shared_photos[0].read_bytes(), DecodingRecipe(size=size))[None]
    x = vgg16.normalise(photo, real_weights.mode)
    expected = vgg16.forward(real_weights.params, x)
    found = winograd.forward(winograd.transform_kernels(real_weights.params), x)
    assert found.shape == expected.shape == (1, size // 32, size // 32, 512)
    assert relative_error(found, np.asarray(expected, np.float64)) < 2e-5


def test_kernels_are_transformed_but_the_first():
    rng = np.random.default_rng(0)
    params = {}
    for layer in vgg16.LAYERS:
        kernel, bias = random_layer(rng, layer.inputs, layer.outputs)
        params[layer.name] = {"kernel": kernel, "bias": bias}
    transformed = winograd.transform_kernels(params)
    assert list(transformed) == list(params)
    assert transformed["block1_conv1"] is params["block1_conv1"]
    assert transformed["block5_conv3"]["kernel"].shape == (36, 512, 512)
    assert params["block5_conv3"]["kernel"].shape == (3, 3, 512, 512)
