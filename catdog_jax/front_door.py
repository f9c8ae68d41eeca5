"""How the public names of the package behave: their errors are in the words of a Python caller."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from catdog_jax.errors import ArgumentError, CatdogError, UsageError, for_python


def public(thing: Any, names: Mapping[str, str]) -> Any:
    """A function or a class of a room as users get it.

    `names` has the options whose argument is called otherwise, see `errors.for_python`. A
    function keeps its signature and docstring; of a class it is a subclass.
    """
    if not inspect.isclass(thing):
        return _translated(thing, names)
    methods = {
        name: _translated(method, names)
        for name, method in inspect.getmembers(thing, inspect.isfunction)
        if name in ("__init__", "__call__") or not name.startswith("_")
    }
    return type(thing.__name__, (thing,), {"__doc__": thing.__doc__, "__module__": "catdog_jax", **methods})


def _translated(call: Callable[..., Any], names: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def translated(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except CatdogError as error:
            kind = ArgumentError if isinstance(error, UsageError) else type(error)
            raise kind(for_python(str(error), names)) from None

    return translated
