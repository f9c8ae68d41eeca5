"""Ranges of settings: what fits, what is refused and in which words, and that every number of a setting has one."""

import dataclasses
import math
from typing import Annotated, Literal, get_args, get_type_hints

import numpy as np
import pytest

from catdog_jax import cli, config
from catdog_jax.errors import UsageError
from catdog_jax.ranges import AtLeast, Between, MoreThan, check, check_arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    count: Annotated[int, AtLeast(2, after=" photos")] = 2
    share: Annotated[float, Between(0, 0.5)] = 0.25
    time_limit: Annotated[float, MoreThan(0)] | None = None
    widths: Annotated[tuple[int, ...], AtLeast(1, before="widths of ", advice="")] = ()
    name: str = ""
    kind: Literal["cat", "dog"] | None = None
    views: tuple[Literal["plain", "mirror"], ...] = ("plain",)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 3, "share": 0, "time_limit": 1e-300, "widths": (1, 9), "name": "x"},
        {"kind": "dog", "views": ["mirror", "plain"]},
        {"count": np.int64(2), "share": np.float32(0.5), "time_limit": math.inf},
    ],
)
def test_what_lies_within_fits(values):
    check(Settings(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1}, "--count: expected 2 or more photos, found 1. Leave it out for the default."),
        ({"share": 0.51}, "--share: expected 0 to 0.5, found 0.51."),
        ({"share": math.nan}, "--share: expected 0 to 0.5, found nan."),
        ({"time_limit": 0.0}, "--time-limit: expected more than 0, found 0.0. Leave it out for the default."),
        ({"widths": (3, 0)}, "--widths: expected widths of 1 or more, found (3, 0)."),
        ({"kind": "cow"}, "--kind: expected cat or dog, found cow. Choose from these."),
        ({"views": ("plain", "odd")}, "--views: expected plain or mirror, found plain, odd. Choose from these."),
        ({"views": "plain"}, "--views: expected plain or mirror, found plain. Choose from these."),
        ({"views": ()}, "--views: expected plain or mirror, found none. Choose from these."),
    ],
)
def test_what_lies_outside_is_wrong_usage(values, message):
    with pytest.raises(UsageError) as error:
        check(Settings(**values))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("count", "3", "whole number"), ("count", 2.5, "whole number"), ("count", True, "whole number"),
     ("share", "0.1", "number"), ("widths", (1, 2.0), "whole number"), ("time_limit", [1.0], "number")],
)  # fmt: skip
def test_what_is_no_such_number_is_a_type_error(name, value, kind):
    with pytest.raises(TypeError, match=f"{name}: expected a {kind}, found "):
        check_arguments(Settings, **{name: value})


NUMBERS = {
    (stage, name)
    for stage in (*cli.STAGES.values(), config.Recipe)
    for name, hint in get_type_hints(stage).items()
    if {hint, *get_args(hint)} & {int, float}  # tuples of them have a test in `test_cli`
}


def test_every_number_has_a_range():
    """All but `shard_index` and `num_shards`, which bound each other; see `features.locks`."""
    unbounded = set()
    for stage, name in NUMBERS:
        try:
            check_arguments(stage, **{name: -(10**9)})
        except UsageError:
            continue
        unbounded.add(name)
    assert unbounded == {"shard_index", "num_shards"}


def test_defaults_and_presets_lie_within():
    for settings in cli.STAGES.values():
        positional = [()] * any(field.name == "paths" for field in dataclasses.fields(settings))
        check(settings(*positional))
    for recipe in config.PRESETS.values():
        check(recipe)
