"""The convolutions on tile registers against float64: sums of what bfloat16 can hold are exact but for float32's rounding."""

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import direct, pooled, random_layer

from catdog_jax import numerics
from catdog_jax.backbone import amx, compiling, vgg16
from catdog_jax.backbone.vgg16 import Conv
from catdog_jax.errors import CatdogError

HALF_A_STEP = 2.0**-8  # of bfloat16, relative: what rounding an output once may change


@pytest.fixture
def registers():
    if lacking := amx.reason():
        pytest.skip(lacking)


def rounded(values):
    """In bfloat16 and back."""
    return np.asarray(values).astype(jnp.bfloat16).astype(np.float32)


def convolve(x, kernel, bias, pool=False):
    layer = Conv("layer", *kernel.shape[2:], pool)
    params = {"layer": {"kernel": amx.transform_kernel(kernel), "bias": jnp.asarray(bias, jnp.bfloat16)}}
    found = jax.jit(lambda params, x: amx.forward(params, x, [layer]))(params, jnp.asarray(x, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    return np.asarray(found).astype(np.float32)


def check_layer(x, inputs, outputs, pool):
    kernel, bias = map(rounded, random_layer(np.random.default_rng(1), inputs, outputs))
    x = rounded(x)
    expected = direct(x, kernel, bias)
    expected = pooled(expected) if pool else expected
    found = convolve(x, kernel, bias, pool)
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=1.01 * HALF_A_STEP, atol=1e-5 * largest)


# Several photos in a band, a photo in several, places that fill no register, edges that pooling drops
@pytest.mark.parametrize(("inputs", "pool"), [(3, False), (1, True), (32, False), (96, True), (160, False)])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (2, 3), (4, 4), (5, 7), (14, 14), (15, 9), (28, 30), (57, 23), (9, 500)]
)
@pytest.mark.usefixtures("registers")
def test_any_size_gives_what_direct_convolution_gives(height, width, inputs, pool):
    rng = np.random.default_rng(height * 1000 + width)
    check_layer(rng.standard_normal((3, height, width, inputs)), inputs, 64, pool)


@pytest.mark.parametrize("layer", vgg16.LAYERS, ids=lambda layer: layer.name)
@pytest.mark.usefixtures("registers")
def test_each_layer_is_right_but_for_rounding(layer):
    rng = np.random.default_rng(0)
    check_layer(np.maximum(rng.standard_normal((1, 15, 22, layer.inputs)), 0), layer.inputs, layer.outputs, layer.pool)


@pytest.mark.usefixtures("registers")
def test_no_photos_give_no_cells():
    kernel, bias = random_layer(np.random.default_rng(0), 32, 32)
    assert convolve(np.zeros((0, 8, 8, 32), np.float32), kernel, bias).shape == (0, 8, 8, 32)


@pytest.mark.parametrize("inputs", [3, 32])
@pytest.mark.usefixtures("registers")
def test_what_is_no_number_stays_none_and_does_not_spread(inputs):
    kernel, bias = random_layer(np.random.default_rng(0), inputs, 32)
    x = np.zeros((1, 8, 8, inputs), np.float32)
    x[0, 3, 3, inputs - 1] = np.nan
    found = np.isnan(convolve(x, kernel, bias))
    assert found[0, 2:5, 2:5].all()
    assert found.sum() == 9 * 32


@pytest.mark.parametrize("size", [224, 320])
@pytest.mark.usefixtures("registers")
def test_all_thirteen_layers_are_right_on_real_photos(real_weights, shared_photos, size):
    """Against float64, no worse than XLA's own bfloat16, and whatever is computed beside a photo."""
    from catdog_jax.photos import decoding
    from catdog_jax.photos.recipe import DecodingRecipe

    some, recipe = shared_photos[:: 8 if size > 224 else 3], DecodingRecipe(size=size)
    photos = np.stack([decoding.decode(photo.read_bytes(), recipe) for photo in some])
    x = np.asarray(vgg16.normalise(photos, real_weights.mode, jnp.bfloat16))
    expected = numerics.convolutions(real_weights.params, np.asarray(x[:1], np.float64))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), amx.transform_kernels(real_weights.params))
    forward = jax.jit(amx.forward)
    found = np.asarray(forward(params, x)).astype(np.float64)
    assert found.shape == (len(photos), size // 32, size // 32, 512)
    error = np.abs(found[:1] - expected)
    assert error.max() < numerics.BFLOAT16 * expected.max()
    if size == 224:
        other = np.asarray(vgg16.forward(real_weights.params, x[:1], jnp.bfloat16)).astype(np.float64)
        assert np.sqrt((error**2).mean()) < 1.2 * np.sqrt(((other - expected) ** 2).mean())
    np.testing.assert_array_equal(np.asarray(forward(params, x[-1:])).astype(np.float64), found[-1:])


@pytest.mark.usefixtures("registers")
def test_calls_at_once_do_not_disturb_each_other():
    """Four threads, each with registers and scratch memory of its own, and sizes that make it grow."""
    rng = np.random.default_rng(0)
    kernel, bias = random_layer(rng, 64, 64)
    photos = [rng.standard_normal((1, size, size, 64)).astype(np.float32) for size in (6, 30, 14, 60) * 4]
    alone = [convolve(x, kernel, bias) for x in photos]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(lambda x: convolve(x, kernel, bias), photos), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


# What any machine can test


def test_kernels_are_laid_out_by_outputs_inputs_taps_and_pairs():
    kernel = np.arange(9 * 64 * 96, dtype=np.float32).reshape(3, 3, 64, 96) % 251  # which bfloat16 holds
    found = amx.transform_kernel(kernel)
    assert (found.shape, found.dtype) == ((3, 2, 9, 2, 16, 16, 2), jnp.bfloat16)
    for output, group, y, x, i in ((0, 0, 0, 0, 0), (95, 1, 2, 1, 31), (40, 0, 1, 2, 7)):
        value = found[output // 32, group, 3 * y + x, output % 32 // 16, i // 2, output % 16, i % 2]
        assert value == kernel[y, x, 32 * group + i, output]


def test_all_taps_of_pixels_are_one_group():
    kernel = np.arange(9 * 3 * 32, dtype=np.float32).reshape(3, 3, 3, 32) % 251
    found = amx.transform_kernel(kernel).astype(np.float32)
    assert found.shape == (1, 1, 1, 2, 16, 16, 2)
    rows = found[0, 0, 0].transpose(1, 3, 0, 2).reshape(32, 32)  # [inputs, outputs]
    np.testing.assert_array_equal(rows[:27], kernel.reshape(27, 32))
    assert not rows[27:].any()


@pytest.mark.parametrize("shape", [(3, 3, 32, 33), (3, 3, 4, 32), (3, 3, 48, 32)])
def test_what_fills_no_register_is_refused(shape):
    with pytest.raises(ValueError, match=r"kernel: expected multiples of 32 inputs and outputs, found \d+ and \d+"):
        amx.transform_kernel(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nflags\t\t: fpu amx_tile amx_bf16 avx512_bf16\n", True),
        ("flags : fpu amx_tile amx_int8 avx512_bf16\n", False),
        ("Features : neon\n", False),
        (None, False),
    ],
)
def test_the_processor_tells_its_registers(monkeypatch, tmp_path, text, expected):
    told = tmp_path / "cpuinfo"
    if text is not None:
        told.write_text(text)
    monkeypatch.setattr(amx, "_TOLD_BY", told)
    assert amx.has_registers() is expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (-1, r"expected a compiler that knows AMX, found an older one\. Install g\+\+ 12"),
        (1, f"expected Linux 5.16 or later to lend the registers of AMX, found: {os.strerror(1)}"),
    ],
)
def test_what_is_lacking_is_told(monkeypatch, answer, message):
    library = SimpleNamespace(catdog_ask=lambda: answer, catdog_peak=lambda: 0.0, catdog_time=lambda: 0)
    monkeypatch.setattr(amx, "has_registers", lambda: True)
    monkeypatch.setattr(compiling, "load", lambda *_: library)
    with pytest.raises(CatdogError, match=message):
        amx.library.__wrapped__()


def test_another_processor_is_told(monkeypatch):
    monkeypatch.setattr(amx, "has_registers", lambda: False)
    with pytest.raises(CatdogError, match=r"expected a processor with amx_tile, .*, found another\."):
        amx.library.__wrapped__()
