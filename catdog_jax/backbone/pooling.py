"""How the cells, 7x7 of a photo of 224 pixels, that the convolutions give of a photo become the features that a head sees."""

import enum
import math
from typing import Any

import numpy as np

from catdog_jax.backbone.layers import CHANNELS


class Pool(enum.StrEnum):
    """A pooling, which is equal to its name: `Pool("avg+max") == "avg+max"`.

    "avg" and "max" are taken over the cells, "avg+max" puts the two side by side, and "none" keeps
    all cells, from which each of the others can be had.
    """

    AVG = "avg"
    MAX = "max"
    AVG_MAX = "avg+max"
    NONE = "none"

    @classmethod
    def _missing_(cls, value: object) -> "Pool":
        raise ValueError(f"pool: expected {', '.join(cls)}, found {value!r}. Choose one of these.")

    @property
    def parts(self) -> tuple[str, ...]:
        """The reductions over the cells whose results lie side by side; empty where the cells are kept."""
        return () if self is Pool.NONE else tuple(self.value.split("+"))

    def shape(self, grid: int) -> tuple[int, ...]:
        """The shape of a photo's features as they are stored: (columns,), or (grid, grid, 512) for "none"."""
        return (len(self.parts) * CHANNELS,) if self.parts else (grid, grid, CHANNELS)

    def columns(self, grid: int) -> int:
        """How many features a head sees of a photo whose cells are [grid, grid, 512]."""
        return math.prod(self.shape(grid))

    def apply(self, cells: Any) -> Any:
        """Reduces cells, of NumPy or JAX, to what a head sees.

        From [..., grid, grid, 512] to [..., columns]; for "none" the cells are in the order y, x,
        channel.
        """
        if not self.parts:
            return cells.reshape(*cells.shape[:-3], -1)
        reductions = {"avg": cells.mean, "max": cells.max}
        pooled = [reductions[part](axis=(-3, -2)) for part in self.parts]
        return pooled[0] if len(pooled) == 1 else cells.__array_namespace__().concat(pooled, axis=-1)

    def gives(self, other: "Pool") -> bool:
        """Whether features of the other pooling can be had from features of this one."""
        return other is self or not self.parts or other.value in self.parts

    def convert(self, stored: np.ndarray, other: "Pool") -> np.ndarray:
        """Features of the other pooling, which this one `gives`.

        From [..., *shape] of this pooling to [..., columns] of the other, of the stored type where
        nothing is computed, else float32.
        """
        if other is self:
            return stored if self.parts else stored.reshape(*stored.shape[:-3], math.prod(stored.shape[-3:]))
        if not self.parts:
            return other.apply(np.asarray(stored, np.float32))
        start = self.parts.index(other.value) * CHANNELS
        return stored[..., start : start + CHANNELS]
