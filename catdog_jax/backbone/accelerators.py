"""The same thirteen convolutions as GPUs and TPUs want them: what Flax leaves to each call is done to the weights once.

`vgg16.VGG16` is the definition; it keeps kernels as the checkpoints have them. Here a `Form` says how
they lie, and how cells are pooled. What that saves was read off the programs that XLA makes of both
(`scripts/benchmarks/compiled.py`, docs/speed.md): 27 % of the cycles on a TPU, by its compiler.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from catdog_jax.backbone.vgg16 import LAYERS, Params, max_pool, precision_of


def window_max(x: jax.Array) -> jax.Array:
    """What `vgg16.max_pool` computes, by `lax.reduce_window`: [N, H, W, C] -> [N, H // 2, W // 2, C].

    On a TPU it takes a third of the cycles of a reshape, by the compiler's estimate.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


class Form(NamedTuple):
    """How a kind of accelerator takes the convolutions.

    Attributes:
      kernel: the order of a kernel's axes as the device multiplies, "HWIO" or "OHWI".
      channels: of the first convolution's input: three, and zeros beyond them.
      pool: 2x2 max-pooling, [N, H, W, C] -> [N, H // 2, W // 2, C].
    """

    kernel: str
    channels: int
    pool: Callable[[jax.Array], jax.Array]


# cuDNN takes kernels in OHWI, and NVIDIA's guides ask for channels in multiples of eight. With eight
# channels a TPU's compiler fuses the first two convolutions, with three it does not.
GPU = Form("OHWI", 8, window_max)
TPU = Form("HWIO", 8, window_max)
PLAIN = Form("HWIO", 3, max_pool)  # what `vgg16.VGG16` does, to measure beside


def prepare(params: Params, form: Form) -> Params:
    """Lays out the kernels once: HWIO -> the order of `form`, the first with zeros for the channels beyond three."""
    order = tuple("HWIO".index(axis) for axis in form.kernel)
    prepared = {}
    for name, layer in params.items():
        kernel = np.asarray(layer["kernel"])
        if name == LAYERS[0].name:
            kernel = np.pad(kernel, ((0, 0), (0, 0), (0, form.channels - kernel.shape[2]), (0, 0)))
        prepared[name] = {"kernel": np.ascontiguousarray(kernel.transpose(order)), "bias": layer["bias"]}
    return prepared


def forward(params: Params, x: jax.Array, dtype: Any, form: Form) -> jax.Array:
    """What `vgg16.forward` computes, from the params of `prepare`.

    Normalised photos [N, H, W, 3] -> [N, H // 32, W // 32, 512] of `dtype`. Zeros in place of
    channels that are not there add nothing, so the results are the same but for the order of sums.
    """
    x = jnp.pad(x.astype(dtype), ((0, 0), (0, 0), (0, 0), (0, form.channels - x.shape[3])))
    layout, precision = ("NHWC", form.kernel, "NHWC"), precision_of(dtype)
    for layer in LAYERS:
        kernel, bias = (jnp.asarray(params[layer.name][part], dtype) for part in ("kernel", "bias"))
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, precision=precision)
        x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        if layer.pool:
            x = form.pool(x)
    return x
