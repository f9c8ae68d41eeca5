"""The small trained part: dense layers on the features of a photo, and its file."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import linen as nn
from jax import lax

from catdog_jax.backbone.layers import CHANNELS
from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import THRESHOLD, Recipe
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.files import atomic, sealed
from catdog_jax.heads import strangeness
from catdog_jax.heads.strangeness import Strangeness
from catdog_jax.photos.dataset import is_class_name
from catdog_jax.photos.fingerprint import Fingerprint

FORMAT = 1
OUTPUT = "output"
_STRANGENESS = ("strangeness/mean", "strangeness/basis")  # tensors of the file, in heads that tell strangers


class Head(nn.Module):
    """Dense layers with ReLU and dropout, then one logit: that of the second class.

    Attributes:
      hidden: widths of the hidden layers; none makes the head linear.
      drawn: of a head that shares the shape of others (see `merging`): the first and the number of
        the units that random bits are drawn for, of each kind of head. By default all units.
    """

    hidden: tuple[int, ...] = ()
    drawn: tuple[tuple[int, int], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, dropout: float | jax.Array = 0.0, kind: jax.Array | None = None) -> jax.Array:
        """Maps features [N, columns] to logits [N].

        Args:
          x: float32 [N, columns].
          dropout: the share of the hidden activations (of the features, for a linear head) that is
            zeroed, the rest being scaled up; a number or a traced scalar. Needs the RNG "dropout".
            With 0.0 nothing is dropped.
          kind: int32 scalar, which of `drawn` the head is.
        """
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, precision=lax.Precision.HIGHEST, name=f"dense_{i}")(x))
            x = self._drop(x, dropout, kind)
        if not self.hidden:
            x = self._drop(x, dropout, kind)
        return nn.Dense(1, precision=lax.Precision.HIGHEST, name=OUTPUT)(x)[:, 0]

    def _drop(self, x: jax.Array, share: float | jax.Array, kind: jax.Array | None) -> jax.Array:
        """Dropout whose share may be traced, unlike nn.Dropout's, so that heads of different shares train under vmap."""
        if isinstance(share, float) and share == 0.0:
            return x
        rows, columns = x.shape
        key = self.make_rng("dropout")
        drawn = [
            jnp.pad(jax.random.uniform(key, (rows, count)), ((0, 0), (first, columns - first - count)))
            for first, count in self.drawn or ((0, columns),)
        ]
        kept = (drawn[0] if len(drawn) == 1 else lax.select_n(jnp.asarray(kind), *drawn)) >= share
        return jnp.where(kept, x / (1.0 - share), 0.0)


class Epoch(NamedTuple):
    """A row of history.csv.

    The learning rate is that of the first step; the losses are log losses without the penalty, in
    training under dropout. Where classes are balanced, they weigh alike in the losses. A head that
    is fitted exactly has one row, of epoch 1 and a learning rate of 0.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class OutOfFold:
    """What a cross-validation says of each photo, by heads that were not trained on it.

    Attributes:
      ids: the photos, N of them.
      labels: int [N], 0 or 1.
      folds: int [repeats, N], the fold of each photo in each repeat.
      probabilities: float64 [N], of class 1, by the mean of the logits over the repeats.
    """

    ids: list[str]
    labels: np.ndarray
    folds: np.ndarray
    probabilities: np.ndarray


class Trial(NamedTuple):
    """One head of a sweep: its recipe, and its best epoch."""

    recipe: Recipe
    best: Epoch


@dataclass(frozen=True, repr=False)
class FittedHead:
    """A trained head and what is needed to use it correctly.

    Calling it gives probabilities: `fitted(x)`, where x is [N, columns], is float64 [N], of the
    second class.

    Attributes:
      pool: what it sees of the features; None of a head on columns that are no features of this
        package.
      params: {"dense_0": {"kernel": [columns, width], "bias": [width]}, …, "output": {"kernel":
        [width, 1], "bias": [1]}}, float32, in the order of the layers, the standardisation of the
        features folded into the first.
      classes: the two names; sigmoid(logit) is the probability of the second.
      fingerprint: that of the features it was trained on; empty where they are not of this package.
      recipe: how it was trained.
      strangeness: what tells photos of neither class, by the features of `strangeness.seen`; its level
        is `strange_above` of the recipe. None of a head that does not tell them.
      history: the epochs of the training. Like all that follows it is known to who trained the
        head, and not part of its file.
      sweep: the heads that it was chosen from, the best first.
      notes: what the training decided otherwise than its preset, a sentence each.
      warnings: what makes the head less than it could be, a sentence each.
      out_of_fold: what heads that had not seen them say of the photos; None of a head that was
        trained without folds.
    """

    pool: Pool | None
    params: Params
    classes: tuple[str, str]
    fingerprint: Fingerprint
    recipe: dict[str, Any]
    strangeness: Strangeness | None = field(default=None, compare=False)
    history: tuple[Epoch, ...] = field(default=(), compare=False)
    sweep: tuple[Trial, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    out_of_fold: OutOfFold | None = field(default=None, compare=False)

    @property
    def threshold(self) -> float:
        """The probability of the second class from which on a photo is of that class."""
        return float(self.recipe.get("threshold", THRESHOLD))

    @property
    def exact(self) -> bool:
        """Whether it is the exact minimum of its objective, by `convex`."""
        return self.recipe.get("solver") == "newton"

    @property
    def columns(self) -> int:
        """How many features a row has."""
        return int(next(iter(self.params.values()))["kernel"].shape[0])

    @property
    def best(self) -> Epoch | None:
        """The epoch whose parameters were kept; None of a head that comes from a file."""
        return best_epoch(self.history) if self.history else None

    @property
    def own_pool(self) -> Pool:
        """The pooling of the features.

        Raises:
          CatdogError: the head was trained on columns that are no features of this package.
        """
        if self.pool is None:
            raise CatdogError(
                f"head: expected one that was trained on features of this package, found one of {self.columns:,} columns of "
                "other origin. Train on a feature cache, or name the pool of the columns in the training."
            )
        return self.pool

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The probability of the second class for each row of features.

        Args:
          x: [N, columns], any floating type.

        Returns:
          float64 [N].

        Raises:
          UsageError: `x` has another shape.
        """
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.columns:
            raise UsageError(f"x: expected features [N, {self.columns}], found {x.dtype} {list(x.shape)}.")
        return probabilities(self.params, x)

    def strange(self, x: np.ndarray) -> np.ndarray | None:
        """How unlike the photos of its training each row is, float64 [N]; None of a head that does not tell.

        x is [N, columns], as in a call.
        """
        if self.strangeness is None:
            return None
        return self.strangeness(strangeness.seen(x, self.own_pool))

    def __repr__(self) -> str:
        widths = " → ".join(f"{layer['kernel'].shape[1]:,}" for layer in self.params.values())
        best = self.best
        how = "fitted exactly" if self.exact else f"best of {len(self.history)} epochs: {best and best.epoch}"
        figures = "" if best is None else (
            f"; {how}, validation log loss {best.validation_loss:.4f}, accuracy {best.validation_accuracy:.2%}"
        )  # fmt: skip
        return f"FittedHead({' | '.join(self.classes)}; {self.columns:,} features → {widths}{figures})"

    def save(self, path: Path | str) -> None:
        """Writes it as .safetensors, atomically; `load` reads it. The same head gives the same bytes.

        Raises:
          CatdogError: the file cannot be written.
        """
        tensors = {
            f"{name}/{part}": np.asarray(array) for name, layer in self.params.items() for part, array in layer.items()
        }
        known = {}
        if self.strangeness is not None:
            tensors |= {name: getattr(self.strangeness, name.partition("/")[2]) for name in _STRANGENESS}
            known = {"strangeness_sha256": self.strangeness.sha256}
        described = {
            **known,
            "format": FORMAT,
            "layers": list(self.params),
            "pool": self.pool,
            "classes": list(self.classes),
            "fingerprint": self.fingerprint.to_json(),
            "recipe": self.recipe,
            "sha256": digest(self.params),
            "seal": sealed.UNSEALED,
        }
        # One entry, because safetensors writes several in random order.
        metadata = {"head": json.dumps(described, sort_keys=True)}
        atomic.write_bytes(Path(path), sealed.seal(safetensors.numpy.save(tensors, metadata)))


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The first epoch of the lowest validation loss; what is not finite is the highest."""
    return min(history, key=lambda row: row.validation_loss if math.isfinite(row.validation_loss) else math.inf)


def fold_standardisation(params: Params, mean: np.ndarray, deviation: np.ndarray) -> Params:
    """Makes a head that was trained on (x - mean) / deviation one of x, exactly: W' = W / deviation, b' = b - mean W'.

    The parameters are as in `FittedHead`; mean and deviation, which is positive, are [columns].
    The new ones are computed in float64 and float32.
    """
    first = next(iter(params))
    kernel = np.asarray(params[first]["kernel"], np.float64) / deviation[:, None]
    bias = np.asarray(params[first]["bias"], np.float64) - mean @ kernel
    return params | {first: {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}}


def probabilities(params: Params, x: np.ndarray) -> np.ndarray:
    """The probability of the second class for each row of features, float64 [N], computed on the device in bounded batches.

    `params` are as in `FittedHead`, x is [N, columns] of any floating type.
    """
    size = 1024
    batches = (jnp.asarray(x[start : start + size], jnp.float32) for start in range(0, len(x), size))
    logit = np.concatenate([np.zeros(0), *(np.asarray(_jitted_logits(params, batch), np.float64) for batch in batches)])
    return 0.5 * (1 + np.tanh(logit / 2))  # the sigmoid, without overflow


def in_order(params: Params) -> Params:
    """The layers in the order of the network, which JAX's transformations lose: they sort the keys of a dict."""
    return {name: params[name] for name in sorted(params, key=lambda name: (name == OUTPUT, len(name), name))}


def logits(
    params: Params,
    x: jax.Array,
    dropout: float | jax.Array = 0.0,
    dropout_key: jax.Array | None = None,
    drawn: tuple[tuple[int, int], ...] = (),
    kind: jax.Array | None = None,
) -> jax.Array:
    """Applies a head: features [N, columns] -> logits [N] of the second class; see `Head` for the dropout."""
    hidden = tuple(layer["kernel"].shape[1] for name, layer in in_order(params).items() if name != OUTPUT)
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    return cast(jax.Array, Head(hidden, drawn).apply({"params": params}, x, dropout, kind, rngs=rngs))


_jitted_logits = jax.jit(logits)


def digest(params: Params) -> str:
    """The SHA-256 over the names, shapes and values of a head's tensors."""
    parts = [[name, part, list(array.shape), atomic.sha256(np.ascontiguousarray(array, "<f4").tobytes())]
             for name, layer in params.items() for part, array in sorted(layer.items())]  # fmt: skip
    return sealed.sha256_of_json(parts)


def load(path: Path | str) -> FittedHead:
    """Reads a head that `catdog train` or `FittedHead.save` wrote.

    Example:
      >>> import catdog_jax as cd
      >>> head.save("run/head.safetensors")
      >>> cd.load_head("run/head.safetensors").classes
      ('cats', 'dogs')

    Args:
      path: of the .safetensors file.

    Raises:
      CatdogError: the file is missing, is not a head, or is damaged: a layer is missing, of a wrong
        shape, altered or not finite.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        described = json.loads(metadata["head"])
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']!r}, expected {FORMAT}")
        params = {
            name: {part: tensors.pop(f"{name}/{part}") for part in ("kernel", "bias")} for name in described["layers"]
        }
        strange = _read_strangeness(described, tensors)
        _check(params, described, tensors)
        classes = (str(described["classes"][0]), str(described["classes"][1]))
        if not 0 < float(described["recipe"].get("threshold", THRESHOLD)) < 1:
            raise ValueError(f"threshold {described['recipe']['threshold']!r}, expected a number between 0 and 1")
        if not all(map(is_class_name, classes)):
            raise ValueError(f"classes {classes}, expected names in UTF-8 without control characters")
        fingerprint = Fingerprint.from_json(described["fingerprint"])
        pool = None if described["pool"] is None else Pool(described["pool"])
        return FittedHead(pool, params, classes, fingerprint, described["recipe"], strange)
    except FileNotFoundError:
        raise CatdogError(f"{path}: expected a trained head, found no file. Run `catdog train` first.") from None
    except (
        safetensors.SafetensorError,
        CatdogError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:
        raise CatdogError(f"{path}: expected a head of `catdog train`, found: {error}. Train again.") from None


def _read_strangeness(described: dict[str, Any], tensors: dict[str, np.ndarray]) -> Strangeness | None:
    """What tells strangers, taken out of the tensors of a file; None of a file without it, as all of before are."""
    level = described["recipe"].get("strange_above")
    if level is None and "strangeness_sha256" not in described:
        return None
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level < math.inf:
        raise ValueError(f"strange_above {level!r}, expected a finite number from 0 on")
    mean, basis = (tensors.pop(name) for name in _STRANGENESS)
    if mean.shape != (CHANNELS,) or basis.ndim != 2 or len(basis) != CHANNELS:
        raise ValueError(f"strangeness of shapes {mean.shape} and {basis.shape}, expected {CHANNELS} rows")
    found = Strangeness(mean, basis)
    if found.sha256 != described.get("strangeness_sha256"):
        raise ValueError("altered tensors of the strangeness: their sha256 differs from the recorded one")
    if not (np.isfinite(mean).all() and np.isfinite(basis).all()):
        raise ValueError("NaN or infinity in the strangeness")
    return found


def _check(params: Params, described: dict[str, Any], rest: dict[str, np.ndarray]) -> None:
    if rest:
        raise ValueError(f"extra tensors {', '.join(rest)}")
    own = described["pool"] is not None
    grid = Fingerprint.from_json(described["fingerprint"]).recipe.grid
    width = Pool(described["pool"]).columns(grid) if own else next(iter(params.values()))["kernel"].shape[0]
    for name, layer in params.items():
        kernel, bias = layer["kernel"], layer["bias"]
        if kernel.ndim != 2 or kernel.shape[0] != width or bias.shape != kernel.shape[1:]:
            raise ValueError(f"{name} of shape {kernel.shape} with bias {bias.shape}, expected {width} rows")
        width = kernel.shape[1]
    if list(params)[-1:] != [OUTPUT] or width != 1:
        raise ValueError(f"{width} outputs of layer {list(params)[-1:]}, expected one of {OUTPUT!r}")
    if digest(params) != described["sha256"]:
        raise ValueError("altered tensors: their sha256 differs from the recorded one")
    if not all(np.isfinite(array).all() for layer in params.values() for array in layer.values()):
        raise ValueError("NaN or infinity")
