"""The frozen convolutions as a jitted function of photos, on all devices of this process."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from catdog_jax.backbone import native, vgg16, winograd
from catdog_jax.backbone import weights as backbone_weights
from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import ExtractConfig, cores
from catdog_jax.errors import UsageError
from catdog_jax.photos import decoding
from catdog_jax.ranges import check_arguments

# Of a device's memory while its batch is computed: at most 37 MB for any precision and algorithm
_BYTES_A_PHOTO = 40e6


class Algorithm(NamedTuple):
    """A way to compute the convolutions.

    Attributes:
      transform: what it makes of the kernels, once.
      forward: (transformed params, normalised photos [N, 224, 224, 3], type) -> cells [N, 7, 7, 512].
      precisions: the types that it can compute in.
      fastest_on: the platforms of JAX where "auto" takes it for those types.
      lacks: why this machine cannot compute so; "" where it can.
      one_thread: whether it leaves cores idle that are no device of their own, so that "auto" passes it over there.
    """

    transform: Callable[[vgg16.Params], vgg16.Params]
    forward: Callable[[vgg16.Params, jax.Array, Any], jax.Array]
    precisions: tuple[str, ...]
    fastest_on: tuple[str, ...] = ()
    lacks: Callable[[], str] = lambda: ""
    one_thread: bool = False


ALGORITHMS: dict[str, Algorithm] = {  # "auto" takes the first that is fastest on the platform, else "direct"
    "native": Algorithm(
        native.transform_kernels,
        lambda params, x, _: native.forward(params, x),
        ("float32",),
        ("cpu",),
        native.reason,
        one_thread=True,
    ),
    "winograd": Algorithm(
        winograd.transform_kernels, lambda params, x, _: winograd.forward(params, x), ("float32",), ("cpu",)
    ),
    "direct": Algorithm(lambda params: params, vgg16.forward, ("float32", "bfloat16")),
}
VIEWS: dict[str, Callable[[jax.Array], jax.Array]] = {"original": lambda x: x, "mirror": lambda x: x[:, :, ::-1]}


class Extractor:
    """The frozen convolutions as a jitted function of uint8 photos, on all local devices.

    Example:
      >>> import catdog_jax as cd
      >>> extractor = cd.Extractor("auto", pool="avg")
      >>> extractor(np.zeros((3, 224, 224, 3), np.uint8)).shape
      (3, 512)

    Attributes:
      batch_size: photos a dispatch takes, over all devices.
      precision: the type that is computed in, "float32" or "bfloat16".
      conv: the algorithm, one of `ALGORITHMS`.
      pool: how the cells become features.
      note: why "auto" took a slower algorithm than others can, in a sentence; "" where it did not.
    """

    def __init__(
        self,
        weights: str | Path | backbone_weights.Weights = "auto",
        *,
        pool: str = "avg",
        views: Sequence[str] = ("original",),
        precision: str = "auto",
        conv: str = "auto",
        batch_size: int | None = None,
        at_once: int | None = None,
    ):
        """Puts the weights on the devices.

        Where each CPU core is a device (see `jax_environment.prepare`), each computes its photos
        alone on one thread: without the barriers between threads of one computation, two cores
        extract about one and a half times as fast.

        Args:
          weights: a source of weights, see `backbone.weights.load`, or weights that are loaded.
          pool: "avg", "max", "avg+max" or "none", see `Pool`.
          views: what is computed of each photo: some of "original" and "mirror".
          precision: "float32", "bfloat16" or "auto": bfloat16 on accelerators, float32 on CPUs.
          conv: one of `ALGORITHMS`, or "auto": the fastest one for the platform.
          batch_size: photos a device computes together; by default 8 on a CPU core, 256 elsewhere.
          at_once: the most photos that will ever come together; no batch is larger than these fill.

        Raises:
          CatdogError: the weights cannot be used.
          UsageError: a setting is none of the above, the algorithm cannot compute in the precision,
            or a batch takes more memory than there is.
        """
        check_arguments(ExtractConfig, pool=pool, views=views, precision=precision, batch_size=batch_size)
        if conv not in ("auto", *ALGORITHMS):
            *names, last = "auto", *ALGORITHMS
            raise UsageError(f"--conv: expected {', '.join(names)} or {last}, found {conv}. Choose from these.")
        pretrained = backbone_weights.load(weights)
        devices = jax.local_devices()
        platform = devices[0].platform
        self.precision = ("float32" if platform == "cpu" else "bfloat16") if precision == "auto" else precision
        self.conv, self.note = _fastest(devices, self.precision) if conv == "auto" else (conv, "")
        algorithm = ALGORITHMS[self.conv]
        if self.precision not in algorithm.precisions:
            raise UsageError(
                f"--conv {self.conv}: expected --precision {' or '.join(algorithm.precisions)}, found {self.precision}. "
                "Choose one of the two."
            )
        if conv != "auto" and (reason := algorithm.lacks()):
            raise UsageError(f"--conv {conv}: {reason} Or leave --conv out.")
        self.batch_size = _on_each(devices, batch_size, at_once) * len(devices)
        self.pool = Pool(pool)
        mesh = Mesh(np.array(devices), ("batch",))
        self._by_photo = NamedSharding(mesh, PartitionSpec("batch"))
        self._params = jax.device_put(algorithm.transform(pretrained.params), NamedSharding(mesh, PartitionSpec()))
        dtype = jnp.dtype(self.precision)

        def compute(params: vgg16.Params, photos: jax.Array) -> jax.Array:
            def features(view: str) -> jax.Array:
                x = vgg16.normalise(VIEWS[view](photos), pretrained.mode, dtype)
                cells = algorithm.forward(params, x, dtype).astype(jnp.float32)
                return self.pool.apply(cells).reshape(-1, *self.pool.shape)

            return jnp.stack([features(view) for view in views], axis=1)

        by_photo, alike = PartitionSpec("batch"), PartitionSpec()
        on_each_device = jax.shard_map(compute, mesh=mesh, in_specs=(alike, by_photo), out_specs=by_photo)
        options = {"xla_cpu_multi_thread_eigen": False} if platform == "cpu" and len(devices) > 1 else None
        self._compute = jax.jit(on_each_device, compiler_options=options)
        self._views = len(views)

    def dispatch(self, photos: np.ndarray) -> jax.Array:
        """Starts computing one padded batch and returns at once.

        Args:
          photos: uint8 [batch_size, 224, 224, 3], RGB.

        Returns:
          float32 [batch_size, views, 512], or as `pool` has it; [batch_size, views, 7, 7, 512] for
          "none".

        Raises:
          CatdogError: `photos` has another dtype or shape.
          TypeError: `photos` is no array.
        """
        decoding.check_photos(photos)
        return self._compute(self._params, jax.device_put(photos, self._by_photo))

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Features of any number of photos.

        Args:
          photos: uint8 [N, 224, 224, 3], RGB, as `decoding.decode` gives them.

        Returns:
          float32 [N, columns]; [N, views, columns] where there are several views.

        Raises:
          CatdogError: `photos` has another dtype or shape.
          TypeError: `photos` is no array.
        """
        decoding.check_photos(photos)
        parts = [np.empty((0, self._views, self.pool.columns), np.float32)]
        for start in range(0, len(photos), self.batch_size):
            part = photos[start : start + self.batch_size]
            result = np.asarray(self.dispatch(padded(part, self.batch_size)))[: len(part)]
            parts.append(result.reshape(len(part), self._views, self.pool.columns))
        rows = np.concatenate(parts)
        return rows[:, 0] if self._views == 1 else rows


def _fastest(devices: Sequence[jax.Device], precision: str) -> tuple[str, str]:
    """The algorithm that "auto" stands for, and what a faster one lacks."""
    platform, note = devices[0].platform, ""
    for name, way in ALGORITHMS.items():
        idle = way.one_thread and len(devices) == 1 and cores() > 1
        if platform not in way.fastest_on or precision not in way.precisions or idle:
            continue
        if not (reason := way.lacks()):
            return name, note
        note = note or f"--conv {name} would be faster: {reason}"
    return "direct", note


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
