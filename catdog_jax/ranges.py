"""What a setting may be: written beside it, as in `Annotated[int, AtLeast(1)]` or `Literal["a", "b"]`, and checked here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from catdog_jax.errors import UsageError

_LEAVE_OUT = "Leave it out for the default."


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be; of a tuple, each of its members.

    Attributes:
      low: the least.
      high: the greatest.
      expected: the range in words.
      advice: what to do about a value outside; may be empty.
    """

    low: float
    high: float
    expected: str
    advice: str


class Between(Range):
    """`low` to `high`, both included."""

    def __init__(self, low: float, high: float, advice: str = ""):
        super().__init__(low, high, f"{low} to {high}", advice)


class AtLeast(Range):
    """`low` or more. The words `before` and `after` it name what is counted."""

    def __init__(self, low: float, *, before: str = "", after: str = "", advice: str = _LEAVE_OUT):
        super().__init__(low, math.inf, f"{before}{low} or more{after}", advice)


class MoreThan(Range):
    """More than `low`."""

    def __init__(self, low: float):
        super().__init__(math.nextafter(low, math.inf), math.inf, f"more than {low}", _LEAVE_OUT)


def check(settings: object) -> None:
    """Checks every setting of a dataclass. Raises as `check_arguments`."""
    check_arguments(type(settings), **vars(settings))


def check_arguments(settings: type, **values: Any) -> None:
    """Checks values against what a dataclass of settings says of these names. None stands for a default, and fits.

    Args:
      settings: the dataclass.
      **values: some of its settings, or all.

    Raises:
      TypeError: a value is no number, or a fraction where a whole number belongs.
      UsageError: a value is outside its range, or none of the choices. The message names the option
        of the command line.

    Example:
      >>> from catdog_jax.config import ExtractConfig
      >>> check_arguments(ExtractConfig, batch_size=0)
      Traceback (most recent call last):
      catdog_jax.errors.UsageError: --batch-size: expected 1 or more, found 0. Leave it out for the default.
    """
    hints = get_type_hints(settings, include_extras=True)
    for name, value in ((name, value) for name, value in values.items() if value is not None):
        for bounds, kind in _ranges(hints[name]):
            _check(name, value, bounds, whole=kind is not float)
        _check_choice(name, value, hints[name])


def _ranges(hint: Any) -> Iterator[tuple[Range, Any]]:
    """The ranges of a type, wherever they stand in it, each with the type that it is of."""
    yield from ((bounds, hint.__origin__) for bounds in getattr(hint, "__metadata__", ()) if isinstance(bounds, Range))
    for inner in get_args(hint):
        yield from _ranges(inner)


def _choices(hint: Any) -> Iterator[str]:
    """The texts that a type allows; none where it allows any."""
    for inner in get_args(hint):
        yield from [inner] if get_origin(hint) is Literal else _choices(inner)


def _check(name: str, value: Any, bounds: Range, *, whole: bool) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    kind = Integral if whole else Real
    if not all(isinstance(number, kind) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"{name}: expected a {'whole ' * whole}number, found {value!r}.")
    if not all(bounds.low <= number <= bounds.high for number in numbers):
        raise UsageError(f"{_option(name)}: expected {bounds.expected}, found {value}. {bounds.advice}".rstrip())


def _check_choice(name: str, value: Any, hint: Any) -> None:
    choices = [*_choices(hint)]
    several = isinstance(value, tuple | list)
    chosen = value if several else (value,)
    fits = several == any(get_origin(part) is tuple for part in (hint, *get_args(hint)))
    if choices and not (fits and chosen and all(choice in choices for choice in chosen)):
        known = f"{', '.join(choices[:-1])} or {choices[-1]}"
        found = ", ".join(map(str, chosen)) or "none"
        raise UsageError(f"{_option(name)}: expected {known}, found {found}. Choose from these.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
