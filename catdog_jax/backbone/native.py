"""The same thirteen convolutions as a custom call of XLA, in C++ that is compiled where it runs, for CPUs.

`native.cpp` computes Winograd tiles of 6x6 and 4x4 outputs whose transforms stay in the caches, 1.7
to 1.9 times as fast as `winograd`, which XLA compiles. It needs a C++ compiler (g++ or clang++) at the
first use; the library is kept for this machine's processor in the cache directory. Where there is
no compiler, `reason` says so, and the package computes with `winograd`.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from catdog_jax.backbone import compiling
from catdog_jax.backbone.vgg16 import LAYERS, Conv, Params

SOURCE = Path(__file__).with_name("native.cpp")
_TARGET = "catdog_jax_convolutions"


def reason() -> str:
    """Why this machine cannot compute so, see `compiling.reason`."""
    return compiling.reason(library)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled `native.cpp`, known to XLA.

    Raises:
      CatdogError: see `compiling.load`.
    """
    loaded = compiling.load(SOURCE, _TARGET)
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    loaded.catdog_width.restype = loaded.catdog_packed.restype = size
    loaded.catdog_packed.argtypes = [size, size]
    loaded.catdog_pack.argtypes = [pointer, size, size, pointer]
    loaded.catdog_convolve.argtypes = [pointer, *[size] * 6, *[pointer] * 4]
    loaded.catdog_peak.restype = ctypes.c_double
    return loaded


def transform_kernels(params: Params) -> Params:
    """Transforms the kernels once, in float64, so that a forward pass need not: float32 [values] in native.cpp's order."""
    return {
        name: {"kernel": transform_kernel(layer["kernel"]), "bias": layer["bias"]} for name, layer in params.items()
    }


def transform_kernel(kernel: np.ndarray) -> np.ndarray:
    """G g G^T for every pair of channels: [3, 3, inputs, outputs] -> float32 [64 * inputs * outputs].

    9 in place of 64 where there are too few inputs for Winograd.

    Raises:
      ValueError: the outputs are no multiple of `catdog_width`, at most 32.
    """
    kernel, lib = np.ascontiguousarray(kernel, np.float32), library()
    inputs, outputs = kernel.shape[2:]
    if outputs % lib.catdog_width():
        raise ValueError(f"kernel: expected a multiple of {lib.catdog_width()} outputs, found {outputs}")
    packed = compiling.aligned(lib.catdog_packed(inputs, outputs), np.float32)
    lib.catdog_pack(kernel.ctypes.data, inputs, outputs, packed.ctypes.data)
    return packed


def forward(params: Params, x: jax.Array, layers: Sequence[Conv] = LAYERS) -> jax.Array:
    """What `vgg16.VGG16` computes, from transformed kernels, on one thread of a CPU.

    `params` are of `transform_kernels`, x is float32 [N, H, W, 3], normalised, and `layers` are
    some of the network that follow one another, all of which give float32 [N, H // 32, W // 32,
    512]. A photo's result has the same bytes whatever is beside it.

    Raises:
      CatdogError: see `library`.
    """
    library()
    return compiling.forward(_TARGET, params, x, layers)
