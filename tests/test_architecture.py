"""The house: imports between rooms go one way, some rooms never import JAX, and every room says what is in it."""

import ast
import importlib
import os
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import catdog_jax

PACKAGE = Path(catdog_jax.__file__).parent
# Each row imports only from rows above it; those in one row do not know each other.
ROWS = (
    ("errors", "console", "front_door", "ranges"),
    ("files",),
    ("config", "jax_environment"),
    ("photos", "backbone", "reporting"),
    ("features", "runtime"),
    ("heads", "serving"),
    ("evaluation", "auditing", "deployment"),
    ("stored_files", "numerics", "settings_file"),
    ("doctor",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
# jax_environment looks at the settings' number of cores; console prints errors; each is a line
# between two of one row.
WITHIN_A_ROW = {("console", "errors"), ("front_door", "errors"), ("ranges", "errors"), ("jax_environment", "config")}
WITHOUT_JAX = ("files", "photos", "reporting", "runtime", "serving")
JAX = {"jax", "jaxlib", "flax", "optax"}


@cache
def modules() -> dict[str, Path]:
    """Every module's dotted name below the package -> its file. A room's own name stands for its __init__."""
    paths = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*.py")}
    named = {
        ".".join(relative.with_suffix("").parts).removesuffix(".__init__"): path for relative, path in paths.items()
    }
    return {name: path for name, path in named.items() if name != "__init__"}


@cache
def imported(module: str) -> frozenset[str]:
    """What a module imports anywhere in its text, functions too: our modules by their dotted names, others by their first."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "catdog_jax":
            below = str(node.module).partition(".")[2]
            names = {f"{below}.{alias.name}".strip(".") for alias in node.names}
            found |= {name if name in modules() else below for name in names} - {""}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return frozenset(found)


def room(module: str) -> str:
    return module.partition(".")[0]


@cache
def brings(module: str) -> frozenset[str]:
    """All that importing a module brings, itself and what the rooms' __init__ import included."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        found |= waiting
        ours = {name for name in waiting if name in modules()}
        parents = {name.rpartition(".")[0] for name in ours if "." in name}
        waiting = {name for here in ours for name in imported(here)} | parents
        waiting -= found
    return frozenset(found)


def test_every_module_has_its_row():
    assert {room(name) for name in modules()} == {name for row in ROWS for name in row}


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way(module):
    level = {name: number for number, row in enumerate(ROWS) for name in row}
    here = room(module)
    others = {room(name) for name in imported(module) if name in modules()} - {here}
    against = {name for name in others if level[name] >= level[here] and (here, name) not in WITHIN_A_ROW}
    assert not against


def test_no_import_goes_in_a_circle():
    order = TopologicalSorter({name: imported(name) & modules().keys() for name in modules()})
    assert len(tuple(order.static_order())) == len(modules())  # a circle raises CycleError


@pytest.mark.parametrize("module", [name for name in sorted(modules()) if room(name) in WITHOUT_JAX])
def test_some_rooms_never_import_jax(module):
    assert not brings(module) & JAX


@pytest.mark.parametrize("module", [name for name in sorted(modules()) if imported(name) & JAX])
def test_whatever_uses_jax_has_kept_its_sums_right(module):
    """It calls `keep_sums_right`, or brings a module that does when it is imported."""
    assert any("keep_sums_right()" in modules()[name].read_text() for name in brings(module) & modules().keys())


@pytest.mark.parametrize("name", sorted({room(name) for name in modules() if "." in name}))
def test_every_room_says_what_is_in_it(name):
    said = ast.get_docstring(ast.parse(modules()[name].read_text())) or ""
    assert 3 <= len(said.splitlines()) <= 30
    inside = {other.split(".")[1] for other in modules() if other.startswith(f"{name}.")}
    assert not {other for other in inside if other not in said}


def test_importing_the_package_starts_no_backend():
    """Every module is imported, in a process of its own, and JAX still has not looked for a device."""
    code = "".join(f"import catdog_jax.{name}\n" for name in sorted(modules()) if name != "__main__")
    code += "from jax._src import xla_bridge\nprint(xla_bridge.backends_are_initialized())"
    assert python(code) == "False\n"


def test_the_package_itself_brings_nothing_heavy():
    heavy = JAX | {"numpy", "onnxruntime", "PIL", "rich", "sklearn"}
    assert python(f"import sys, catdog_jax; print(sorted({heavy} & sys.modules.keys()))") == "[]\n"


def test_every_module_is_imported_by_its_own_name():
    for name in modules():
        if name != "__main__":
            assert importlib.import_module(f"catdog_jax.{name}").__name__ == f"catdog_jax.{name}"


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
