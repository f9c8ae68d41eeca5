"""`catdog predict` as people use it: lists, a pipe, files of results, sorted folders, a folder that is watched."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.models import METADATA, probability_of_dogs, save_grey, tiny_model

from catdog_jax import cli

GREYS = {"dark": 100, "dim": 125, "light": 131, "bright": 160, "middle": 128}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five photos, one that is none, and a model that is unsure below 0.75."""
    monkeypatch.chdir(tmp_path)
    metadata = METADATA | {"decision": json.dumps({"threshold": 0.5, "abstain_below": 0.75})}
    Path("run").mkdir()
    Path("run/model.onnx").write_bytes(tiny_model(metadata=metadata).SerializeToString())
    Path("photos").mkdir()
    for name, grey in GREYS.items():
        save_grey(Path(f"photos/{name}.png"), grey)
    Path("photos/bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no JPEG")
    return tmp_path


def predicted(*words: str, status: int = 1) -> None:
    assert cli.main(["predict", *words]) == status


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_list_gives_a_row_for_each_of_its_lines(here, capsys):
    Path("list.txt").write_text("photos/bright.png\nnowhere.jpg\nhttps://a.org/b.jpg\nphotos\n")
    predicted("photos/dark.png", "--list", "list.txt", "--format", "jsonl", "--quiet")
    told = capsys.readouterr()
    found = rows(told.out)
    assert [row["path"] for row in found[:4]] == [
        "photos/dark.png",
        "photos/bright.png",
        "nowhere.jpg",
        "https://a.org/b.jpg",
    ]
    assert len(found) == 4 + 6
    assert found[2]["error"] == "expected a file, found nothing"
    assert found[3]["error"] == "expected a file, found a URL: nothing is fetched; download it first"
    assert told.err == ""


@pytest.mark.parametrize(("data", "status"), [(None, 0), (b"", 1), (b"no photo", 1)])
def test_a_photo_through_a_pipe(here, capsys, monkeypatch, data, status):
    data = Path("photos/bright.png").read_bytes() if data is None else data
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    predicted("-", "--format", "jsonl", "--sort", "sorted", status=status)
    (row,) = rows(capsys.readouterr().out)
    assert row["path"] == "-"
    if status:
        assert "found an empty file" in row["error"] or "found unknown content" in row["error"]
        assert not Path("sorted").exists()
    else:
        assert (row["class"], row["sorted"]) == ("dogs", str(Path("sorted/dogs/stdin.png")))
        assert Path("sorted/dogs/stdin.png").read_bytes() == data


def test_the_file_of_results_is_whole_or_as_it_was(here, capsys, monkeypatch):
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        if name == "r.parquet":
            pytest.importorskip("pyarrow")
        predicted("photos", "--out", name, "--batch-size", "2")
        told = capsys.readouterr()
        assert told.out == ""
        assert (
            told.err.splitlines()[-1] == f"6 photos on cpu: 1 cats, 1 dogs, 3 unsure, 1 unreadable; results in {name}"
        )
    lines = {row["path"]: row for row in csv.DictReader(io.StringIO(Path("r.csv").read_text()))}
    objects = {row["path"]: row for row in rows(Path("r.jsonl").read_text())}
    from pyarrow import parquet

    table = {row["path"]: row for row in parquet.read_table("r.parquet").to_pylist()}
    assert (
        list(lines)
        == list(objects)
        == list(table)
        == [f"photos/{n}" for n in sorted(p.name for p in Path("photos").iterdir())]
    )
    for path, row in table.items():
        if path.endswith("bad.jpg"):
            assert row["error"] == lines[path]["error"] == objects[path]["error"]
            assert row["class"] is row["sure"] is row["probability"] is None
            continue
        expected = probability_of_dogs(GREYS[Path(path).stem])
        assert (
            row["probability_dogs"] == float(lines[path]["probability_dogs"]) == objects[path]["probabilities"]["dogs"]
        )
        assert row["probability_dogs"] == pytest.approx(expected, rel=1e-5)
        assert (row["class"], row["sure"]) == (objects[path]["class"], objects[path]["sure"])
    before = Path("r.csv").read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("catdog_jax.runtime.arguments._row", interrupted)
    predicted("photos", "--out", "r.csv", status=cli.INTERRUPTED)
    assert Path("r.csv").read_bytes() == before
    assert {path.name for path in here.iterdir()} == {"run", "photos", "r.csv", "r.jsonl", "r.parquet"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that admits any bytes as a name")
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_names_that_are_no_text_are_escaped_in_a_file_too(here, name):
    if name == "r.parquet":
        pytest.importorskip("pyarrow")
    save_grey(Path("two\nlines\udce9.png"), 9)
    predicted("two\nlines\udce9.png", "--out", name, status=0)
    assert b"\\udce9" in Path(name).read_bytes()


def test_parquet_needs_pyarrow(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    predicted("photos", "--out", "r.parquet", status=2)
    assert "--format parquet: expected the package pyarrow, found that it is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_what_a_person_should_look_at_comes_first(here, capsys, form):
    predicted("photos", "--unsure-first", "--format", form, "--batch-size", "2")
    out = capsys.readouterr().out
    places = [out.index(f"photos/{name}") for name in ("bad.jpg", "middle", "dim", "light", "dark", "bright")]
    assert places == sorted(places)


def test_sorted_photos_and_a_second_time(here, capsys):
    Path("photos/more").mkdir()
    save_grey(Path("photos/more/dark.png"), 101)
    before = {path: path.read_bytes() for path in Path("photos").rglob("*.*")}
    for again in (False, True):
        predicted("photos", "--sort", "photos/by class", "--format", "csv")
        told = capsys.readouterr()
        assert "; copies by class in photos/by class" in told.err
        assert ("left out: 6 results of this command" in told.err) == again
        lines = list(csv.DictReader(io.StringIO(told.out)))
        assert {Path(row["path"]).name for row in lines if not row["sorted"]} == {"bad.jpg"}
        found = {path.relative_to("photos/by class").as_posix() for path in Path("photos/by class").rglob("*.*")}
        assert found == {
            *("cats/dark.png", "cats/dark-2.png", "dogs/bright.png"),
            *("unsure/dim.png", "unsure/light.png", "unsure/middle.png"),
        }
        for row in lines:
            if row["sorted"]:
                assert Path(row["sorted"]).read_bytes() == Path(row["path"]).read_bytes()
    assert {path: path.read_bytes() for path in before} == before
    Path("file").touch()
    predicted("photos", "--sort", "file", status=2)
    assert "--sort file: expected a folder, found something else. Name another." in capsys.readouterr().err
    predicted("photos", "--sort", "photos")
    assert "found none (left out: 13 results of this command)" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watched_folder_until_ctrl_c(here, number):
    command = [sys.executable, "-m", "catdog_jax", "predict", "photos", "--watch", "0.1", "--sort", "photos/sorted"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(6)]
        seen = {line.split("  ")[0] for line in first}
        assert seen == {f"photos/{name}.png" for name in GREYS} | {"photos/bad.jpg"}
        data = Path("photos/bright.png").read_bytes()
        half = Path("photos/new.png")
        with open(half, "wb") as file:
            for i in range(0, len(data), len(data) // 6 + 1):
                file.write(data[i : i + len(data) // 6 + 1])
                file.flush()
                time.sleep(0.04)
        line = child.stdout.readline()
        while "damaged" in line:  # a machine so busy that the copy stalled between two looks
            line = child.stdout.readline()
        assert line.startswith("photos/new.png  dogs  0.98")
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert out == ""
    assert err.splitlines()[0].endswith("every 0.1 s; Ctrl-C ends it")
    assert "photos on cpu: 1 cats, 2 dogs, 3 unsure, 1 unreadable; copies by class in photos/sorted" in err
    assert child.returncode == 1
    assert (Path("photos/sorted/dogs/new.png")).read_bytes() == data
