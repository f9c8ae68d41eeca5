"""Lets the package be imported where packages are missing that a measurement does not need, such as tyro.

A stand-in is taken for a package that is not installed alone. It answers what happens while modules
are imported (settings are described to tyro there), and using anything else of it is an error.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

PACKAGES = ("tyro", "safetensors", "fsspec", "jinja2", "markupsafe", "matplotlib", "sklearn", "threadpoolctl")
_DESCRIBES = "tyro"  # its names are called and subscripted while modules are imported, to no effect


class _Name:
    """A name of a package that is not there."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, part: str) -> "_Name":
        if part.startswith("__"):
            raise AttributeError(part)
        return _Name(f"{self._name}.{part}")

    def __call__(self, *_: Any, **__: Any) -> "_Name":
        if self._name.partition(".")[0] != _DESCRIBES:
            raise ModuleNotFoundError(f"{self._name}: not installed on this machine", name=self._name)
        return self

    def __getitem__(self, item: Any) -> Any:
        return item


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Comes last of all finders, so that it is asked for what no other has found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in PACKAGES else None
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        whole = _Name(spec.name)
        module.__getattr__ = lambda part: getattr(whole, part)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def missing() -> list[str]:
    """Those of `PACKAGES` that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def install() -> list[str]:
    """Puts stand-ins for what is missing, whose names it returns."""
    found = missing()
    if found and not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.append(_StandIns())
    return found
