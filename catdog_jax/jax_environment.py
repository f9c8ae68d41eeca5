"""What JAX reads from the environment when it starts, and whether it could start. Importing this module imports no JAX.

`keep_sums_right` is called when the first module that uses JAX is imported, so that everybody who
uses the package gets right numbers. `prepare` is called before that by the command line, the
scripts and the names of `catdog_jax` that need JAX.
"""

import importlib.util
import mmap
import os
import sys
import warnings
from pathlib import Path

from catdog_jax import config
from catdog_jax.errors import UsageError
from catdog_jax.files import atomic

_MAX_CPU_DEVICES = 16  # each keeps the weights, 0.2 GB
_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_REDUCE = f"{_FUSIONS}=-reduce"
# JAX's platform -> the extra that brings it
_EXTRAS = {"cuda": "cuda13", "gpu": "cuda13", "tpu": "tpu", "cpu": "cpu"}


def prepare() -> None:
    """Sets what JAX reads from the environment when it starts, where the user has not.

    Each CPU core becomes a device of its own (see `features.extractor`), compiled programs are kept
    between runs, and sums are right. Where JAX has started already, its devices stay as they are.
    """
    settings = {
        "jax_num_cpu_devices": min(config.cores(), _MAX_CPU_DEVICES),
        "jax_compilation_cache_dir": str(atomic.cache_directory() / "xla"),
    }
    jax = sys.modules.get("jax")
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value)
        if jax is not None and not _started() and jax.config.values[name] in (None, -1):
            jax.config.update(name, value)  # it was imported before, and has read the environment
    keep_sums_right()


def keep_sums_right() -> None:
    """Keeps XLA from fusing sums on CPUs, which jaxlib 0.10.2 to 0.12.0.1 compute wrong (jax-ml/jax#39103).

    Products that are summed in the same fusion come out wrong by up to 1e38, and bfloat16
    convolutions as NaN. Other flags of XLA_FLAGS are kept; where it has this one, the user has
    decided. XLA ends the process at a flag that it does not know, so the installed library is
    asked, whatever its version. `catdog doctor` finds wrong sums in a library that has another flag.

    Warns:
      RuntimeWarning: it is too late, since JAX has started, or XLA_FLAGS names a file.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if _FUSIONS in flags or not _knows_the_flag():
        return
    if flags and not flags.startswith("-"):  # XLA takes it for a file of flags
        _warn(f"XLA_FLAGS={flags}: expected flags, found the name of a file. Make sure that it has {_WITHOUT_REDUCE}")
    elif _started():
        _warn(f"JAX had started before catdog_jax was imported. Import it first, or set XLA_FLAGS={_WITHOUT_REDUCE}")
    else:
        os.environ["XLA_FLAGS"] = f"{flags} {_WITHOUT_REDUCE}".strip()


def _warn(reason: str) -> None:
    warnings.warn(f"{reason}: without it, XLA computes some sums wrong on CPUs.", RuntimeWarning, stacklevel=3)


def _knows_the_flag() -> bool:
    """Whether the installed jaxlib has the flag and its value: both are searched in its library, which takes 20 ms."""
    spec = importlib.util.find_spec("jaxlib")
    folders = (spec and spec.submodule_search_locations) or ()
    for library in (path for folder in folders for path in Path(folder).glob("*jax_common*")):
        with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            name = _FUSIONS.removeprefix("--").encode()
            return all(content.find(text) >= 0 for text in (b"\0" + name + b"\0", b"LIBRARY_FUSION_TYPE_REDUCE"))
    return False


def _started() -> bool:
    """Whether JAX has read XLA_FLAGS, which it does when it first looks for devices."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(bridge.backends_are_initialized())


def require_devices() -> None:
    """Starts JAX on its devices, before any work that would be in vain without them.

    Raises:
      UsageError: JAX_PLATFORMS asks for a platform that is not there.
    """
    import jax  # not at the top: `prepare` comes before it

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an AssertionError for cuda without its plugin
        asked = jax.config.values["jax_platforms"]
        if not asked:
            raise
        jax.config.update("jax_platforms", None)  # what would JAX take?
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].partition("\n")[0]
        raise UsageError(
            f"JAX_PLATFORMS={asked}: expected such a device, found {jax.default_backend()} alone"
            f"{f' ({reason})' if reason else ''}. {_remedy(asked)}"
        ) from None


def _remedy(asked: str) -> str:
    extra = _EXTRAS.get(asked.partition(",")[0])
    if extra is None:
        return f"Unset JAX_PLATFORMS, or name one of {', '.join(_EXTRAS)}."
    return f"Unset JAX_PLATFORMS, or check the driver and run: pip install 'catdog-jax[{extra}]'."
