"""What takes model files works in the base installation, in which there is no JAX; what does not says what to install."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.without import EXTRAS, catdog
from PIL import Image

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
SCIKIT_LEARN = ("sklearn", "scipy", "threadpoolctl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cats", "dogs")):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("RGB", (30, 20), (90 * seed, 60 * shade, 50)).save(
                tmp_path / "photos" / "test" / name / f"{shade}.png"
            )
    return tmp_path


def test_a_model_goes_into_folders(folder: Path):
    done = catdog("export", "--model", "published", "--triton", "models", folder=folder)
    assert done.returncode == 0, done.stderr
    packed = (folder / "models" / "catdog" / "1" / "model.onnx").read_bytes()
    assert packed == (ARTIFACTS / "default" / "model-int8.onnx").read_bytes()
    assert 'name: "heatmap"' in (folder / "models" / "catdog" / "config.pbtxt").read_text()


def test_models_features_and_folders_are_verified(folder: Path):
    shutil.copytree(ARTIFACTS / "features", folder / "features")
    done = catdog("verify", ARTIFACTS / "default" / "model-int8.onnx", "features", folder=folder)
    assert (done.returncode, "1 │ file" in done.stdout, "3 │ shards" in done.stdout) == (0, True, True), done.stderr
    (folder / "features" / "test-00000-of-00001.labels.npy").write_bytes(b"other")
    assert catdog("verify", "features", folder=folder).returncode == 1


def test_a_head_is_verified_by_its_seal_and_what_was_not_compared_is_said(folder: Path):
    run = folder / "run"
    run.mkdir()
    shutil.copy(ARTIFACTS / "default" / "head.safetensors", run)
    done = catdog("verify", "run", folder=folder)
    assert done.returncode == 0
    assert "whole, but not compared with the files beside it, which takes catdog-jax[cpu]: run: head" in done.stdout
    (run / "head.safetensors").write_bytes((run / "head.safetensors").read_bytes().replace(b"cats", b"cows"))
    done = catdog("verify", "run", folder=folder)
    assert (done.returncode, "it is altered" in done.stdout) == (1, True)


def test_models_are_evaluated_with_scikit_learn(folder: Path):
    hidden = [name for name in EXTRAS if name not in SCIKIT_LEARN]
    words = ("evaluate", "--model", "published", "--data", "photos", "--out", "out")
    done = catdog(*words, folder=folder, hidden=hidden)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads((folder / "out" / "models.json").read_text())["models"]
    assert (model["precision"], model["metrics"].keys() >= {"accuracy", "roc_auc"}) == ("int8", True)


def test_photos_are_looked_up_in_a_feature_cache(folder: Path):
    done = catdog("similar", "photos/test/cats/0.png", "--in", ARTIFACTS / "features", "--top", 1, folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        ("evaluate --model published --data photos", "sklearn", "[evaluate]'."),
        ("evaluate", "jax", "[cpu,weights]' (or cuda13, or tpu, in place of cpu)."),
        ("export", r"\w+", "[cpu,weights]' (or cuda13, or tpu, in place of cpu)."),
        ("train", r"\w+", "[cpu,weights]' (or cuda13, or tpu, in place of cpu)."),
    ],
)
def test_what_is_missing_is_said_in_one_line(folder: Path, words: str, package: str, extra: str):
    done = catdog(*words.split(), folder=folder)
    assert done.returncode == 2
    pattern = (
        rf"error: catdog {words.split()[0]}: expected the package {package}, found that it is not installed. "
        rf"Run: pip install 'catdog-jax{re.escape(extra)}\n"
    )
    assert re.fullmatch(pattern, done.stderr), done.stderr


def test_the_servers_packages_are_named(folder: Path):
    done = catdog("serve", folder=folder, hidden=[*EXTRAS, "uvicorn", "starlette"])
    assert (done.returncode, done.stderr.endswith("Run: pip install 'catdog-jax[serve]'.\n")) == (2, True)
