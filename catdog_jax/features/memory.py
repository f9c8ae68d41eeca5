"""How many photos a device computes together, and what is said where its memory does not hold them."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence

import jax

from catdog_jax import jax_environment
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos.recipe import SIZE

jax_environment.keep_sums_right()

# Of a device's memory while its batch of photos of 224 pixels is computed: at most 37 MB for any precision and algorithm
_BYTES_A_PHOTO = 40e6
_ON_A_CORE, _ON_AN_ACCELERATOR = 8, 256  # photos at once, where nothing else is asked for


def photos_on_each(devices: Sequence[jax.Device], batch_size: int | None, pixels: int = SIZE) -> int:
    """How many photos of so many pixels a side each device computes together.

    Args:
      devices: of this process, all of one kind.
      batch_size: what was asked for; None for the usual number, or as many as an accelerator holds.
      pixels: of a side of a photo.

    Raises:
      UsageError: a batch of the size that was asked for takes more memory than there is.
    """
    on_cpu = devices[0].platform == "cpu"
    sharing = len(devices) if on_cpu else 1  # CPU cores share one memory
    memory = of(devices[0])
    each = _BYTES_A_PHOTO * (pixels / SIZE) ** 2
    holds = max(1, int(memory / sharing / each)) if memory else math.inf
    usual = _ON_A_CORE if on_cpu else min(_ON_AN_ACCELERATOR, holds)
    size = int(batch_size or usual)
    needed = size * sharing * each
    if batch_size and memory and needed > memory:
        raise UsageError(
            f"--batch-size {batch_size}: expected a batch that fits into {memory / 1e9:,.0f} GB of memory, found "
            f"{size * sharing:,} photos at once, which take {needed / 1e9:,.0f} GB. Try --batch-size {holds} or less, or "
            "leave it out."
        )
    return size


def of(device: jax.Device) -> float:
    """The bytes that batches may take: an accelerator's memory, or half of the machine's; 0 where neither is told."""
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    known = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if known else 0


@contextlib.contextmanager
def told(batch_size: int) -> Iterator[None]:
    """Within it, a device that lacks the memory for a batch is an error that says which batch to try.

    Computing runs behind the program, so whoever reads what `Extractor.dispatch` gave reads it in here.

    Args:
      batch_size: photos at once, over all devices.

    Raises:
      CatdogError: a device has too little memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        devices = jax.local_devices()
        size = batch_size // len(devices)
        advice = f"Try --batch-size {size // 2}" if size > 1 else "Compute on the CPU with JAX_PLATFORMS=cpu"
        raise CatdogError(
            f"{devices[0].device_kind}: expected memory for {size:,} photos at once, found too little of it free. "
            f"{advice}, or end other programs that use the device."
        ) from None
