"""The client of the exported model, on a tiny model of the same contract whose answers are known in closed form."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.models import METADATA, probability_of_dogs, save_grey, tiny_model
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catdog_jax import cli
from catdog_jax.commands.predict import predict
from catdog_jax.config import PredictConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos.recipe import FIRST
from catdog_jax.runtime.arguments import predictions
from catdog_jax.runtime.decision import UNKNOWN
from catdog_jax.runtime.inputs import find_photos
from catdog_jax.runtime.predictor import Predictor

GREYS = {"dark": 100, "dim": 120, "light": 140, "bright": 160}
BAD = b"\xff\xd8\xff\xe0 this is no JPEG"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos, of which the first two are dark, and among them a damaged one."""
    root = tmp_path / "photos"
    root.mkdir()
    for name, grey in GREYS.items():
        save_grey(root / f"{name}.png", grey)
    (root / "damaged.jpg").write_bytes(BAD)
    return root


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# The model


def test_probabilities_are_the_models_in_any_number_of_batches(model: Path) -> None:
    photos = np.stack([np.full((224, 224, 3), grey, np.uint8) for grey in (90, 127, 128, 131, 170)])
    expected = [[1 - probability_of_dogs(grey), probability_of_dogs(grey)] for grey in (90, 127, 128, 131, 170)]
    for batch_size in (1, 2, 5, 16):
        predictor = Predictor(model, batch_size=batch_size)
        found = predictor.probabilities(photos)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        for none in (predictor.probabilities(photos[:0]), predictor.explain(photos[:0])[0]):
            assert (none.shape, none.dtype) == ((0, 2), np.float32)
        assert predictor.explain(photos[:0])[1] is None  # this model has no heat map


def test_classes_and_metadata_come_from_the_file(tmp_path: Path) -> None:
    metadata = METADATA | {"classes": '["chat", "chien"]', "licences": "free"}
    (tmp_path / "m.onnx").write_bytes(tiny_model(metadata=metadata).SerializeToString())
    predictor = Predictor(tmp_path / "m.onnx")
    assert predictor.classes == ("chat", "chien")
    assert predictor.metadata == metadata


@pytest.mark.parametrize(
    "photos",
    [np.zeros((2, 224, 224, 3), np.float32), np.zeros((224, 224, 3), np.uint8), np.zeros((1, 3, 224, 224), np.uint8)],
)
def test_other_arrays_than_photos_are_refused(model: Path, photos: np.ndarray) -> None:
    expected = f"expected uint8 [N, 224, 224, 3], found {photos.dtype} {list(photos.shape)}"
    with pytest.raises(CatdogError, match=re.escape(expected)):
        Predictor(model).probabilities(photos)


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_model(scale=float("nan")).SerializeToString())
    with pytest.raises(CatdogError, match=r"m\.onnx: expected finite probabilities, found NaN"):
        Predictor(tmp_path / "m.onnx").probabilities(np.zeros((1, 224, 224, 3), np.uint8))


def test_a_missing_model_is_an_error_that_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"none\.onnx: expected an ONNX model .* found no file\. .*`catdog export`"):
        Predictor(tmp_path / "none.onnx")
    with pytest.raises(CatdogError, match=r"expected an ONNX model .* found Is a directory"):
        Predictor(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>" * 99, BAD, tiny_model().SerializeToString()[:200]])
def test_a_file_that_is_not_onnx_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(
        CatdogError, match=r"m\.onnx: expected an ONNX model of `catdog export`, found what .* cannot load"
    ) as caught:
        Predictor(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


CONTRACTS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "input name": (
        lambda: tiny_model(name="input"),
        "found the input input tensor(uint8) [N, 224, 224, 3] instead of image",
    ),
    "input type": (
        lambda: tiny_model(kind=TensorProto.FLOAT),
        "found the input image tensor(float) [N, 224, 224, 3] instead",
    ),
    "input size": (
        lambda: tiny_model(shape=("N", 299, 299, 3)),
        "found the input image tensor(uint8) [N, 299, 299, 3] instead",
    ),
    "fixed batch": (
        lambda: tiny_model(shape=(1, 224, 224, 3)),
        "found the input image tensor(uint8) [1, 224, 224, 3] instead",
    ),
    "output": (lambda: tiny_model(output="p"), "found the output p tensor(float) [N, 2] instead of probability"),
    "no metadata": (lambda: tiny_model(metadata={}), "found no 'classes' in its metadata"),
    "no recipe": (lambda: tiny_model(metadata={"classes": '["a", "b"]'}), "found no 'recipe' in its metadata"),
    "no JSON": (lambda: tiny_model(metadata=METADATA | {"classes": "a, b"}), "found 'a, b' as 'classes'"),
    "one class": (
        lambda: tiny_model(metadata=METADATA | {"classes": '["a"]'}),
        "found ['a'] instead of the names of two",
    ),
    "no text": (lambda: tiny_model(metadata=METADATA | {"classes": '["a", "\\udc81"]'}), "instead of the names of two"),
    "two lines": (lambda: tiny_model(metadata=METADATA | {"classes": '["a", "b\\nc"]'}), "instead of the names of two"),
    "same class": (
        lambda: tiny_model(metadata=METADATA | {"classes": '["a", "a"]'}),
        "found ['a', 'a'] instead of the names",
    ),
    "a level that is none": (
        lambda: tiny_model(metadata=METADATA | {"decision": '{"threshold": 0.5, "abstain_below": NaN}'}),
        "metadata: decision: abstain_below: expected a number from 0 to 1, found NaN. Run `catdog export` again",
    ),
    "a newer recipe": (
        lambda: tiny_model(metadata=METADATA | {"recipe": json.dumps(FIRST.to_json() | {"version": 99})}),
        "m.onnx: metadata: recipe: version: expected 1 or 2, found 99. Upgrade: pip install -U catdog-jax.",
    ),
    "another recipe": (
        lambda: tiny_model(metadata=METADATA | {"recipe": json.dumps(FIRST.to_json() | {"filter": "box"})}),
        "m.onnx: metadata: recipe: filter: expected 'bicubic', found 'box'. Extract and train again.",
    ),
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_onnx_of_another_contract_is_an_error_that_says_what_differs(tmp_path: Path, case: str) -> None:
    make, expected = CONTRACTS[case]
    (tmp_path / "m.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(CatdogError, match=re.escape(expected)) as caught:
        Predictor(tmp_path / "m.onnx")
    assert str(tmp_path / "m.onnx") in str(caught.value)


def test_external_data_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = tiny_model()
    scale = next(tensor for tensor in made.graph.initializer if tensor.name == "scale")
    (tmp_path / "scale.bin").write_bytes(scale.raw_data)
    onnx.external_data_helper.set_external_data(scale, location="scale.bin", offset=0, length=4)
    scale.ClearField("raw_data")
    scale.data_location = TensorProto.EXTERNAL
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    onnx.load(tmp_path / "m.onnx")  # whoever follows the reference finds the data
    with pytest.raises(
        CatdogError, match=r"tensor scale: expected its data in the file itself, found them elsewhere \(scale\.bin\)"
    ):
        Predictor(tmp_path / "m.onnx")


# The photos


def test_folders_are_searched_recursively_and_named_files_are_tried_whatever_their_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b/two.PNG", "b/c/three.webp", "one.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "notes.txt"
    found = [path.relative_to(tmp_path).as_posix() for path in find_photos([odd, tmp_path])]
    assert found == ["notes.txt", "b/c/three.webp", "b/two.PNG", "one.jpg"]
    assert capsys.readouterr().err == "left out: 1 .txt, 1 hidden\n"


def test_no_photos_at_all_are_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatdogError, match=r"empty: expected photos \(\.jpg.*\), found none"):
        predict(PredictConfig((tmp_path / "empty",), model=model))
    (tmp_path / "empty" / "1.jxl").write_bytes(b"\xff\x0a\xfa\x7f")
    with pytest.raises(CatdogError, match=r"found none \(left out: 1 \.jxl; 1 of them look like pictures"):
        predict(PredictConfig((tmp_path / "empty",), model=model))
    with pytest.raises(UsageError, match="paths: expected photos or folders, found none"):
        predict(PredictConfig((), model=model))


@pytest.mark.parametrize(("field", "value"), [("batch_size", 0), ("threads", -1)])
def test_settings_out_of_range_are_usage_errors(model: Path, folder: Path, field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')}: expected 1 or more, found {value}"):
        predict(PredictConfig((folder,), model=model, **{field: value}))


def test_photos_stream_in_order_and_few_are_decoded_ahead(model: Path, tmp_path: Path) -> None:
    greys = [int(grey) for grey in np.random.default_rng(0).integers(95, 165, 40)]
    paths = [save_grey(tmp_path / f"{i}.png", grey) for i, grey in enumerate(greys)]
    taken = 0

    def counted() -> Iterator[Path]:
        nonlocal taken
        for path in paths:
            taken += 1
            yield path

    batches = predictions(Predictor(model, batch_size=4), counted(), batch_size=4)
    rows = next(batches)
    assert len(rows) == 4
    assert taken <= 12
    rows += [row for batch in batches for row in batch]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    expected = [probability_of_dogs(grey) for grey in greys]
    np.testing.assert_allclose([row["probabilities"]["dogs"] for row in rows], expected, rtol=1e-4)


# The output


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_json_lines_list_good_and_bad_photos_in_order(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], batch_size: int
) -> None:
    paths = (folder / "dark.png", folder / "damaged.jpg", folder / "missing.jpg", folder / "bright.png")
    assert predict(PredictConfig(paths, model=model, format="jsonl", batch_size=batch_size)) == 1
    out, err = capsys.readouterr()
    dark, damaged, missing, bright = json_lines(out)
    assert list(dark) == ["path", "class", "probability", "probabilities", "sure", "why"]
    assert (dark["path"], dark["class"], bright["class"]) == (str(paths[0]), "cats", "dogs")
    assert dark["probability"] == dark["probabilities"]["cats"] == pytest.approx(1 - probability_of_dogs(100), rel=1e-5)
    assert bright["probability"] == bright["probabilities"]["dogs"] == pytest.approx(probability_of_dogs(160), rel=1e-5)
    assert damaged == {"path": str(paths[1]), "error": damaged["error"]}
    assert damaged["error"].startswith(("damaged or truncated", "expected JPEG"))
    assert missing == {"path": str(paths[2]), "error": "expected a file, found nothing"}
    assert err.strip() == f"4 photos on cpu: 1 cats, 1 dogs, 2 unreadable. {UNKNOWN}"


def test_the_status_is_0_where_every_photo_could_be_read(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "damaged.jpg").unlink()
    assert predict(PredictConfig((folder,), model=model, format="jsonl")) == 0
    out, err = capsys.readouterr()
    assert [row["class"] for row in json_lines(out)] == ["dogs", "cats", "cats", "dogs"]
    assert err.strip() == f"4 photos on cpu: 2 cats, 2 dogs, 0 unreadable. {UNKNOWN}"


def test_a_photo_at_the_threshold_is_of_the_second_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_model(scale=float("inf")).SerializeToString())
    photo = save_grey(tmp_path / "grey.png", 50)
    assert predict(PredictConfig((photo,), model=tmp_path / "m.onnx", format="jsonl")) == 0
    assert json_lines(capsys.readouterr().out)[0]["class"] == "dogs"


def test_csv_has_a_row_for_every_photo(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(PredictConfig((folder,), model=model, format="csv", batch_size=2)) == 1
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert header == ["path", "class", "probability", "probability_cats", "probability_dogs", "error", "sure", "why"]
    assert [Path(row[0]).name for row in rows] == ["bright.png", "damaged.jpg", "dark.png", "dim.png", "light.png"]
    assert [row[1] for row in rows] == ["dogs", "", "cats", "cats", "dogs"]
    for row in rows:
        if row[1]:
            grey = GREYS[Path(row[0]).stem]
            assert float(row[4]) == pytest.approx(probability_of_dogs(grey), rel=1e-5)
            assert float(row[2]) == max(float(row[3]), float(row[4]))
            assert row[5:] == ["", "", UNKNOWN]
        else:
            assert row[2:5] == ["", "", ""]
            assert row[5] != ""
            assert row[6:] == ["", ""]


def test_an_unsure_verdict_is_one_in_every_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    settings = {"threshold": 0.5, "abstain_below": 0.9}
    model = tmp_path / "m.onnx"
    model.write_bytes(tiny_model(metadata=METADATA | {"decision": json.dumps(settings)}).SerializeToString())
    why = {
        "dim": "Rather cats. Below 90.0 % this model does not decide.",
        "light": "Rather dogs. Below 90.0 % this model does not decide.",
    }
    said = {}
    for form in ("jsonl", "csv", "table"):
        assert predict(PredictConfig((folder,), model=model, format=form)) == 1
        said[form], err = capsys.readouterr()
        assert err.splitlines()[-1] == "5 photos on cpu: 1 cats, 1 dogs, 2 unsure, 1 unreadable"
    rows = {
        Path(row["path"]).stem: (row["class"], row["sure"], row["why"])
        for row in json_lines(said["jsonl"])
        if "error" not in row
    }
    assert rows == {
        "dark": ("cats", True, ""),
        "dim": ("cats", False, why["dim"]),
        "light": ("dogs", False, why["light"]),
        "bright": ("dogs", True, ""),
    }
    lines = {Path(row[0]).stem: row for row in csv.reader(io.StringIO(said["csv"], newline=""))}
    assert [lines[name][6:] for name in ("dark", "dim", "damaged")] == [["true", ""], ["false", why["dim"]], ["", ""]]
    shown = [re.split(r"\s*│\s*", line) for line in said["table"].splitlines() if "│" in line]
    assert [Path(cells[1]).stem + ": " + cells[2] for cells in shown if "damaged" not in cells[1]] == [
        *("bright: dogs", "dark: cats", "dim: unsure, rather cats", "light: unsure, rather dogs"),
    ]


def test_csv_survives_hostile_names(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "@sum.png", "two\nlines\r.png", 'comma, "quote".png', "café.png"]
    for name in names:
        save_grey(Path(name), 100)
    assert predict(PredictConfig(tuple(map(Path, names)), model=model, format="csv")) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))[1:]
    assert [row[0] for row in rows] == ["./=1+1.png", "./@sum.png", *names[2:]]
    assert all(Path(row[0]).is_file() for row in rows)


def test_the_table_shows_names_as_they_are_and_failures_in_red(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    names = ["[bold]x[/bold].png", "[/red].png", "two\nlines.png", "bell\x1b]0;title\x07.png"]
    for name in [name for name in names if "/" not in name]:
        save_grey(Path(name), 100)
    Path("[bad].jpg").write_bytes(BAD)
    assert predict(PredictConfig((*map(Path, names), Path("[bad].jpg")), model=model)) == 1
    lines = capsys.readouterr().out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert not any("\x1b" in line or "\x07" in line for line in plain)
    assert any(
        "two\\nlines.png" in line and "cats" in line and f"{1 - probability_of_dogs(100):.4f}" in line for line in plain
    )
    assert any("bell\\x1b]0;title\\x07.png" in line for line in plain)
    assert any("[/red].png" in line and "found nothing" in line for line in plain)
    assert any("[bold]x[/bold].png" in line for line in plain)
    red = [line for line, text in zip(lines, plain, strict=True) if "[bad].jpg" in text]
    assert red
    assert all("\x1b[31m" in line for line in red)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that admits any bytes as a name")
@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_stdout_cannot_encode_do_not_crash(model: Path, tmp_path: Path, form: str, encoding: str) -> None:
    path = Path(os.fsdecode(b"caf\xe9-\xe7\x8c\xab.png"))  # Latin-1, then UTF-8
    save_grey(tmp_path / path, 100)
    done = run_python(predict_code(path, model, form), tmp_path, PYTHONIOENCODING=f"{encoding}:strict")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "caf\\udce9-" in text
    if form == "jsonl":
        assert json.loads(text)["path"] == str(path)


# A process of its own


def predict_code(path: Path, model: Path, form: str, times: int = 1) -> str:
    # Because a command line may not be able to carry the names
    path_text, model_text = ascii(str(path)), ascii(str(model))
    return (
        "import sys\n"
        "from catdog_jax import cli\n"
        f"arguments = ['predict', '--model', {model_text}, '--format', {form!r}, '--batch-size', '2']\n"
        f"status = cli.main([*arguments, *[{path_text}] * {times}])\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'onnx', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )


def run_python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=child_environment(**environment), capture_output=True
    )


def child_environment(**environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}


def test_predict_imports_neither_jax_nor_anything_of_training(model: Path, folder: Path) -> None:
    done = run_python(predict_code(folder / "dark.png", model, "table"), folder)
    assert done.returncode == 0, done.stderr
    assert b"dark.png" in done.stdout


def test_a_reader_that_goes_away_ends_the_work_quietly(model: Path, folder: Path) -> None:
    command = [sys.executable, "-c", predict_code(folder / "dark.png", model, "jsonl", times=2000)]
    with subprocess.Popen(
        command, cwd=folder, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline())["class"] == "cats"
        child.stdout.close()
        errors = child.stderr.read()
    assert child.returncode == cli.BROKEN_PIPE
    assert errors == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error_of_one_line(model: Path, folder: Path) -> None:
    code = predict_code(folder / "dark.png", model, "csv")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=child_environment(), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard output: cannot be written: No space left on device. Free space")


def test_heat_maps_are_written_beside_the_verdicts(folder, tmp_path, capsys):
    model = tiny_model()
    cells = numpy_helper.from_array(np.tile(np.linspace(-40, 40, 7, dtype=np.float32), (1, 7, 1)), "cells")
    model.graph.initializer.append(cells)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 1]), "each"))
    model.graph.node.append(helper.make_node("Reshape", ["quotient", "each"], ["sign"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "none"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.append(helper.make_node("Greater", ["sign", "none"], ["above"]))
    model.graph.node.append(helper.make_node("Cast", ["above"], ["share"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Sub", ["share", "half"], ["signed"]))
    model.graph.node.append(helper.make_node("Mul", ["signed", "cells"], ["heatmap"]))
    model.graph.output.append(helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["N", 7, 7]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    out = tmp_path / "heat"
    assert (
        predict(PredictConfig((folder,), model=tmp_path / "model.onnx", format="jsonl", batch_size=2, heatmap=out)) == 1
    )
    printed = capsys.readouterr()
    assert f"unreadable; heat maps in {out}" in printed.err
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row.get("heatmap") for row in rows if "error" not in row] == [
        str(out / f"{Path(row['path']).stem}.png") for row in rows if "error" not in row
    ]
    for name in GREYS:  # whatever the verdict, the evidence for it lies on the right
        with Image.open(out / f"{name}.png") as overlay:
            pixels = np.asarray(overlay, int)
        assert pixels[:, -1, 0].mean() > pixels[:, 0, 0].mean() + 20


def test_heat_maps_of_a_model_that_gives_none(model, folder, tmp_path):
    with pytest.raises(UsageError, match="--heatmap: expected a model with the output 'heatmap', found none"):
        predict(PredictConfig((folder,), model=model, heatmap=tmp_path / "heat"))
