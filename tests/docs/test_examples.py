"""What the pages show works: shell commands run on drawn photos, Python blocks run as they are, scripts have the options."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import serving
from helpers.documents import PAGES, ROOT, commands, examples

import catdog_jax
from catdog_jax import cli
from catdog_jax.photos.demo import drawing

README, DOCS = ROOT / "README.md", ROOT / "docs"
# In the order in which a reader meets them: later pages use what earlier ones have written.
IN_ORDER = [
    README,
    DOCS / "training.md",
    DOCS / "audit.md",
    DOCS / "predict.md",
    DOCS / "model-file.md",
    DOCS / "serving.md",
]
NOT_RUN = {
    "s3://": "a bucket; tests/files/test_buckets.py has one",
    "tfds:": "a data set that is downloaded; tests/photos/test_tfds.py prepares one",
    "artifacts/features": "tests/test_published.py trains on them",
    "runs/retrained": "the same",
    "runs/clean": "a second whole run; tests/photos/test_exclude_list.py leaves photos out",
    "--watch": "runs until it is stopped; tests/commands/test_predict.py stops it",
    "catdog serve": "runs until it is stopped; below it answers the examples in Python",
    "--web": "fetches a package by npm; tests/deployment/test_browser.py writes the folder",
}
MODEL = ROOT / "artifacts" / "default" / "model-int8.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what the examples name: photos (drawn), some of them alone, and model files."""
    root = tmp_path_factory.mktemp("examples")
    drawing.draw_dataset(root / "photos", counts={"train": 6, "validation": 2, "test": 2})
    (root / "folder").mkdir()
    for name, kind in (("some.jpg", "dog"), ("cat.jpg", "cat"), ("folder/other.jpg", "cat")):
        drawing.draw(kind, np.random.default_rng(11)).save(root / name)
    shutil.make_archive(root / "photos", "zip", root / "photos")
    for name in ("model.onnx", "model-int8.onnx"):
        shutil.copyfile(MODEL, root / name)
    return root


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def run_python(code: str, here: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", sorted({c for page in PAGES for c in commands(page, "catdog")}))
def test_the_command_line_takes_every_command(command):
    words = shlex.split(command)[1:]
    assert cli._parse(words)[0] == words[0]


@pytest.mark.parametrize("command", sorted({c for page in PAGES for c in commands(page, "python")}))
def test_every_script_has_the_options(command):
    _, _, module, *options = shlex.split(command)
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if module.startswith("scripts."):
        source = Path(spec.origin).read_text()
        for option in options:
            if option.startswith("--"):
                assert f"    {option[2:].replace('-', '_')}: " in source, option


@pytest.mark.lenient_types
def test_the_commands_of_the_pages_run(real_weights, here, capsys):
    done = []
    for page in IN_ORDER:
        for command in commands(page, "catdog"):
            if any(reason in command for reason in NOT_RUN):
                continue
            status = cli.main(shlex.split(command)[1:])
            assert status == 0 or (status == 3 and "--strict" in command), (command, capsys.readouterr().err)
            done.append(command)
    assert len(done) > 12
    assert all((here / name).exists() for name in ("runs/mine/model.onnx", "audit/audit.html", "exclude.txt", "models"))
    assert len([*(here / "overlays").iterdir()]) == 1


def test_a_deployment_of_its_own_gives_the_verdict(here):
    (code,) = [e.code for e in examples(DOCS / "model-file.md") if e.language == "python"]
    label, probability, sure = run_python(code, here).split()
    assert (label, sure) == ("dogs", "sure")
    assert 0.5 < float(probability) <= 1


def test_a_server_answers_the_examples_in_python(here):
    pytest.importorskip("uvicorn")
    codes = [e.code for e in examples(DOCS / "serving.md") if e.language == "python"]
    if importlib.util.find_spec("tritonclient") is None:  # tests/serving/test_inference_protocol.py says how to get it
        codes = [code for code in codes if "tritonclient" not in code]
    with serving.started(MODEL) as address:
        place = address.removeprefix("http://")
        by_photo, *by_tensor = [run_python(code.replace("localhost:8000", place), here) for code in codes]
    name, probability = by_photo.split()
    assert name == "dogs"
    assert by_tensor
    for probabilities in by_tensor:
        assert float(probabilities.strip("[]\n").split(",")[1]) == pytest.approx(float(probability), abs=1e-6)


def test_what_the_architecture_page_adds_works(real_weights, here):
    codes = [e.code for e in examples(DOCS / "architecture.md") if e.language == "python"]
    metric, source, check, convolution = [run_python(code, here) for code in codes]
    assert "value=0.666" in metric
    assert "train" in source
    assert "mean grey level" in check
    assert float(convolution) < 1e-3


@pytest.mark.skipif(not hasattr(catdog_jax, "Predictor"), reason="needs the names of the Python API in the package")
@pytest.mark.parametrize("page", [README, DOCS / "python.md"], ids=lambda page: page.name)
def test_the_python_quick_start_runs(page, real_weights, tmp_path, folder):
    """In a process of its own, block by block, where there is nothing but photos and one picture."""
    shutil.copytree(folder / "photos", tmp_path / "photos")
    shutil.copyfile(folder / "cat.jpg", tmp_path / "cat.jpg")
    code = "\n".join(e.code for e in examples(page) if e.language == "python")
    assert run_python(code, tmp_path).strip()
    assert (tmp_path / "run" / "model.onnx").is_file()
