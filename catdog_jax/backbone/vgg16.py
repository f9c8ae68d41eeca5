"""VGG16's thirteen convolutions as a Flax module, made from the table of `layers`, and what its weights expect of pixels."""

import functools
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from catdog_jax import jax_environment
from catdog_jax.backbone.layers import CHANNELS as CHANNELS
from catdog_jax.backbone.layers import GRID as GRID
from catdog_jax.backbone.layers import LAYERS as LAYERS
from catdog_jax.backbone.layers import Conv as Conv

jax_environment.keep_sums_right()  # here, because every module that uses JAX imports this one

Params = dict[str, dict[str, Any]]  # {"block1_conv1": {"kernel": [3, 3, 3, 64], "bias": [64]}, ...}, kernels HWIO
Mode = Literal["torch", "caffe", "unit"]

# What a mode does to an RGB photo in [0, 255]: reorder the channels, then (x - MEAN) / STD, per
# channel in the new order.
CHANNEL_ORDER: dict[str, tuple[int, int, int]] = {"torch": (0, 1, 2), "caffe": (2, 1, 0), "unit": (0, 1, 2)}
MEAN: dict[str, tuple[float, float, float]] = {
    "torch": (0.485 * 255, 0.456 * 255, 0.406 * 255),
    "caffe": (103.939, 116.779, 123.68),
    "unit": (0.0, 0.0, 0.0),
}
STD: dict[str, tuple[float, float, float]] = {
    "torch": (0.229 * 255, 0.224 * 255, 0.225 * 255),
    "caffe": (1.0, 1.0, 1.0),
    "unit": (255.0, 255.0, 255.0),
}
PREPROCESSING_VERSION = 1


def normalise(images: jax.Array, mode: Mode, dtype: Any = jnp.float32) -> jax.Array:
    """What the weights were trained on, from plain pixels.

    Args:
      images: uint8 [N, H, W, 3], RGB.
      mode: "torch" (RGB, standardised by the ImageNet statistics), "caffe" (BGR, means subtracted),
        or "unit" (RGB scaled to [0, 1]: what no VGG16 was trained on and many programs use; for the
        ablation).
      dtype: the floating type of the result.
    """
    order = CHANNEL_ORDER[mode]  # slices, where an index array would be a gather, which TPUs do in loops over copies
    ordered = images if order == (0, 1, 2) else jnp.concatenate([images[..., i : i + 1] for i in order], axis=-1)
    pixels = ordered.astype(jnp.float32)
    mean, std = (jnp.asarray(table[mode], jnp.float32).reshape(1, 1, 1, 3) for table in (MEAN, STD))
    return ((pixels - mean) / std).astype(dtype)


def precision_of(dtype: Any) -> lax.Precision | None:
    """What products are asked for, so that float32 is float32 everywhere: by default GPUs take TF32 and TPUs bfloat16."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pooling with stride 2 that drops an odd last row or column: [N, H, W, C] -> [N, H // 2, W // 2, C]."""
    n, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


class VGG16(nn.Module):
    """The thirteen convolutions as a Flax module; `forward` applies it.

    Attributes:
      dtype: the type that the convolutions compute in; the parameters stay as they are stored.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps normalised photos [N, H, W, 3] to features [N, H // 32, W // 32, 512] of `dtype`."""
        convolution = functools.partial(nn.Conv, padding="SAME", dtype=self.dtype, precision=precision_of(self.dtype))
        for layer in LAYERS:
            x = nn.relu(convolution(layer.outputs, (3, 3), name=layer.name)(x))
            if layer.pool:
                x = max_pool(x)
        return x


def forward(params: Params, x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Applies the convolutions: normalised photos [N, H, W, 3] -> features [N, H // 32, W // 32, 512] of `dtype`."""
    return cast(jax.Array, VGG16(dtype).apply({"params": params}, x))
