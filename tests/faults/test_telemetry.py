"""Nothing that we start talks to anybody: no file of ONNX Runtime's telemetry appears in an empty home, and no socket opens."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.models import tiny_model
from helpers.serving import ask, photo, started

import catdog_jax
from catdog_jax.photos.demo import drawing

VARIABLE = "ORT_DISABLE_TELEMETRY"
REPOSITORY = Path(__file__).parents[2]
CATDOG = [sys.executable, "-m", "catdog_jax"]
# -D: the command itself is our child, so that it can be told to stop.
STRACE = ["strace", "-D", "--seccomp-bpf", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-e", "signal=none", "-o"]


def works(*command: str) -> bool:
    """Whether the system has a program and lets us use it."""
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def strace(tmp_path: Path) -> list[str]:
    """A prefix that lets `trace` be read."""
    if not works(*STRACE, os.devnull, "true"):
        pytest.skip("needs strace, and to be allowed to trace a process")
    return [*STRACE, str(tmp_path / "trace")]


@pytest.fixture
def offline() -> list[str]:
    """A prefix for a process without a network."""
    prefix = next((p for p in (["unshare", "-n"], ["unshare", "-rn"]) if works(*p, "true")), None)
    if prefix is None:
        pytest.skip("needs unshare, and to be allowed a network of its own")
    return prefix


def home(folder: Path, said: str | None = None) -> dict[str, str]:
    """The environment of a user who has nothing yet, and who sets the variable to `said`."""
    (folder / "home").mkdir()
    others = (VARIABLE, "CI")  # ONNX Runtime is silent by itself where CI is set
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "CATDOG_")) and key not in others
    }
    return kept | {"HOME": str(folder / "home")} | ({VARIABLE: said} if said is not None else {})


def left(folder: Path) -> list[str]:
    """The files in that home that are not our own cache's."""
    files = (path.relative_to(folder / "home").as_posix() for path in (folder / "home").rglob("*") if path.is_file())
    return [
        name
        for name in files
        if not name.startswith((".cache/catdog_jax/", ".cache/matplotlib/", ".config/matplotlib/"))
    ]


def internet(folder: Path) -> list[str]:
    """The calls of `trace` that could reach another machine."""
    return re.findall(r"^.*AF_INET.*$", (folder / "trace").read_text(), re.MULTILINE)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(tiny_model().SerializeToString())
    return tmp_path / "model.onnx"


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    drawing.draw_dataset(tmp_path / "photos", counts={"train": 4, "validation": 2, "test": 2})
    return tmp_path / "photos"


@pytest.mark.parametrize("stage", ["predict", "evaluate"])
def test_a_model_file_is_used_in_silence(tmp_path, strace, model, drawings, stage):
    options = {
        "predict": ["--model", str(model), str(drawings)],
        "evaluate": [
            "--model",
            str(model),
            "--data",
            str(drawings),
            "--out",
            str(tmp_path / "out"),
            "--bootstrap",
            "10",
        ],
    }
    subprocess.run([*strace, *CATDOG, stage, *options[stage]], check=True, capture_output=True, env=home(tmp_path))
    assert left(tmp_path) == []
    assert internet(tmp_path) == []


def test_the_whole_way_is_gone_in_silence(tmp_path, strace, drawings, real_weights):
    """Extraction, training, evaluation, export and prediction, with the weights of the installed package."""
    command = [*CATDOG, "run", "--data", str(drawings), "--out", str(tmp_path / "run")]
    subprocess.run([*strace, *command], check=True, capture_output=True, env=home(tmp_path))
    assert (tmp_path / "run" / "model.onnx").exists()
    assert left(tmp_path) == []
    assert internet(tmp_path) == []


@pytest.mark.parametrize("seconds", [0, pytest.param(75, marks=pytest.mark.long)])
def test_a_server_opens_its_own_socket_alone(tmp_path, strace, model, monkeypatch, seconds):
    """The telemetry looks for its collector after some ten seconds, and again for a minute."""
    for key in os.environ.keys() - home(tmp_path).keys():
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with started(model, prefix=strace) as address:
        assert ask(f"{address}/predict", photo(200))[0] == 200
        time.sleep(seconds)
    assert left(tmp_path) == []
    (only,) = internet(tmp_path)
    assert "socket(AF_INET, SOCK_STREAM" in only


@pytest.mark.parametrize(("said", "files"), [(None, 0), ("1", 0), ("0", 2)])
def test_who_sets_the_variable_is_obeyed(tmp_path, offline, said, files):
    """The control of this file's tests, too: where it is on, it shows."""
    code = "import catdog_jax, onnxruntime"
    subprocess.run([*offline, sys.executable, "-c", code], check=True, env=home(tmp_path, said))
    assert len(left(tmp_path)) == files, "ONNX Runtime's telemetry works otherwise in this version: look at it again"


def first_import(path: Path, *packages: str) -> float:
    """The line at which a file, as it is imported, first imports one of some packages; infinity where it never does."""
    names = {
        node.lineno: node.module or "" for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
    }
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names[node.lineno] = node.names[0].name
    return min((line for line, name in names.items() if name.split(".")[0] in packages), default=float("inf"))


def test_the_variable_is_set_before_any_import_of_onnx_runtime():
    """Every module of the package comes after the package's own lines; a script must not be faster than those."""
    conftest = REPOSITORY / "tests" / "conftest.py"
    line = next(i for i, text in enumerate(conftest.read_text().splitlines(), 1) if VARIABLE in text)
    assert line < first_import(conftest, "catdog_jax", "hypothesis", "jax", "onnxruntime")
    assert first_import(Path(catdog_jax.__file__), "onnxruntime") == float("inf")
    programs = (REPOSITORY / "tests" / "helpers" / f"{name}.py" for name in ("injector", "measured", "planted_faults"))
    for script in [*REPOSITORY.glob("scripts/**/*.py"), *programs]:
        assert first_import(script, "onnxruntime") == float("inf"), f"{script}: imports ONNX Runtime before catdog_jax"
