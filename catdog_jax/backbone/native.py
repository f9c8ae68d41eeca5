"""The same thirteen convolutions as a custom call of XLA, in C++ that is compiled where it runs, for CPUs.

`native.cpp` computes Winograd tiles of 6x6 and 4x4 outputs whose transforms stay in the caches, 1.7
to 1.9 times as fast as `winograd`, which XLA compiles. It needs a C++ compiler (g++ or clang++) at the
first use; the library is kept for this machine's processor in the cache directory. Where there is
no compiler, `reason` says so, and the package computes with `winograd`.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from catdog_jax.backbone.vgg16 import LAYERS, Conv, Params
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic

SOURCE = Path(__file__).with_name("native.cpp")
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-exceptions",
    "-fno-rtti",
    "-fPIC",
    "-shared",
)
_PATIENCE = 300  # seconds of a compiler, which takes about 10
_TARGET = "catdog_jax_convolutions"
_ALIGNMENT = 64  # bytes: JAX takes such arrays as they are, and all CPU devices share them


def reason() -> str:
    """Why this machine cannot compute so, in sentences; "" where it can. The first call compiles, in some seconds."""
    try:
        library()
    except CatdogError as error:
        return str(error)
    return ""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled `native.cpp`, known to XLA.

    Raises:
      CatdogError: there is no compiler, it fails, or its result cannot be written or loaded.
    """
    compiler = find_compiler()
    path = atomic.cache_directory() / "native" / f"{_key(compiler)}.so"
    try:
        if not path.exists():
            compile_library(compiler, path)
        _check_owner(path)
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise CatdogError(f"{path}: expected a library of native convolutions, found {error}. Remove it.") from None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    loaded.catdog_width.restype = loaded.catdog_packed.restype = size
    loaded.catdog_packed.argtypes = [size, size]
    loaded.catdog_pack.argtypes = [pointer, size, size, pointer]
    loaded.catdog_convolve.argtypes = [pointer, *[size] * 6, *[pointer] * 4]
    loaded.catdog_peak.restype = ctypes.c_double
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(loaded.catdog_forward), platform="cpu")
    return loaded


def _check_owner(path: Path) -> None:
    """Refuses a library that another user may have written: loading it would run their code.

    Raises:
      CatdogError: the file or its folder is not this user's alone.
    """
    if hasattr(os, "getuid"):
        for one in (path, path.parent):
            status = one.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise CatdogError(
                    f"{one}: expected native convolutions that nobody else can write, found another owner or mode. "
                    "Remove it, or set CATDOG_CACHE to a folder of your own."
                )


def find_compiler() -> str:
    """The path of $CXX, or of the first C++ compiler on PATH.

    Raises:
      CatdogError: there is none.
    """
    names = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise CatdogError(
            f"expected a C++ compiler ({', '.join(names)}) for native convolutions, found none. Install g++ or clang++."
        )
    return found


def compile_library(compiler: str, path: Path) -> None:
    """Compiles `native.cpp` for this machine's processor; `path` exists only when it is whole.

    Raises:
      CatdogError: the compiler fails, with its first error, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
            built = Path(folder) / path.name
            command = [compiler, *_flags(), str(SOURCE), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                said = next((line for line in lines if "error" in line), lines[-1])
                raise CatdogError(
                    f"expected {compiler} to compile native convolutions, found: {said.strip()[:300]}. Set CXX to another."
                )
            built.chmod(0o700)  # whatever the umask
            os.replace(built, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CatdogError(
            f"{path.parent}: expected to compile native convolutions into it, found {error}. "
            "Set CATDOG_CACHE to a folder that can be written."
        ) from None


def _flags() -> tuple[str, ...]:
    processor = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    return (*_FLAGS, processor, f"-I{jax.ffi.include_dir()}")


def _key(compiler: str) -> str:
    """What the library depends on: the source, the compiler, JAX and the processor."""
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CatdogError(f"{compiler}: expected a C++ compiler, found {error}. Set CXX to another.") from None
    try:
        told = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        cpu = "\n".join(line for line in told if line.startswith(("model", "flags", "Features", "CPU part", "isa")))
    except OSError:
        cpu = platform.processor()
    parts = (SOURCE.read_text(), version, " ".join(_flags()), jax.__version__, platform.machine(), cpu)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


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
    packed = _aligned_floats(lib.catdog_packed(inputs, outputs))
    lib.catdog_pack(kernel.ctypes.data, inputs, outputs, packed.ctypes.data)
    return packed


def _aligned_floats(count: int) -> np.ndarray:
    """Memory that begins where JAX need not copy it."""
    raw = np.empty(4 * count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + 4 * count].view(np.float32)


def forward(params: Params, x: jax.Array, layers: Sequence[Conv] = LAYERS) -> jax.Array:
    """What `vgg16.VGG16` computes, from transformed kernels, on one thread of a CPU.

    `params` are of `transform_kernels`, x is float32 [N, H, W, 3], normalised, and `layers` are
    some of the network that follow one another, all of which give float32 [N, H // 32, W // 32,
    512]. A photo's result has the same bytes whatever is beside it.

    Raises:
      CatdogError: see `library`.
    """
    library()
    n, height, width, _ = x.shape
    halved = sum(layer.pool for layer in layers)
    shape = (n, height >> halved, width >> halved, layers[-1].outputs)
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(shape, jnp.float32))
    kernels = [params[layer.name][part] for layer in layers for part in ("kernel", "bias")]
    return call(x, *kernels, pools=np.int64(sum(layer.pool << i for i, layer in enumerate(layers))))
