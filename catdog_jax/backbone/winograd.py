"""The same thirteen convolutions as F(4x4, 3x3) Winograd matrix products, for CPUs.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv:1509.09308). Each 4x4
tile of the output comes from a 6x6 tile of the input, transformed so that the convolution becomes
36 products of matrices: 36 multiplications for 16 outputs instead of 144. A CPU at its arithmetic
limit gains about twofold after the transforms are paid. The result differs from direct convolution
by float32 rounding (relative error about 4e-6), far below the float16 that features are kept in.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from catdog_jax.backbone.vgg16 import LAYERS, Conv, Params, max_pool

TILE = 4  # outputs per tile and axis
_POINTS = TILE + 2  # inputs per tile and axis
_STRIP_ROWS = 4  # rows of tiles that are transformed at a time where a whole photo would fall out of the cache
_STRIP_FROM = 112  # the height from which that pays

# G of the paper: interpolation at the points 0, 1, -1, 2, -2 and infinity.
_KERNEL_TRANSFORM = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def transform_kernels(params: Params) -> Params:
    """Transforms the kernels once, in float64, so that a forward pass need not.

    The names stay, and so does the first layer's kernel: three input channels are too few to
    gain. The other kernels, [3, 3, inputs, outputs], become float32 [36, inputs, outputs].
    """
    return {
        name: {"kernel": transform_kernel(layer["kernel"]), "bias": layer["bias"]} for name, layer in params.items()
    } | {LAYERS[0].name: params[LAYERS[0].name]}


def transform_kernel(kernel: np.ndarray) -> np.ndarray:
    """G g G^T for every pair of channels: [3, 3, inputs, outputs] -> float32 [36, inputs, outputs]."""
    transformed = np.einsum("ik,klcd,jl->ijcd", _KERNEL_TRANSFORM, np.asarray(kernel, np.float64), _KERNEL_TRANSFORM)
    return transformed.reshape(_POINTS**2, *kernel.shape[2:]).astype(np.float32)


def forward(params: Params, x: jax.Array, layers: Sequence[Conv] = LAYERS) -> jax.Array:
    """What `vgg16.VGG16` computes, from transformed kernels.

    `params` are of `transform_kernels`, x is float32 [N, H, W, 3], normalised, and `layers` are
    the first ones of the network, all of which give float32 [N, H // 32, W // 32, 512].
    """
    first, *rest = layers
    layout, exactly = ("NHWC", "HWIO", "NHWC"), lax.Precision.HIGHEST
    kernel = params[first.name]["kernel"]
    x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, precision=exactly)
    x = jax.nn.relu(x + params[first.name]["bias"].reshape(1, 1, 1, -1))
    for layer in rest:
        x = convolve(x, params[layer.name]["kernel"], params[layer.name]["bias"], layer.pool)
    return x


def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array, pool: bool = False) -> jax.Array:
    """A 3x3 convolution with "SAME" padding, bias and ReLU, then an optional 2x2 max-pool.

    x is float32 [N, H, W, inputs] of any H and W, the kernel, float32 [36, inputs, outputs], is
    of `transform_kernel`, and the bias float32 [outputs]. The result is float32 [N, H, W,
    outputs], or [N, H // 2, W // 2, outputs] with `pool`, which drops an odd last row or
    column.
    """
    n, height, width, channels = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padding = ((0, 0), (1, TILE * rows - height + 1), (1, TILE * columns - width + 1), (0, 0))
    padded = jnp.pad(x, padding)
    if height >= _STRIP_FROM and rows % _STRIP_ROWS == 0:
        strips = rows // _STRIP_ROWS
        window = (1, TILE * _STRIP_ROWS + 2, padded.shape[2], channels)

        def convolve_strip(index: jax.Array) -> jax.Array:
            start = (index // strips, index % strips * TILE * _STRIP_ROWS, 0, 0)
            return _convolve_tiles(lax.dynamic_slice(padded, start, window), kernel, bias, pool)

        y = lax.map(convolve_strip, jnp.arange(n * strips))
        y = y.reshape(n, strips * y.shape[2], *y.shape[3:])
    else:
        y = _convolve_tiles(padded, kernel, bias, pool)
    return y[:, : height // 2, : width // 2] if pool else y[:, :height, :width]


def _convolve_tiles(padded: jax.Array, kernel: jax.Array, bias: jax.Array, pool: bool) -> jax.Array:
    """Y = A^T [U * (B^T d B)] A over whole tiles: [N, 4R + 2, 4C + 2, inputs] -> [N, 4R, 4C, outputs], or pooled."""
    n, height, width, channels = padded.shape
    rows, columns = height // TILE, width // TILE
    taps = [padded[:, i : i + TILE * (rows - 1) + 1 : TILE] for i in range(_POINTS)]
    by_row = jnp.stack(_input_transform(taps))  # [6, N, R, width, inputs]
    taps = [by_row[:, :, :, j : j + TILE * (columns - 1) + 1 : TILE] for j in range(_POINTS)]
    tiles = jnp.stack(_input_transform(taps), axis=1).reshape(_POINTS**2, n * rows * columns, channels)
    products = lax.dot_general(tiles, kernel, (((2,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
    products = products.reshape(_POINTS, _POINTS, n, rows, columns, -1)
    by_column = jnp.stack(_output_transform([products[:, j] for j in range(_POINTS)]))  # [4 (x), 6, N, R, C, outputs]
    by_row_out = _output_transform([by_column[:, i] for i in range(_POINTS)])  # 4 (y) of [4 (x), N, R, C, outputs]
    y = jnp.stack([jnp.moveaxis(row, 0, 3) for row in by_row_out], axis=2)  # [N, R, 4, C, 4, outputs]
    y = jax.nn.relu(y + bias.reshape(1, 1, 1, 1, 1, -1)).reshape(n, TILE * rows, TILE * columns, -1)
    return max_pool(y) if pool else y


def _input_transform(d: list[jax.Array]) -> list[jax.Array]:
    """B^T d for six taps, with the common terms computed once."""
    return [
        4 * d[0] - 5 * d[2] + d[4],
        (d[3] + d[4]) - 4 * (d[1] + d[2]),
        (d[4] - d[3]) + 4 * (d[1] - d[2]),
        (d[4] - d[2]) + 2 * (d[3] - d[1]),
        (d[4] - d[2]) - 2 * (d[3] - d[1]),
        4 * d[1] - 5 * d[3] + d[5],
    ]


def _output_transform(m: list[jax.Array]) -> list[jax.Array]:
    """A^T m for six products, with the common terms computed once."""
    sum_1, difference_1, sum_2, difference_2 = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [
        m[0] + sum_1 + sum_2,
        difference_1 + 2 * difference_2,
        sum_1 + 4 * sum_2,
        difference_1 + 8 * difference_2 + m[5],
    ]
