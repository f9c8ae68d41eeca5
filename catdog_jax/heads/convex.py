"""Linear heads, fitted exactly: the objective of training is convex for them, and Newton's method finds its one minimum.

There is no learning rate, no batch and no epoch, and nothing is random. Many heads are fitted in
one computation, in float64: they may differ in the rows that they see, in the weight of each row
and in the penalty, as all folds of a cross-validation do. On an accelerator they are computed at
once, under vmap; on a CPU the products of one fill the cores.
"""

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import threadpoolctl
from jax import lax

from catdog_jax.backbone.vgg16 import Params
from catdog_jax.heads.head import OUTPUT

MAX_SIDE = 4096  # rows or columns, whichever are fewer, of what is fitted so; the work grows with their cube
_TOLERANCE = 1e-9  # of what a step may still win
_STEPS = 100  # at most; some 10 are taken
_LENGTHS = (1.0, 0.5, 0.2, 0.05, 0.01)  # of a step; the best is taken, so that no step makes it worse
_AT_ONCE = 2**27  # bytes of Hessians, or of weighed rows, that are in memory at once


def fits(rows: int, columns: int) -> bool:
    """Whether `fit` can be given so many rows of so many columns."""
    return min(rows, columns) <= MAX_SIDE


def fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalties: np.ndarray) -> Params:
    """Fits linear heads, each to the minimum of its own objective.

    Head h minimises sum_n w[h, n] loss(n) / sum_n w[h, n] + l2[h] * sum(kernel ** 2), where the loss
    is the log loss of row n. The bias has no penalty.

    Args:
      x: [N, columns], of any floating type, standardised as the kernel is to see it. One of both is
        at most `MAX_SIDE`.
      y: [N], 0 or 1.
      weights: [heads, N], not negative; 0 leaves a row out. Each head sees rows of both classes.
      penalties: [heads], above 0, without which separable classes have no minimum.

    Returns:
      {"output": {"kernel": float64 [heads, columns, 1], "bias": float64 [heads, 1]}}.
    """
    x = np.asarray(x, np.float64)
    # In an orthonormal basis of the rows the penalty is the same, and there are as many columns as rows
    basis = np.linalg.qr(x.T)[0] if x.shape[1] > len(x) else None
    small = x if basis is None else x @ basis
    weights = np.asarray(weights, np.float64)
    shares = weights / weights.sum(axis=1, keepdims=True)
    # LAPACK's own threads and XLA's wait for each other: one is up to 20 times as fast where others compute too
    with threadpoolctl.threadpool_limits(1, "blas"), jax.enable_x64(True):
        fitted = np.asarray(_fit_all(small, np.asarray(y, np.float64), shares, np.asarray(penalties, np.float64)))
    kernels = fitted[:, :-1] if basis is None else fitted[:, :-1] @ basis.T
    return {OUTPUT: {"kernel": kernels[:, :, None], "bias": fitted[:, -1:]}}


@jax.jit
def _fit_all(x: jax.Array, y: jax.Array, shares: jax.Array, penalties: jax.Array) -> jax.Array:
    """The kernel and, last, the bias of each head, float64 [heads, columns + 1]."""
    x = jnp.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
    size = x.shape[1]
    at_once = None if jax.default_backend() == "cpu" else max(1, _AT_ONCE // (8 * size * max(x.shape)))
    return lax.map(lambda head: _fit_one(x, y, *head), (shares, penalties), batch_size=at_once)


def _fit_one(x: jax.Array, y: jax.Array, share: jax.Array, l2: jax.Array) -> jax.Array:
    penalised = jnp.ones(x.shape[1]).at[-1].set(0.0)

    def objective(w: jax.Array) -> jax.Array:
        signed = jnp.where(y > 0.5, 1.0, -1.0) * (x @ w)
        return (share * jnp.logaddexp(0.0, -signed)).sum() + l2 * (penalised * w**2).sum()

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, won, step = state
        return (won > _TOLERANCE) & (step < _STEPS)

    def advance(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        w, _, step = state
        p = jax.nn.sigmoid(x @ w)
        gradient = x.T @ (share * (p - y)) + 2 * l2 * penalised * w
        # A little curvature everywhere, where a head is so sure that its own rounds to nothing
        curvature = share * jnp.maximum(p * (1 - p), 1e-12)
        hessian = (x.T * curvature[None]) @ x + jnp.diag(2 * l2 * penalised + 1e-12)
        direction = jax.scipy.linalg.solve(hessian, gradient, assume_a="pos")
        tried = w[None] - jnp.array(_LENGTHS)[:, None] * direction[None]
        values = jax.vmap(objective)(tried)
        best = jnp.argmin(values)
        better = values[best] < objective(w)
        won = jnp.where(better, gradient @ direction / 2, 0.0)  # what a full step should win
        return jnp.where(better, tried[best], w), won, step + 1

    return lax.while_loop(unfinished, advance, (jnp.zeros(x.shape[1]), jnp.array(jnp.inf), jnp.array(0)))[0]
