"""The convolutions as accelerators take them, beside the Flax module, NumPy in float64 and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from catdog_jax import numerics
from catdog_jax.backbone import accelerators, vgg16, weights

FORMS = {"gpu": accelerators.GPU, "tpu": accelerators.TPU, "plain": accelerators.PLAIN}
ODD = (2, 45, 70, 3)  # pooling drops a row and a column of each


@pytest.fixture(scope="module")
def params() -> vgg16.Params:
    return weights.random().params


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(ODD, np.float32)


def laid_out(params, photos, form, dtype=jnp.float32):
    compute = jax.jit(lambda params, x: accelerators.forward(params, x, dtype, form))
    return np.asarray(compute(accelerators.prepare(params, form), photos), np.float64)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_computes_the_network(params, photos, form):
    expected = numerics.convolutions(params, photos.astype(np.float64))
    assert expected.shape == (2, 1, 2, 512)
    for dtype, tolerance in ((jnp.float32, numerics.FLOAT32), (jnp.bfloat16, numerics.BFLOAT16)):
        found = laid_out(params, photos, form, dtype)
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_the_plain_form_is_the_module_bit_for_bit(params, photos):
    for dtype in (jnp.float32, jnp.bfloat16):
        module = jax.jit(lambda params, x, dtype=dtype: vgg16.forward(params, x, dtype))(params, photos.astype(dtype))
        np.testing.assert_array_equal(
            laid_out(params, photos, accelerators.PLAIN, dtype), np.asarray(module, np.float64)
        )


def test_weights_that_are_rounded_before_are_those_that_xla_rounds(params, photos):
    before = {
        name: {part: array.astype(jnp.bfloat16) for part, array in layer.items()} for name, layer in params.items()
    }
    for form in FORMS.values():
        np.testing.assert_array_equal(
            laid_out(before, photos, form, jnp.bfloat16), laid_out(params, photos, form, jnp.bfloat16)
        )


def test_a_kernel_is_laid_out_and_padded(params):
    prepared = accelerators.prepare(params, accelerators.GPU)
    first, second = (prepared[layer.name]["kernel"] for layer in vgg16.LAYERS[:2])
    assert (first.shape, second.shape) == ((64, 3, 3, 8), (64, 3, 3, 64))
    np.testing.assert_array_equal(first[..., :3].transpose(1, 2, 3, 0), params["block1_conv1"]["kernel"])
    assert not first[..., 3:].any()
    np.testing.assert_array_equal(second[5, 1, 2], params["block1_conv2"]["kernel"][1, 2, :, 5])
    assert prepared["block5_conv3"]["bias"] is params["block5_conv3"]["bias"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 5, 7, 4), (2, 1, 4, 2)])
def test_a_window_is_the_pooling_by_reshape(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32), dtype)
    found, expected = accelerators.window_max(x), vgg16.max_pool(x)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


def test_pytorch_agrees(params, photos):
    """In channels-last and float64, with its own padding, ReLU and pooling."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x = torch.from_numpy(photos.astype(np.float64)).permute(0, 3, 1, 2)
    for layer in vgg16.LAYERS:
        kernel, bias = (torch.from_numpy(np.array(params[layer.name][part], np.float64)) for part in ("kernel", "bias"))
        x = torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
        x = torch.nn.functional.max_pool2d(x, 2) if layer.pool else x
    expected = x.permute(0, 2, 3, 1).numpy()
    found = laid_out(params, photos, accelerators.GPU)
    assert np.abs(found - expected).max() <= numerics.FLOAT32 * np.abs(expected).max()
