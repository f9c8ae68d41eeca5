"""What `make release` has built in dist/, and an environment outside of the repository in which it is installed.

The tests here are marked `long`: they take packages from the index, and `make release` alone runs
them. None is skipped for want of an index, npm or a tag, since what was not checked is not
released.
"""

import os
import subprocess
import venv
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.documents import ROOT

from catdog_jax import __version__


class Installed(NamedTuple):
    """A fresh environment with the wheel, and an empty folder to work in."""

    bin: Path
    folder: Path

    def environment(self) -> dict[str, str]:
        """That of a user: neither this repository's modules nor its cache."""
        kept = {name: os.environ[name] for name in os.environ if not name.startswith(("PYTHON", "CATDOG", "JAX"))}
        return kept | {"COLUMNS": "500", "CATDOG_CACHE": str(self.folder / "cache")}

    def run(self, program: str, *words: object) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, which must succeed."""
        done = subprocess.run(
            [str(self.bin / program), *map(str, words)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel of this version in dist/."""
    path = ROOT / "dist" / f"catdog_jax-{__version__}-py3-none-any.whl"
    assert path.is_file(), f"{path}: expected the wheel of this version, found no file. Run `make wheel`."
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel with [serve] and the tested versions of what it needs, in a fresh environment."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv", with_pip=True)
    found = Installed(root / "venv" / "bin", root / "work")
    found.folder.mkdir()
    constraints = ROOT / "constraints.txt"
    found.run("python", "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{wheel}[serve]")
    return found
