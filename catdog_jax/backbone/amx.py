"""The same thirteen convolutions in bfloat16, in C++ for CPUs with tile registers: Intel's AMX, in servers since 2023.

`amx.cpp` convolves directly: a register pair takes 8,192 multiply-adds at once, so that nothing is won
by Winograd's fewer ones. Sums are float32; what goes from a layer to the next is rounded to bfloat16, as
`vgg16.VGG16` of that type does. It is compiled where it runs, as `native.cpp` is. Where the processor,
the system or the compiler lacks something, `reason` says so.
"""

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from catdog_jax.backbone import compiling
from catdog_jax.backbone.vgg16 import LAYERS, Conv, Params
from catdog_jax.errors import CatdogError

SOURCE = Path(__file__).with_name("amx.cpp")
_TARGET = "catdog_jax_amx_convolutions"
_DEPTH = 32  # inputs of a register; outputs are computed as many at a time
_FLAGS = ("amx_tile", "amx_bf16", "avx512_bf16")
_TOLD_BY = Path("/proc/cpuinfo")


def has_registers() -> bool:
    """Whether Linux names a processor with such registers; no other system lends them."""
    try:
        lines = _TOLD_BY.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return all(flag in flags for flag in _FLAGS)


def reason() -> str:
    """Why this machine cannot compute so, see `compiling.reason`."""
    return compiling.reason(library)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled `amx.cpp`, known to XLA, in a process that may use the registers.

    Raises:
      CatdogError: the processor has none, the compiler knows none, the system lends none; or see
        `compiling.load`.
    """
    if not has_registers():
        raise CatdogError(f"expected a processor with {', '.join(_FLAGS)} in {_TOLD_BY}, found another.")
    loaded = compiling.load(SOURCE, _TARGET)
    loaded.catdog_ask.restype, loaded.catdog_peak.restype = ctypes.c_int64, ctypes.c_double
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    loaded.catdog_time.argtypes = [pointer, size, size, size, pointer, size, pointer, pointer]
    refused = loaded.catdog_ask()
    if refused < 0:
        raise CatdogError(
            "expected a compiler that knows AMX, found an older one. Install g++ 12 or clang++ 14, or later."
        )
    if refused:
        raise CatdogError(f"expected Linux 5.16 or later to lend the registers of AMX, found: {os.strerror(refused)}.")
    return loaded


def transform_kernels(params: Params) -> Params:
    """Lays the kernels out for the registers, once: bfloat16 [values] in amx.cpp's order, and biases as they are."""
    return {
        name: {"kernel": transform_kernel(layer["kernel"]), "bias": layer["bias"]} for name, layer in params.items()
    }


def transform_kernel(kernel: np.ndarray) -> np.ndarray:
    """[3, 3, inputs, outputs] -> bfloat16 [outputs / 32, inputs / 32, taps, 2, 16, 16, 2]: outputs in halves, inputs in pairs.

    Up to three inputs become one group of 32 with all nine taps, the rest zeros.

    Raises:
      ValueError: the outputs are no multiple of 32, or more than three inputs are not.
    """
    inputs, outputs = kernel.shape[2:]
    few = 9 * inputs <= _DEPTH
    if outputs % _DEPTH or (inputs % _DEPTH and not few):
        raise ValueError(f"kernel: expected multiples of {_DEPTH} inputs and outputs, found {inputs} and {outputs}")
    by_tap = np.asarray(kernel, np.float32).reshape(9, inputs, outputs)
    if few:
        rows = np.pad(by_tap.reshape(1, 9 * inputs, outputs), ((0, 0), (0, _DEPTH - 9 * inputs), (0, 0)))
    else:
        rows = by_tap.reshape(9, -1, _DEPTH, outputs).transpose(1, 0, 2, 3)
    pairs = rows.reshape(-1, 1 if few else 9, _DEPTH // 2, 2, outputs // _DEPTH, 2, _DEPTH // 2)
    packed = pairs.transpose(4, 0, 1, 5, 2, 6, 3)
    aligned = compiling.aligned(packed.shape, jnp.bfloat16)
    aligned[...] = packed
    return aligned


def forward(params: Params, x: jax.Array, layers: Sequence[Conv] = LAYERS) -> jax.Array:
    """What `vgg16.VGG16` computes in bfloat16, from transformed kernels, on one thread of a CPU.

    `params` are of `transform_kernels`, with biases in bfloat16, x is bfloat16 [N, H, W, 3],
    normalised, and `layers` are some of the network that follow one another, all of which give
    bfloat16 [N, H // 32, W // 32, 512]. A photo's result has the same bytes whatever is beside it.

    Raises:
      CatdogError: see `library`.
    """
    library()
    return compiling.forward(_TARGET, params, x, layers)
