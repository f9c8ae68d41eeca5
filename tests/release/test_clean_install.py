"""The wheel in a fresh environment outside of the repository: everything that README promises of the base installation."""

import json
import signal
import subprocess
import urllib.request

import pytest
from helpers.documents import ROOT
from PIL import Image

from catdog_jax import __version__

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def photo(installed) -> None:
    Image.new("RGB", (300, 200), (150, 110, 70)).save(installed.folder / "photo.jpg")


def packaged(installed) -> str:
    code = "from catdog_jax.runtime import default_model; print(default_model.published())"
    return installed.run("python", "-c", code).stdout.strip()


def test_it_is_the_wheel_that_runs_and_it_needs_no_jax(installed):
    assert installed.run("catdog", "--version").stdout == f"catdog_jax {__version__}\n"
    assert (
        str(installed.bin.parent)
        in installed.run("python", "-c", "import catdog_jax; print(catdog_jax.__file__)").stdout
    )
    listed = {one["name"].lower() for one in json.loads(installed.run("pip", "list", "--format", "json").stdout)}
    assert not listed & {"jax", "flax", "onnx", "scikit-learn", "matplotlib"}
    assert installed.run("pip", "check").stdout == "No broken requirements found.\n"


def test_it_predicts_with_the_packaged_model(installed):
    done = installed.run("catdog", "predict", "photo.jpg", "--format", "jsonl")
    assert json.loads(done.stdout)["class"] in ("cats", "dogs")
    assert f"using the published model, {packaged(installed)}" in done.stderr


def test_it_answers_a_request(installed):
    command = [str(installed.bin / "catdog"), "serve", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=installed.folder, env=installed.environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        body = (installed.folder / "photo.jpg").read_bytes()
        request = urllib.request.Request(f"{line.split()[-1].rstrip('/')}/predict", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            (row,) = json.load(answer)["predictions"]
        assert row["class"] in ("cats", "dogs")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


def test_the_packaged_model_goes_into_a_folder_for_browsers_which_is_verified(installed):
    installed.run("catdog", "export", "--model", "published", "--web", "site", "--triton", "models")
    assert {"index.html", "model.onnx", "ort.wasm"} <= {path.name for path in (installed.folder / "site").iterdir()}
    done = installed.run("catdog", "verify", "site", "models", packaged(installed))
    assert "altered" not in done.stdout


def test_models_are_evaluated_once_scikit_learn_is_there(installed, wheel):
    words = ("evaluate", "--model", "published", "--data", "demo", "--out", "out")
    done = subprocess.run(
        [str(installed.bin / "catdog"), *words],
        cwd=installed.folder,
        env=installed.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("Run: pip install 'catdog-jax[evaluate]'.\n")
    constraints = ROOT / "constraints.txt"
    installed.run("python", "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{wheel}[evaluate]")
    installed.run("catdog", *words)
    (model,) = json.loads((installed.folder / "out" / "models.json").read_text())["models"]
    assert 0 < model["metrics"]["accuracy"]["value"] <= 1
