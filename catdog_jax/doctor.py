"""What this machine can do: the devices that JAX really uses, what they reach in a few seconds, and what would help.

`examine` collects facts and measures two rates; `advise` is a pure function of the facts, so that
what is said on a GPU machine can be tested on any other.
"""

import dataclasses
import functools
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from catdog_jax import jax_environment, numerics
from catdog_jax.backbone import amx, weights
from catdog_jax.config import DoctorConfig, cores
from catdog_jax.errors import CatdogError
from catdog_jax.features import memory
from catdog_jax.features.extractor import Extractor
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import device_rates

_ACCELERATORS = {  # a file that the driver makes -> what it stands for, and the extra that brings JAX for it
    "/dev/nvidia0": ("an NVIDIA GPU", "cuda13"),
    "/dev/accel0": ("a TPU", "tpu"),
}
_PHOTO = (500, 375)  # pixels of a usual photo of the set, width and height
_DECODED_AT_ONCE = 64
_DECODE_MARGIN = 1.2  # how much faster than the device decoding should be


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was found and measured.

    Attributes:
      backend: JAX's, "cpu", "gpu" or "tpu".
          accelerator: a device file of an accelerator that the machine has, or "".
        memory: bytes that JAX may take of a device; 0 where it does not say.
      preallocates: whether JAX takes the device's memory at its start.
          compile_cache: the folder of compiled programs, or "" where none are kept.
      cache_writable: whether they can be written there.
      slower: why the convolutions are not the fastest there are, or "".
      weights: what `--weights auto` takes, or the reason why there is nothing.
      has_weights: whether there is something.
      wrong: what JAX computes wrong, a sentence each.
      decode_rate: photos a second that the cores decode.
      forward_rate: photos a second that the devices compute.
      tile_rate: the same in bfloat16 on a CPU with AMX, which must be asked for; 0 on others.
    """

    backend: str
    devices: tuple[str, ...]
    cores: int
    accelerator: str
    platforms: str
    memory: int
    preallocates: bool
    precision: str
    conv: str
    compile_cache: str
    cache_writable: bool
    slower: str
    weights: str
    has_weights: bool
    wrong: tuple[str, ...]
    decode_rate: float
    forward_rate: float
    tile_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class Advice:
    """One thing to know. `problem`: something is broken, rather than merely not the best."""

    text: str
    problem: bool = False


def examine(*, source: str = "auto", seconds: float = 3.0) -> Facts:
    """Looks at the machine, JAX and the weights, and measures both rates.

    Raises:
      UsageError: `seconds` is not positive, or JAX has no device.
    """
    check_arguments(DoctorConfig, seconds=seconds)
    jax_environment.require_devices()
    device, *_ = devices = jax.local_devices()
    described, pretrained = _weights(source)
    loaded = pretrained or weights.random()
    extractor = Extractor(loaded)
    tiles = Extractor(loaded, precision="bfloat16") if device.platform == "cpu" and amx.reason() == "" else None
    folder = jax.config.values.get("jax_compilation_cache_dir") or ""
    return Facts(
        backend=device.platform,
        devices=tuple(device.device_kind for device in devices),
        cores=cores(),
        accelerator=next((path for path in _ACCELERATORS if Path(path).exists()), ""),
        platforms=os.environ.get("JAX_PLATFORMS", ""),
        memory=int((device.memory_stats() or {}).get("bytes_limit", 0)),
        preallocates=preallocates(device.platform, os.environ),
        precision=extractor.precision,
        conv=extractor.conv,
        compile_cache=folder,
        cache_writable=bool(folder) and _writable(Path(folder)),
        slower=extractor.note,
        weights=described,
        has_weights=pretrained is not None,
        wrong=(*numerics.wrong(extractor, loaded), *(numerics.wrong(tiles, loaded, ()) if tiles else ())),
        decode_rate=decode_rate(seconds),
        forward_rate=forward_rate(extractor, seconds),
        tile_rate=forward_rate(tiles, seconds) if tiles else 0.0,
    )


def preallocates(backend: str, environment: Mapping[str, str]) -> bool:
    """Whether JAX takes most of the device's memory at its start (its documentation, "GPU memory allocation")."""
    off = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() in ("0", "false")
    return backend == "gpu" and not off and environment.get("XLA_PYTHON_CLIENT_ALLOCATOR") != "platform"


def advise(facts: Facts) -> list[Advice]:
    """What would help, the most important first."""
    remedy = "Trust no figure of this machine. Unset XLA_FLAGS or install the tested version of JAX, and report this"
    advice = [Advice(f"{fault}. {remedy} (JAX {jax.__version__}).", problem=True) for fault in facts.wrong]
    if facts.accelerator and facts.backend == "cpu":
        kind, extra = _ACCELERATORS[facts.accelerator]
        why = (
            f"JAX_PLATFORMS={facts.platforms} keeps it from it. Unset that variable."
            if "cpu" in facts.platforms
            else f"Run: pip install 'catdog-jax[{extra},weights]', and check the driver."
        )
        advice.append(
            Advice(f"there is {kind} ({facts.accelerator}), but JAX computes on the CPU. {why}", problem=True)
        )
    if not facts.has_weights:
        advice.append(Advice(f"no VGG16 weights; what was measured are random ones. {facts.weights}", problem=True))
    if not facts.compile_cache:
        advice.append(
            Advice("compiled programs are not kept, so every start compiles again. Set JAX_COMPILATION_CACHE_DIR.")
        )
    elif not facts.cache_writable:
        advice.append(
            Advice(f"{facts.compile_cache} cannot be written, so every start compiles again. Change its permissions.")
        )
    if facts.slower:
        advice.append(Advice(facts.slower))
    if facts.tile_rate > facts.forward_rate:
        advice.append(
            Advice(
                f"this processor has AMX: with --precision bfloat16 it computes {facts.tile_rate:,.0f} photos/s, "
                f"{facts.tile_rate / facts.forward_rate:.1f} times as many. Features then differ by rounding."
            )
        )
    if facts.decode_rate < _DECODE_MARGIN * facts.forward_rate:
        advice.append(
            Advice(
                f"decoding will hold the devices back: {facts.cores} cores decode {facts.decode_rate:,.0f} photos/s, "
                f"the devices compute {facts.forward_rate:,.0f}/s. Give the job more cores, or store the photos smaller."
            )
        )
    if facts.backend == "gpu" and not facts.preallocates:
        advice.append(
            Advice("memory preallocation is off, which costs time at every allocation. It is meant for shared GPUs.")
        )
    return advice


def decode_rate(seconds: float) -> float:
    """Photos a second through the decode gate on all cores: JPEGs of 500x375 pixels, from memory."""
    width, height = _PHOTO
    rng = np.random.default_rng(0)
    blurred = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)).resize(_PHOTO)
    encoded = io.BytesIO()
    blurred.save(encoded, "JPEG", quality=90)
    decode = functools.partial(decoding.decode, recipe=DEFAULT)
    with ThreadPoolExecutor(cores()) as pool:

        def work() -> int:
            return sum(1 for _ in pool.map(decode, [encoded.getvalue()] * _DECODED_AT_ONCE))

        return device_rates.rate(work, seconds)


def forward_rate(extractor: Extractor, seconds: float) -> float:
    """Photos a second through the convolutions, compiled before, two batches in flight as in an extraction."""
    shape = extractor.batch_size, extractor.size, extractor.size, 3
    photos = np.random.default_rng(0).integers(0, 256, shape, np.uint8)  # a GPU computes zeros faster

    def work() -> int:
        with memory.told(extractor.batch_size):
            jax.block_until_ready([extractor.dispatch(photos) for _ in range(2)])
        return 2 * len(photos)

    work()
    return device_rates.rate(work, seconds)


def _weights(source: str) -> tuple[str, weights.Weights | None]:
    try:
        pretrained = weights.load(source)
    except CatdogError as error:
        return str(error), None
    return f"{pretrained.source}, preprocessing {pretrained.mode}", pretrained


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which need not exist yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK)
