"""Heads of several poolings and widths as heads of one shape, for which an accelerator compiles one program.

Compiling takes seconds a shape, the heads of a sweep have up to twenty, and fitting all of them takes
seconds. So all of them see the columns of avg+max, and a head of avg or max has zeros for the rows of
its kernel that it would not have. All hidden layers are as wide as the widest: the units that are
added have kernels of zeros, ReLU keeps them at zero, no gradient moves them, and neither does Adam.
Each head begins and drops as it would alone: initial parameters and random bits are those of its own
shape, so its result is the same but for the order of sums.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from catdog_jax.backbone.pooling import Pool
from catdog_jax.backbone.vgg16 import Params
from catdog_jax.config import Recipe
from catdog_jax.heads import head
from catdog_jax.heads.rows import Scaling
from catdog_jax.heads.steps import Cut

WHOLE = "avg+max"  # the pooling whose columns hold those of the others


class Place(NamedTuple):
    """Where a head lies in the shape that it shares: its columns, from `start` to `stop`, and its hidden widths."""

    start: int
    stop: int
    hidden: tuple[int, ...]


class Merged(NamedTuple):
    """Heads as one shape.

    Attributes:
      places: of each head.
      hidden: the widths that all have.
      drawn: see `steps.Shape`; empty where all heads are alike.
      cut: see `steps.Cut`; None where all heads are alike.
    """

    places: tuple[Place, ...]
    hidden: tuple[int, ...]
    drawn: tuple[tuple[int, int], ...]
    cut: Cut | None

    def initial(self, key: jax.Array, columns: int) -> Params:
        """The parameters that each head begins with, by a leading axis of heads, from one key."""
        return _initial(key, self.places, self.hidden, columns)

    def taken(self, params: Params, index: int) -> Params:
        """One head's parameters, of NumPy, in its own shape."""
        place, layers = self.places[index], head.in_order(jax.tree.map(lambda array: array[index], params))
        found = {}
        for i, (name, layer) in enumerate(layers.items()):
            rows = slice(place.start, place.stop) if not i else slice(place.hidden[i - 1])
            width = 1 if name == head.OUTPUT else place.hidden[i]
            own = {"kernel": layer["kernel"][rows, :width], "bias": layer["bias"][:width]}
            found[name] = {part: np.ascontiguousarray(array) for part, array in own.items()}
        return found


def can(recipe: Recipe) -> bool:
    """Whether a head can share its shape with heads of other widths: it has at most one hidden layer, and its own pooling."""
    return recipe.solver == "adam" and len(recipe.hidden) <= 1 and recipe.pool != "none"


def pooling(recipes: Sequence[Recipe]) -> str:
    """The pooling whose features all these heads find their own in."""
    pools = {recipe.pool for recipe in recipes}
    return pools.pop() if len(pools) == 1 else WHOLE


def columns_of(recipe: Recipe, pool: str, columns: int) -> slice:
    """Which of the columns of `pool` are those of a recipe's pooling."""
    if recipe.pool == pool:
        return slice(0, columns)
    parts = Pool(pool).parts
    each = columns // len(parts)
    start = parts.index(recipe.pool) * each
    return slice(start, start + each)


def scaling_of(recipe: Recipe, pool: str, scaling: Scaling) -> Scaling:
    """The part of a scaling of the columns of `pool` that a recipe's features have."""
    columns = scaling.mean.shape[1]
    if recipe.pool == pool or columns == 1:  # one for all columns
        return scaling
    part = columns_of(recipe, pool, columns)
    return Scaling(scaling.mean[:, part], scaling.deviation[:, part])


def groups(recipes: Sequence[Recipe], together: bool, across: bool) -> list[list[Recipe]]:
    """The recipes in lists that are fitted at once, those of one pooling side by side.

    Args:
      recipes: of heads.
      together: on an accelerator, where heads share a shape. On a CPU one with a hidden layer is
        fitted alone, since its products fill the cores, and no other is made any wider.
      across: whether the heads of several poolings may share one.
    """
    found: dict[object, list[Recipe]] = {}
    for i, recipe in enumerate(recipes):
        if together and can(recipe):
            shape: object = (len(recipe.hidden), across or recipe.pool)
        else:
            alone = bool(recipe.hidden) and not together
            shape = (recipe.pool, recipe.solver, recipe.hidden, recipe.dropout > 0, i if alone else -1)
        found.setdefault(shape, []).append(recipe)
    pools = list(dict.fromkeys(pooling(group) for group in found.values()))
    return sorted(found.values(), key=lambda group: pools.index(pooling(group)))


def merge(recipes: Sequence[Recipe], pool: str | None, columns: int) -> Merged:
    """Heads, on features of so many columns, as one shape.

    `pool` is the pooling of the features; None where it is that of all recipes. Hidden layers may
    differ in width where all have one.
    """
    parts = [columns_of(recipe, pool or recipe.pool, columns) for recipe in recipes]
    places = tuple(
        Place(part.start, part.stop, tuple(recipe.hidden)) for recipe, part in zip(recipes, parts, strict=True)
    )
    hidden = tuple(map(max, zip(*(place.hidden for place in places), strict=True)))
    if len(set(places)) == 1 and places[0] == Place(0, columns, hidden):
        return Merged(places, hidden, (), None)
    own = [(0, place.hidden[0]) if hidden else (place.start, place.stop - place.start) for place in places]
    drawn = tuple(sorted(set(own)))
    seen = np.zeros((len(places), columns), np.float32)
    for row, place in zip(seen, places, strict=True):
        row[place.start : place.stop] = 1
    return Merged(places, hidden, drawn, Cut(seen, np.array([drawn.index(one) for one in own], np.int32)))


@functools.partial(jax.jit, static_argnames=("places", "hidden", "columns"))
def _initial(key: jax.Array, places: tuple[Place, ...], hidden: tuple[int, ...], columns: int) -> Params:
    different = tuple(dict.fromkeys(places))
    begun = [_placed(key, place, hidden, columns) for place in different]
    order = [different.index(place) for place in places]

    def in_order(*arrays: jax.Array) -> jax.Array:
        return jnp.stack([arrays[i] for i in order])

    return jax.tree.map(in_order, *begun)


def _placed(key: jax.Array, place: Place, hidden: tuple[int, ...], columns: int) -> Any:
    """A head's initial parameters where they lie, among zeros."""
    params = head.Head(place.hidden).init(key, jnp.zeros((1, place.stop - place.start)))["params"]
    found = {}
    for i, (name, layer) in enumerate(head.in_order(params).items()):
        rows = (place.start, columns - place.stop) if not i else (0, hidden[i - 1] - place.hidden[i - 1])
        wider = (0, 0) if name == head.OUTPUT else (0, hidden[i] - place.hidden[i])
        found[name] = {"kernel": jnp.pad(layer["kernel"], (rows, wider)), "bias": jnp.pad(layer["bias"], wider)}
    return found
