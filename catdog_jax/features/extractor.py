"""The frozen convolutions as a jitted function of photos, on all devices of this process."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from catdog_jax import jax_environment
from catdog_jax.backbone import accelerators, amx, native, vgg16, winograd
from catdog_jax.backbone import weights as backbone_weights
from catdog_jax.backbone.pooling import Pool
from catdog_jax.config import ExtractConfig, cores
from catdog_jax.errors import UsageError
from catdog_jax.features import memory
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import SIZE, DecodingRecipe
from catdog_jax.ranges import check_arguments


class Algorithm(NamedTuple):
    """A way to compute the convolutions.

    Attributes:
      transform: what it makes of the kernels, once.
      forward: (transformed params, normalised photos [N, size, size, 3], type) -> cells [N, grid, grid, 512].
      precisions: the types that it can compute in.
      fastest_on: the platforms of JAX where "auto" takes it for those types.
      lacks: why this machine cannot compute so; "" where it can.
      suits: whether the processor is of the kind that it is for; on others "auto" passes it over without a word.
      only_on: the platform of JAX that it is written for; "" where XLA compiles it for any.
      one_thread: whether it leaves cores idle that are no device of their own, so that "auto" passes it over there.
    """

    transform: Callable[[vgg16.Params], vgg16.Params]
    forward: Callable[[vgg16.Params, jax.Array, Any], jax.Array]
    precisions: tuple[str, ...]
    fastest_on: tuple[str, ...] = ()
    lacks: Callable[[], str] = lambda: ""
    suits: Callable[[], bool] = lambda: True
    only_on: str = ""
    one_thread: bool = False


def laid_out(form: accelerators.Form, platform: str) -> Algorithm:
    """The direct convolutions in a form, which is the fastest on a platform of JAX."""
    return Algorithm(
        functools.partial(accelerators.prepare, form=form),
        functools.partial(accelerators.forward, form=form),
        ("float32", "bfloat16"),
        (platform,),
    )


ALGORITHMS: dict[str, Algorithm] = {  # "auto" takes the first that is fastest on the platform, else "direct"
    "amx": Algorithm(
        amx.transform_kernels,
        lambda params, x, _: amx.forward(params, x),
        ("bfloat16",),
        ("cpu",),
        amx.reason,
        amx.has_registers,
        only_on="cpu",
    ),
    "native": Algorithm(
        native.transform_kernels,
        lambda params, x, _: native.forward(params, x),
        ("float32",),
        ("cpu",),
        native.reason,
        only_on="cpu",
        one_thread=True,
    ),
    "winograd": Algorithm(
        winograd.transform_kernels, lambda params, x, _: winograd.forward(params, x), ("float32",), ("cpu",)
    ),
    "direct": Algorithm(lambda params: params, vgg16.forward, ("float32", "bfloat16")),
    "direct-gpu": laid_out(accelerators.GPU, "gpu"),
    "direct-tpu": laid_out(accelerators.TPU, "tpu"),
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
      size: of the photos, in pixels a side.
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
        size: int = SIZE,
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
          batch_size: photos a device computes together; by default 8 on a CPU core, 256 elsewhere,
            or as many as the memory holds.
          size: of the photos, in pixels a side, see `DecodingRecipe`.

        Raises:
          CatdogError: the weights cannot be used, or the device has too little memory for them.
          UsageError: a setting is none of the above, the algorithm cannot compute in the precision,
            a batch takes more memory than there is, or JAX has no device.
        """
        check_arguments(ExtractConfig, pool=pool, views=views, precision=precision, batch_size=batch_size)
        self.size, self._grid = size, DecodingRecipe(size=size).grid
        if conv not in ("auto", *ALGORITHMS):
            *names, last = "auto", *ALGORITHMS
            raise UsageError(f"--conv: expected {', '.join(names)} or {last}, found {conv}. Choose from these.")
        jax_environment.require_devices()
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
        if algorithm.only_on not in ("", platform):
            raise UsageError(f"--conv {conv}: expected a {algorithm.only_on}, found a {platform}. Leave --conv out.")
        if conv != "auto" and (reason := algorithm.lacks()):
            raise UsageError(f"--conv {conv}: {reason} Or leave --conv out.")
        self.batch_size = memory.photos_on_each(devices, batch_size, size) * len(devices)
        self.pool = Pool(pool)
        mesh = Mesh(np.array(devices), ("batch",))
        self._by_photo = NamedSharding(mesh, PartitionSpec("batch"))
        dtype = jnp.dtype(self.precision)
        prepared = _in_type(algorithm.transform(pretrained.params), dtype)  # once, or each call would do it
        with memory.told(self.batch_size):
            self._params = jax.device_put(prepared, NamedSharding(mesh, PartitionSpec()))

        def compute(params: vgg16.Params, photos: jax.Array) -> jax.Array:
            def features(view: str) -> jax.Array:
                x = vgg16.normalise(VIEWS[view](photos), pretrained.mode, dtype)
                cells = algorithm.forward(params, x, dtype).astype(jnp.float32)
                return self.pool.apply(cells).reshape(-1, *self.pool.shape(self._grid))

            return jnp.stack([features(view) for view in views], axis=1)

        by_photo, alike = PartitionSpec("batch"), PartitionSpec()
        on_each_device = jax.shard_map(compute, mesh=mesh, in_specs=(alike, by_photo), out_specs=by_photo)
        options = {"xla_cpu_multi_thread_eigen": False} if platform == "cpu" and len(devices) > 1 else None
        self._compute = jax.jit(on_each_device, compiler_options=options)
        self._views = len(views)

    def dispatch(self, photos: np.ndarray) -> jax.Array:
        """Starts computing one padded batch and returns at once.

        Args:
          photos: uint8 [batch_size, size, size, 3], RGB.

        Returns:
          float32 [batch_size, views, 512], or as `pool` has it; [batch_size, views, grid, grid, 512]
          for "none", with a grid of size / 32.

        Raises:
          CatdogError: `photos` has another dtype or shape, or the device has too little memory, of
            which it may tell only when the result is read: see `memory.told`.
          TypeError: `photos` is no array.
        """
        decoding.check_photos(photos, self.size)
        with memory.told(self.batch_size):
            return self._compute(self._params, jax.device_put(photos, self._by_photo))

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Features of any number of photos.

        Args:
          photos: uint8 [N, size, size, 3], RGB, as `decoding.decode` gives them.

        Returns:
          float32 [N, columns]; [N, views, columns] where there are several views.

        Raises:
          CatdogError: `photos` has another dtype or shape, or the device has too little memory.
          TypeError: `photos` is no array.
        """
        decoding.check_photos(photos, self.size)
        columns = self.pool.columns(self._grid)
        parts = [np.empty((0, self._views, columns), np.float32)]
        for start in range(0, len(photos), self.batch_size):
            part = photos[start : start + self.batch_size]
            with memory.told(self.batch_size):
                result = np.asarray(self.dispatch(padded(part, self.batch_size)))[: len(part)]
            parts.append(result.reshape(len(part), self._views, columns))
        rows = np.concatenate(parts)
        return rows[:, 0] if self._views == 1 else rows


def _in_type(params: Any, dtype: Any) -> Any:
    """float32 parameters in the type that is computed in, rounded as XLA does."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 else leaf

    return jax.tree.map(cast, params)


def _fastest(devices: Sequence[jax.Device], precision: str) -> tuple[str, str]:
    """The algorithm that "auto" stands for, and what a faster one lacks."""
    platform, note = devices[0].platform, ""
    for name, way in ALGORITHMS.items():
        idle = way.one_thread and len(devices) == 1 and cores() > 1
        if platform not in way.fastest_on or precision not in way.precisions or idle or not way.suits():
            continue
        if not (reason := way.lacks()):
            return name, note
        note = note or f"--conv {name} would be faster: {reason}"
    return "direct", note


def padded(photos: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, …] -> [size, …]; the rows beyond n are black photos, whose features nobody reads."""
    if len(photos) == size:
        return photos
    return np.concatenate([photos, np.zeros((size - len(photos), *photos.shape[1:]), photos.dtype)])
