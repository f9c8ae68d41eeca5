"""The layer table, the module and the preprocessing against published numbers and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from catdog_jax.backbone import vgg16


def test_the_published_number_of_parameters():
    shapes = jax.eval_shape(vgg16.VGG16().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
    counts = [leaf.size for leaf in jax.tree.leaves(shapes)]
    assert sum(counts) == 14_714_688
    assert list(shapes["params"]) == [layer.name for layer in vgg16.LAYERS]


def test_a_photo_becomes_seven_by_seven_cells():
    params = {
        layer.name: {
            "kernel": jax.ShapeDtypeStruct((3, 3, layer.inputs, layer.outputs), np.float32),
            "bias": jax.ShapeDtypeStruct((layer.outputs,), np.float32),
        }
        for layer in vgg16.LAYERS
    }
    cells = jax.eval_shape(vgg16.forward, params, jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32))
    assert cells.shape == (2, vgg16.GRID, vgg16.GRID, vgg16.CHANNELS)


@pytest.mark.parametrize("mode", ["torch", "caffe", "unit"])
def test_preprocessing_is_that_of_the_weights(mode):
    """Against the formulas that Keras ("caffe", "torch") and torchvision document, in float64."""
    photo = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    pixels = photo.astype(np.float64)
    expected = {
        "torch": (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": pixels[..., ::-1] - [103.939, 116.779, 123.68],
        "unit": pixels / 255,
    }[mode]
    np.testing.assert_allclose(vgg16.normalise(photo, mode), expected, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("mode", ["torch", "caffe", "unit"])
def test_channels_in_slices_are_the_bytes_of_the_gather(mode):
    photo = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)

    def gathered(images):
        pixels = images.astype(jnp.float32)[..., jnp.asarray(vgg16.CHANNEL_ORDER[mode])]
        mean, std = (jnp.asarray(table[mode], jnp.float32).reshape(1, 1, 1, 3) for table in (vgg16.MEAN, vgg16.STD))
        return (pixels - mean) / std

    found = jax.jit(lambda images: vgg16.normalise(images, mode))(photo)
    np.testing.assert_array_equal(found, jax.jit(gathered)(photo))


def test_no_mode_gathers():
    """A TPU gathers in loops over float32 copies."""
    for mode in vgg16.CHANNEL_ORDER:
        photos = jax.ShapeDtypeStruct((2, 8, 8, 3), np.uint8)
        assert "gather" not in jax.jit(lambda x, mode=mode: vgg16.normalise(x, mode)).lower(photos).as_text()


def test_max_pool_drops_an_odd_row_and_column():
    x = np.arange(2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
    expected = np.stack([x[:, i : i + 2, j : j + 2].max(axis=(1, 2)) for i in (0, 2) for j in (0, 2, 4)], axis=1)
    np.testing.assert_array_equal(vgg16.max_pool(x), expected.reshape(2, 2, 3, 3))
