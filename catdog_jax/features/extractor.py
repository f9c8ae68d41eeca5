"""The frozen convolutions as a jitted function of photos, on all devices of this process."""

import math
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from catdog_jax.backbone import vgg16, weights, winograd
from catdog_jax.config import Pool
from catdog_jax.errors import UsageError
from catdog_jax.photos import decoding

# Of a device's memory while its batch is computed: at most 37 MB for any precision and algorithm
_BYTES_A_PHOTO = 40e6


_VIEWS: dict[str, Callable[[jax.Array], jax.Array]] = {"original": lambda x: x, "mirror": lambda x: x[:, :, ::-1]}


class Extractor:
    """The frozen convolutions as a jitted function of uint8 photos, on all local devices.

    Attributes:
      batch_size: photos a dispatch takes, over all devices.
      precision: the type that is computed in, "float32" or "bfloat16".
      conv: the algorithm, "direct" or "winograd".
    """

    def __init__(
        self,
        pretrained: weights.Weights,
        pool: Pool = "avg",
        views: Sequence[str] = ("original",),
        precision: str = "auto",
        conv: str = "auto",
        batch_size: int | None = None,
        at_once: int | None = None,
    ):
        """Puts the weights on the devices. See `ExtractConfig` for the options; `batch_size` counts one device's photos.

        No batch is larger than `at_once` fills, the most photos that will ever come together. Where
        the command line has made each CPU core a device, each computes its photos alone on one
        thread: without the barriers between threads of one computation, two cores extract about one
        and a half times as fast.

        Raises:
          UsageError: Winograd was asked for in bfloat16, or a batch that takes more memory than
            there is.
        """
        devices = jax.local_devices()
        on_cpu = devices[0].platform == "cpu"
        self.precision = ("float32" if on_cpu else "bfloat16") if precision == "auto" else precision
        if conv == "auto":
            conv = "winograd" if on_cpu and self.precision == "float32" else "direct"
        if conv == "winograd" and self.precision != "float32":
            raise UsageError(
                f"--conv winograd: expected --precision float32, found {self.precision}. Choose one of the two."
            )
        self.conv = conv
        self.batch_size = _on_each(devices, batch_size, at_once) * len(devices)
        self._columns = vgg16.columns(pool)
        mesh = Mesh(np.array(devices), ("batch",))
        self._by_photo = NamedSharding(mesh, PartitionSpec("batch"))
        params = winograd.transform_kernels(pretrained.params) if conv == "winograd" else pretrained.params
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        dtype = jnp.dtype(self.precision)

        def compute(params: vgg16.Params, photos: jax.Array) -> jax.Array:
            def features(view: str) -> jax.Array:
                x = vgg16.normalise(_VIEWS[view](photos), pretrained.mode, dtype)
                cells = winograd.forward(params, x) if conv == "winograd" else vgg16.forward(params, x, dtype)
                cells = cells.astype(jnp.float32)
                return cells if pool == "none" else vgg16.pool_cells(cells, pool)

            return jnp.stack([features(view) for view in views], axis=1)

        by_photo, alike = PartitionSpec("batch"), PartitionSpec()
        on_each_device = jax.shard_map(compute, mesh=mesh, in_specs=(alike, by_photo), out_specs=by_photo)
        options = {"xla_cpu_multi_thread_eigen": False} if on_cpu and len(devices) > 1 else None
        self._compute = jax.jit(on_each_device, compiler_options=options)

    def dispatch(self, photos: np.ndarray) -> jax.Array:
        """Starts computing one padded batch and returns at once.

        Args:
          photos: uint8 [batch_size, 224, 224, 3], RGB.

        Returns:
          float32 [batch_size, views, 512], or as `pool` has it; [batch_size, views, 7, 7, 512] for
          "none".

        Raises:
          CatdogError: `photos` has another type or shape.
        """
        decoding.check_photos(photos)
        return self._compute(self._params, jax.device_put(photos, self._by_photo))

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Features of any number of photos: uint8 [N, 224, 224, 3] -> float32 [N, columns], of the first view.

        Raises:
          CatdogError: `photos` has another type or shape.
        """
        decoding.check_photos(photos)
        parts = [np.empty((0, self._columns), np.float32)]
        for start in range(0, len(photos), self.batch_size):
            part = photos[start : start + self.batch_size]
            result = np.asarray(self.dispatch(padded(part, self.batch_size))[: len(part), 0])
            parts.append(result.reshape(len(part), -1))
        return np.concatenate(parts)


def _on_each(devices: Sequence[jax.Device], batch_size: int | None, at_once: int | None) -> int:
    """How many photos each device computes together.

    Raises:
      UsageError: a batch of the size that was asked for takes more memory than there is.
    """
    on_cpu = devices[0].platform == "cpu"
    fills = math.inf if at_once is None else max(1, -(-at_once // len(devices)))
    size = int(min(batch_size or (8 if on_cpu else 256), fills))
    sharing = len(devices) if on_cpu else 1  # CPU cores share one memory
    memory = _memory(devices[0])
    needed = size * sharing * _BYTES_A_PHOTO
    if batch_size and memory and needed > memory:
        raise UsageError(
            f"--batch-size {batch_size}: expected a batch that fits into {memory / 1e9:,.0f} GB of memory, found "
            f"{size * sharing:,} photos at once, which take {needed / 1e9:,.0f} GB. Try --batch-size "
            f"{max(1, int(memory / sharing / _BYTES_A_PHOTO))} or less, or leave it out."
        )
    return size


def _memory(device: jax.Device) -> float:
    """The bytes that batches may take: an accelerator's memory, or half of the machine's; 0 where neither is told."""
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    known = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if known else 0


def padded(photos: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, …] -> [size, …]; the rows beyond n are black photos, whose features nobody reads."""
    if len(photos) == size:
        return photos
    return np.concatenate([photos, np.zeros((size - len(photos), *photos.shape[1:]), photos.dtype)])
