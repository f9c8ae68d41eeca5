"""What this JAX computes on this machine, against float64 NumPy: extraction, pooling, heads, their gradient, label errors.

XLA has given wrong sums on CPUs more than once, without an error (see `jax_environment`). `catdog
doctor` says what `wrong` finds; the tests hold each check. A further check is one more row of
`CHECKS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from catdog_jax.auditing import out_of_fold
from catdog_jax.backbone import vgg16, weights, winograd
from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import Params
from catdog_jax.features import extractor as features_extractor
from catdog_jax.heads import convex, head, steps
from catdog_jax.heads.steps import Hyper

Pair = tuple[np.ndarray, np.ndarray]  # found, expected
ROWS = 40_001  # many, and odd: vectorised loops have remainders
_WIDTHS = {"dense_0": (7, 5), head.OUTPUT: (5, 1)}
_PHOTOS = (3, 37, 45, 3)  # of odd size, which pooling cuts


class Check(NamedTuple):
    """A computation and the largest error that rounding explains, as a share of the largest expected value."""

    name: str
    compute: Callable[[], Pair]
    tolerance: float


def wrong(
    extractor: features_extractor.Extractor, pretrained: weights.Weights, checks: Sequence[Check] | None = None
) -> list[str]:
    """What comes out wrong, a sentence for each: the photos of the extractor that is given, and `checks`, by default all."""
    tolerance = BFLOAT16 if extractor.precision == "bfloat16" else FLOAT32
    photo = Check(
        f"extraction ({extractor.conv}, {extractor.precision})", lambda: extraction(extractor, pretrained), tolerance
    )
    return [told for check in (photo, *(CHECKS if checks is None else checks)) if (told := fault(check))]


def fault(check: Check) -> str:
    """What is wrong with a computation, or an empty text."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is wrong may be any bits
        found, expected = (np.asarray(side, np.float64) for side in check.compute())
        error = np.abs(found - expected)
        off = ~(error <= check.tolerance * np.abs(expected).max())  # written so that NaN is off
    if not off.any():
        return ""
    worst = np.unravel_index(np.where(np.isnan(error), np.inf, error).argmax(), error.shape)
    pair = f"expected {expected[worst]:.6g}, found {found[worst]:.6g}"
    return f"{check.name}: {pair}; {off.sum():,} of {off.size:,} values are wrong"


def extraction(extractor: features_extractor.Extractor, pretrained: weights.Weights) -> Pair:
    """The averaged features of one photo of noise."""
    photos = _random((1, 224, 224, 3), 256)
    return extractor(photos), convolutions(pretrained.params, vgg16_pixels(photos, pretrained.mode)).mean(axis=(1, 2))


def vgg16_pixels(photos: np.ndarray, mode: str) -> np.ndarray:
    """What `vgg16.normalise` does, float64."""
    return (photos[..., list(vgg16.CHANNEL_ORDER[mode])] - np.array(vgg16.MEAN[mode])) / np.array(vgg16.STD[mode])


def convolutions(params: Params, x: np.ndarray, layers: Sequence[vgg16.Conv] = vgg16.LAYERS) -> np.ndarray:
    """What `vgg16.forward` does, float64 [N, H, W, 3] -> [N, H // 32, W // 32, 512]: a product of matrices for each tap."""
    for layer in layers:
        n, height, width, channels = x.shape
        kernel, bias = (np.asarray(params[layer.name][part], np.float64) for part in ("kernel", "bias"))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = ((padded[:, i : i + height, j : j + width], kernel[i, j]) for i in range(3) for j in range(3))
        x = sum(tap.reshape(-1, channels) @ weight for tap, weight in taps).reshape(n, height, width, -1) + bias
        x = np.maximum(x, 0)
        if layer.pool:
            even = x[:, : height // 2 * 2, : width // 2 * 2]
            x = even.reshape(n, height // 2, 2, width // 2, 2, -1).max(axis=(2, 4))
    return x


def _direct(dtype: Any) -> Pair:
    params, x = weights.random().params, jnp.asarray(_normal(_PHOTOS), dtype)
    found = jax.jit(lambda params, x: vgg16.forward(params, x, dtype))(params, x)
    return np.asarray(found, np.float64), convolutions(params, np.asarray(x, np.float64))


def _winograd() -> Pair:
    """The first layers: those after them differ in nothing but their widths."""
    layers, x = vgg16.LAYERS[:4], _normal(_PHOTOS)
    params = {layer.name: weights.random().params[layer.name] for layer in layers}
    found = jax.jit(lambda params, x: winograd.forward(params, x, layers))(winograd.transform_kernels(params), x)
    return np.asarray(found), convolutions(params, x.astype(np.float64), layers)


def _pooling() -> Pair:
    cells = _normal((101, 7, 7, 512))
    found = jax.jit(lambda x: Pool.AVG_MAX.apply(x))(cells)
    return np.asarray(found), Pool.AVG_MAX.apply(cells.astype(np.float64))


def _sums_of_products() -> Pair:
    """jax-ml/jax#39103: the smallest case that is known to go wrong."""
    x = _normal((ROWS, 3))
    same = jnp.eye(3, dtype=jnp.float32)
    return np.asarray(jax.jit(jax.vmap(lambda row: ((same @ row) ** 2).sum()))(x)), (x.astype(np.float64) ** 2).sum(
        axis=1
    )


def _products_summed() -> Pair:
    x = _normal((5, 60, 60))
    found = jax.jit(lambda x: ((x @ jnp.full_like(x, 0.25)) * x).sum(axis=-1))(x)
    return np.asarray(found), 0.25 * x.sum(axis=-1, keepdims=True, dtype=np.float64)[..., 0] * x.sum(
        axis=-1, dtype=np.float64
    )


def _logits() -> Pair:
    params, x = _head(), _normal((ROWS, 7))
    return np.log(1 / head.probabilities(params, x) - 1), -_forward(params, x)[1]


def _objective() -> Pair:
    """The objective and its gradient, of three heads at once: under vmap, as a sweep fits them, with masked rows."""
    rows = _normal((ROWS, 7)), _random((ROWS,), 2).astype(np.float32), (np.arange(ROWS) % 9 > 0).astype(np.float32)
    penalties, params = np.array([0, 0.01, 1], np.float32), _head()

    def of_one(l2: jax.Array, params: Params, x: jax.Array, y: jax.Array, weight: jax.Array) -> jax.Array:
        hyper = Hyper(0.0, 1.0, l2, 0.1, None)
        value = jax.value_and_grad(lambda p: steps.objective(p, x, y, weight, jax.random.key(0), hyper)[0])(params)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(value)])

    # Arguments: XLA folds constants without its kernels
    of_all = jax.jit(jax.vmap(of_one, in_axes=(0, None, None, None, None)))
    found = np.asarray(of_all(penalties, params, *rows))
    return found, np.stack([_value_and_grad(params, *rows, l2) for l2 in penalties])


def _value_and_grad(params: Params, x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float) -> np.ndarray:
    """The objective, then its gradient in the order of `jax.tree.leaves`, float64 [values]."""
    hidden, logits = _forward(params, x)
    wanted = y * 0.9 + 0.05
    share = weight.astype(np.float64) / weight.sum(dtype=np.float64)
    kernels = [np.asarray(layer["kernel"], np.float64) for layer in params.values()]
    loss = share @ (np.logaddexp(0, logits) - wanted * logits) + l2 * sum((kernel**2).sum() for kernel in kernels)
    slope = share * (1 / (1 + np.exp(-logits)) - wanted)
    below = slope[:, None] * kernels[1].T * (hidden > 0)
    gradients = (
        below.sum(axis=0),
        x.T @ below + 2 * l2 * kernels[0],
        slope.sum(),
        slope @ hidden + 2 * l2 * kernels[1][:, 0],
    )
    return np.concatenate([np.ravel(value) for value in (loss, *gradients)])


def _forward(params: Params, x: np.ndarray) -> Pair:
    """The hidden activations and the logits of `_head`, float64."""
    first, last = ({part: np.asarray(array, np.float64) for part, array in layer.items()} for layer in params.values())
    hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
    return hidden, (hidden @ last["kernel"] + last["bias"])[:, 0]


def _exact_heads() -> Pair:
    """The coefficients of two linear heads, weighed and not, against Newton's steps in NumPy."""
    x, l2 = _normal((1_001, 7)).astype(np.float64), np.array([1e-3, 1e-1])
    y = (x[:, 0] + _normal((1_001,))[::-1] > 0).astype(np.float64)
    weights = np.stack([np.ones(len(x)), np.arange(len(x)) % 3])
    found = convex.fit(x, y, weights, l2)[head.OUTPUT]
    return np.concatenate([found["kernel"][:, :, 0], found["bias"]], axis=1), np.stack(
        [
            _newton(np.pad(x, ((0, 0), (0, 1)), constant_values=1), y, *of_one)
            for of_one in zip(weights, l2, strict=True)
        ]
    )


def _newton(x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float) -> np.ndarray:
    """The minimum of the objective, whose penalty leaves out the last column: 30 full steps, where far fewer do."""
    share, penalty, w = weight / weight.sum(), 2 * l2 * (np.arange(x.shape[1]) < x.shape[1] - 1), np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        w = w - np.linalg.solve(
            (x.T * share * p * (1 - p)) @ x + np.diag(penalty), x.T @ (share * (p - y)) + penalty * w
        )
    return w


def label_errors(rows: int = 1_001) -> Pair:
    """The probabilities that heads give to rows they have not seen, against SciPy's optimum of the same objective."""
    x = _normal((rows, 7)).astype(np.float64)
    labels = (x[:, 0] + _normal((rows,))[::-1] > 0).astype(np.int64)
    fold = out_of_fold.folds(len(x), [], 0)
    found = out_of_fold.out_of_fold(x.astype(np.float32), labels, fold)
    standard, expected = (x - x.mean(axis=0)) / x.std(axis=0), np.zeros(len(x))
    for held_out in range(out_of_fold.FOLDS):
        seen = fold != held_out

        def loss(head: np.ndarray, seen: np.ndarray = seen) -> float:
            logits = standard[seen] @ head[:-1] + head[-1]
            return float((np.logaddexp(0, logits) - labels[seen] * logits).mean() + found.l2 * (head[:-1] ** 2).sum())

        best = optimize.minimize(loss, np.zeros(8), options={"gtol": 1e-8}).x
        expected[~seen] = 1 / (1 + np.exp(-(standard[~seen] @ best[:-1] + best[-1])))
    return found.probabilities, expected


def _head() -> Params:
    return {name: {"kernel": _normal(shape), "bias": _normal(shape[1:])} for name, shape in _WIDTHS.items()}


def _normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _random(shape: tuple[int, ...], below: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, shape, np.uint8)


FLOAT32, BFLOAT16 = 1e-4, 3e-2
EXACT = 1e-6  # float64
LABELS = 1e-3  # two optimisers that stop near one optimum
CHECKS = (
    Check("sums of products", _sums_of_products, FLOAT32),
    Check("products, summed", _products_summed, FLOAT32),
    Check("convolutions (direct, float32)", lambda: _direct(jnp.float32), FLOAT32),
    Check("convolutions (winograd, float32)", _winograd, FLOAT32),
    Check("convolutions (direct, bfloat16)", lambda: _direct(jnp.bfloat16), BFLOAT16),
    Check("pooling", _pooling, FLOAT32),
    Check("logits of a head", _logits, FLOAT32),
    Check("objective and gradient of a head", _objective, FLOAT32),
    Check("exact linear heads", _exact_heads, EXACT),
    Check("label errors", label_errors, LABELS),
)
