"""Compiles C++ that lies in this folder where it runs, and makes it known to XLA: for `native` and `amx`."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from catdog_jax.backbone.vgg16 import Conv, Params
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic

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
_ALIGNMENT = 64  # bytes: JAX takes such arrays as they are, and all CPU devices share them


def load(source: Path, target: str) -> ctypes.CDLL:
    """The compiled library of a source, whose `catdog_forward` XLA then knows as `target`. The first call takes some seconds.

    Raises:
      CatdogError: there is no compiler, it fails, or its result cannot be written or loaded.
    """
    compiler = find_compiler()
    path = atomic.cache_directory() / "native" / f"{_key(compiler, source)}.so"
    try:
        if not path.exists():
            compile_library(compiler, source, path)
        _check_owner(path)
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise CatdogError(f"{path}: expected a library of native convolutions, found {error}. Remove it.") from None
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(loaded.catdog_forward), platform="cpu")
    return loaded


def reason(library: Callable[[], object]) -> str:
    """Why a library cannot be had, in sentences; "" where it can. The first call compiles, in some seconds."""
    try:
        library()
    except CatdogError as error:
        return str(error)
    return ""


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


def compile_library(compiler: str, source: Path, path: Path) -> None:
    """Compiles a source for this machine's processor; `path` exists only when it is whole.

    Raises:
      CatdogError: the compiler fails, with its first error, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
            built = Path(folder) / path.name
            command = [compiler, *_flags(), str(source), "-o", str(built)]
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


def _key(compiler: str, source: Path) -> str:
    """What the library depends on: the source and its headers, the compiler, JAX and the processor."""
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
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = (*texts, version, " ".join(_flags()), jax.__version__, platform.machine(), cpu)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def aligned(shape: int | tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """An array of any values that begins where JAX need not copy it."""
    dtype = np.dtype(dtype)
    raw = np.empty(dtype.itemsize * int(np.prod(shape)) + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : len(raw) - _ALIGNMENT + start].view(dtype).reshape(shape)


def forward(target: str, params: Params, x: jax.Array, layers: Sequence[Conv]) -> jax.Array:
    """Calls a library on photos [N, H, W, C], with what it makes of the kernels; the output has the type of `x`."""
    n, height, width, _ = x.shape
    halved = sum(layer.pool for layer in layers)
    shape = (n, height >> halved, width >> halved, layers[-1].outputs)
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, x.dtype))
    kernels = [params[layer.name][part] for layer in layers for part in ("kernel", "bias")]
    return call(x, *kernels, pools=np.int64(sum(layer.pool << i for i, layer in enumerate(layers))))
