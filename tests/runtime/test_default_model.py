"""Which model is meant where none is named, and what is said of it."""

from pathlib import Path

import pytest

from catdog_jax.errors import CatdogError
from catdog_jax.files import sealed
from catdog_jax.runtime import default_model
from catdog_jax.runtime.default_model import find_model

CONTENT = sealed.seal(b"a model " + sealed.UNSEALED.encode())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the package lies in without its model; another one is the working directory."""
    root, here = tmp_path / "site-packages", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(default_model, "__file__", str(root / "catdog_jax" / "runtime" / "default_model.py"))
    return root


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_runs_model_comes_before_the_packages_and_that_before_the_repositorys(installed: Path, capsys):
    in_repository = put(installed / "artifacts" / "default" / "model-int8.onnx")
    assert find_model(None) == in_repository
    assert "No run/model.onnx here: using the published model, " in capsys.readouterr().err
    packaged = put(installed / "catdog_jax" / "published" / "model.onnx")
    assert find_model(None) == packaged
    assert str(packaged) in capsys.readouterr().err.replace("\n", "")
    own = put(Path("run/model.onnx"), b"not even sealed")
    assert find_model(None) == own
    assert find_model(Path("published")) == packaged
    assert find_model(Path("other.onnx")) == Path("other.onnx")
    assert capsys.readouterr().err == ""


def test_a_file_called_published_is_that_file(installed: Path):
    assert find_model(put(Path("published"))) == Path("published")


def test_a_folder_of_the_same_name_in_the_working_directory_is_not_taken(installed: Path):
    put(Path("artifacts/default/model-int8.onnx"))
    with pytest.raises(CatdogError, match=r"--model: expected run/model.onnx here or the published model at .*, found"):
        find_model(None)


@pytest.mark.parametrize(
    ("place", "again"),
    [
        ("catdog_jax/published/model.onnx", "pip install --force-reinstall --no-deps catdog-jax."),
        ("artifacts/default/model-int8.onnx", "git checkout artifacts/default/model-int8.onnx."),
    ],
)
@pytest.mark.parametrize("content", [CONTENT.replace(b"a", b"A", 1), b"cut off", b""])
def test_a_damaged_published_model_is_an_error_that_says_how_to_get_it_again(installed, place, again, content):
    path = put(installed / place, content)
    with pytest.raises(CatdogError) as caught:
        find_model(None)
    said = str(caught.value)
    assert said.startswith(f"{path}: expected ")
    assert said.endswith(f"It is the published model: name another with --model, or run: {again}")
    assert "\n" not in said


def test_python_callers_get_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import catdog_jax as cd

    monkeypatch.chdir(tmp_path)
    assert cd.Predictor().classes == cd.Predictor("published").classes == ("cats", "dogs")
    monkeypatch.setattr(default_model, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(CatdogError, match=r"path: expected run/model.onnx here or the published model"):
        cd.Predictor()
