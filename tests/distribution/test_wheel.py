"""What is in the wheel and in the sdist, and that the wheel works where there is no repository."""

import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from helpers.documents import ROOT
from helpers.without import catdog
from PIL import Image

from catdog_jax import __version__

MODEL = ROOT / "artifacts" / "default" / "model-int8.onnx"
PACKAGED = "catdog_jax/published/model.onnx"
MAX_BYTES = 20_000_000  # an index takes 100 MB of a file
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_string(archive.read(f"catdog_jax-{__version__}.dist-info/METADATA").decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 20), (90, 60, 50)).save(tmp_path / "photo.png")
    return tmp_path


def tracked(under: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", under], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a checkout by git")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


# What is in it


def test_the_wheel_has_the_package_and_the_model_once(wheel: Path, names: list[str]):
    ours = {name for name in names if ".dist-info/" not in name}
    assert ours >= tracked("catdog_jax") | {PACKAGED, "catdog_jax/py.typed", "catdog_jax/page/web/worker.js"}
    assert [name for name in names if name.endswith(".onnx")] == [PACKAGED]
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(PACKAGED) == MODEL.read_bytes()
        assert archive.read("catdog_jax/page/page.js") == (ROOT / "catdog_jax" / "page" / "page.js").read_bytes()


def test_the_wheel_has_nothing_else_and_is_small(wheel: Path, names: list[str]):
    assert {name.partition("/")[0] for name in names} == {"catdog_jax", f"catdog_jax-{__version__}.dist-info"}
    kinds = {Path(name).suffix for name in names if name.startswith("catdog_jax/")}
    assert kinds == {".py", ".cpp", ".h", ".typed", ".js", ".css", ".html", ".j2", ".onnx"}
    assert not [name for name in names if "__pycache__" in name or "test" in name]
    assert wheel.name == f"catdog_jax-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MAX_BYTES


def test_the_licences_of_code_and_weights_are_in_it(wheel: Path, metadata: Message):
    assert metadata["License-Expression"] == PROJECT["license"] == "Apache-2.0 AND BSD-3-Clause"
    with zipfile.ZipFile(wheel) as archive:
        for name in metadata.get_all("License-File"):
            found = archive.read(f"catdog_jax-{__version__}.dist-info/licenses/{name}")
            assert found == (ROOT / name).read_bytes()
    assert "Copyright (c) Soumith Chintala" in (ROOT / "LICENSE-torchvision").read_text()


def test_the_sdist_has_what_a_wheel_is_built_of(sdist: Path):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    others = {
        "CHANGELOG.md",
        "LICENSE",
        "LICENSE-torchvision",
        "PKG-INFO",
        "README.md",
        "hatch_build.py",
        "pyproject.toml",
    }
    assert names == tracked("catdog_jax") | others | {".gitignore", "artifacts/default/model-int8.onnx"}
    assert sdist.stat().st_size < MAX_BYTES


def test_an_editable_installation_has_no_copy_of_the_model(tmp_path: Path):
    pytest.importorskip("hatchling", reason="the extra `release` is not installed")
    code = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (file,) = tmp_path.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(file).namelist() if "published" in name]


# What it says of itself


def test_the_metadata_is_that_of_the_project(metadata: Message):
    assert (metadata["Name"], metadata["Version"]) == ("catdog-jax", __version__)
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert {*metadata.get_all("Provides-Extra")} == PROJECT["optional-dependencies"].keys()
    base = {one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one}
    assert {one.replace(" ", "") for one in base} == {one.replace(" ", "") for one in PROJECT["dependencies"]}


def test_the_classifiers_are_known_ones_and_name_the_tested_pythons(metadata: Message):
    known = pytest.importorskip("trove_classifiers").classifiers
    found = metadata.get_all("Classifier")
    assert {*found} == {*PROJECT["classifiers"]} <= known
    minimum = int(PROJECT["requires-python"].rpartition(".")[2])
    python = "Programming Language :: Python :: "
    assert {f"{python}3.{minor}" for minor in range(minimum, 14)} <= {*found}
    assert not [one for one in found if one.startswith("License")], "an index refuses them beside an expression"


# Where there is no repository


def test_the_packaged_model_predicts(site: Path, folder: Path):
    done = catdog("predict", "photo.png", "--format", "jsonl", folder=folder, package=site)
    assert (done.returncode, json.loads(done.stdout)["path"]) == (0, "photo.png"), done.stderr
    assert f"No run/model.onnx here: using the published model, {site / PACKAGED}" in done.stderr


def test_a_model_that_is_named_takes_its_place(site: Path, folder: Path):
    shutil.copy(MODEL, folder / "mine.onnx")
    done = catdog("predict", "photo.png", "--model", "mine.onnx", folder=folder, package=site)
    assert (done.returncode, "published" in done.stderr) == (0, False), done.stderr
    done = catdog("predict", "photo.png", "--model", "gone.onnx", folder=folder, package=site)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: gone.onnx: expected an ONNX model of `catdog export`, found no file.")


def test_a_damaged_packaged_model_is_an_error_of_one_line(site: Path, folder: Path):
    copy = folder / "site"
    shutil.copytree(site, copy)
    content = bytearray((copy / PACKAGED).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / PACKAGED).write_bytes(content)
    done = catdog("predict", "photo.png", folder=folder, package=copy)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(
        f"error: {copy / PACKAGED}: expected {len(content):,} bytes with the sha256 of its seal"
    )
    assert done.stderr.endswith("or run: pip install --force-reinstall --no-deps catdog-jax.\n")
