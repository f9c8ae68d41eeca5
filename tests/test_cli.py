"""The command line as its users meet it: help, exit statuses, messages without tracebacks, nothing imported in vain."""

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import catdog_jax
from catdog_jax import cli
from catdog_jax.errors import CatdogError, UsageError

REPOSITORY = Path(__file__).parents[1]


def run(arguments: list[str]) -> int:
    """The exit status, whether it is returned or, for help and wrong usage, raised."""
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"catdog_jax {catdog_jax.__version__}\n"


def test_without_arguments_the_stages_are_listed(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in cli.STAGES)


@pytest.mark.parametrize("stage", cli.STAGES)
def test_every_option_of_every_stage_is_explained(stage, capsys):
    assert run([stage, "--help"]) == 0
    shown = capsys.readouterr().out
    entries = re.split(r"^[│ ] (?=[-\[])", shown, flags=re.MULTILINE)
    for field in dataclasses.fields(cli.STAGES[stage]):
        name = "[[PATH" if field.name == "paths" else f"--{field.name.replace('_', '-')} "
        entry = next(entry for entry in entries if entry.startswith(name) or f", {name}" in entry)  # the longer name
        words = re.findall(r" [A-Za-z][a-z']+(?=[ .,;:])", entry.partition("(default:")[0])
        assert len(words) >= 2, f"{stage} {name} has no help text"


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["train", "--epochs", "many"], ["extract", "--pool", "median"], ["predict", "--batch-size"]],
)
def test_wrong_usage_is_exit_status_2(arguments, capsys):
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run"], 2, "--data: expected photos, found none named. Give --data FOLDER, or --data demo for the drawings."),
        (
            ["extract"],
            2,
            "--data: expected photos, found none named. Give --data FOLDER, or --data demo for the drawings.",
        ),
        (
            ["audit"],
            2,
            "--data: expected photos, found none named. Give --data FOLDER, or --data demo for the drawings.",
        ),
        (["extract", "--data", "nowhere"], 1, "nowhere: expected a folder of photos, found nothing. Check --data."),
        (["train", "--features", "nowhere"], 1, "manifest.json: expected a feature manifest"),
        (["train", "--dropout", "1"], 2, "--dropout: expected 0 to 0.999, found 1.0."),
        (["train", "--hidden", "8", "0"], 2, "--hidden: expected widths of 1 or more, found (8, 0).\n"),
        (["train", "--sweep", "0"], 2, "--sweep: expected 1 or more heads, found 0. 48 is a good number."),
        (["train", "--seed", "-1"], 2, "--seed: expected 0 to 4294967295, found -1."),
        (["train", "--l2", "nan"], 2, "--l2: expected 0 to inf, found nan."),
        (["extract", "--data", "demo", "--workers", "0"], 2, "--workers: expected 1 or more, found 0. Leave it out"),
        (["serve", "--port", "65536"], 2, "--port: expected 0 to 65535, found 65536."),
        (["serve", "--body-timeout", "0"], 2, "--body-timeout: expected more than 0, found 0.0. Leave it out"),
        (["evaluate", "--run", "nowhere"], 1, "expected a trained head, found no file"),
        (["export", "--run", "nowhere"], 1, "expected a trained head, found no file"),
        (["predict", "--model", "nowhere.onnx", "x.jpg"], 1, "nowhere.onnx"),
        (
            ["predict", "https://a.org/b.jpg"],
            2,
            "https://a.org/b.jpg: expected a file or a folder, found a URL; nothing is",
        ),
        (["predict", "S3://a/b"], 2, "S3://a/b: expected a file or a folder, found a URL; nothing is fetched."),
        (["predict", "--list", "nowhere.txt"], 1, "--list nowhere.txt: expected a list of paths, found: No such file"),
        (["predict", "--null", "x.jpg"], 2, "--null: expected a list of paths, found none. Name it: --list FILE"),
        (["predict", "-", "--list", "-"], 2, "-: expected to read standard input once, found it named twice."),
        (["predict", "x.jpg", "--format", "parquet"], 2, "--format parquet: expected a file to write, found stdout."),
        (
            ["predict", "x.jpg", "--out", "x.jpg"],
            2,
            "--out x.jpg: expected the name of a table, found that of a photo.",
        ),
        (
            ["predict", "x.jpg", "--out", "x.txt"],
            2,
            "--out x.txt: expected .csv, .jsonl, .parquet, found '.txt'. Rename",
        ),
        (
            ["predict", "x.jpg", "--out", "x.csv", "--format", "table"],
            2,
            "expected --format csv, jsonl, parquet, found table",
        ),
        (["predict", "x.jpg", "--sort-with", "hardlink"], 2, "--sort-with hardlink: expected --sort DIR, found none."),
        (["predict", "x.jpg", "--watch", "1"], 2, "--watch: expected folders, found x.jpg. Name folders."),
        (["predict", "--watch", "0", "."], 2, "--watch: expected more than 0, found 0.0."),
        (
            ["predict", "--watch", "1", "--list", "a"],
            2,
            "--watch: expected no --list, found it: the photos have no end.",
        ),
        (["predict", ".", "--watch", "1", "--unsure-first"], 2, "--watch: expected no --unsure-first, found it"),
        (
            ["embed", "x.jpg", "--out", "x.txt"],
            2,
            "x.txt: expected the name of embeddings, .npy, found '.txt'. Add .npy.",
        ),
        (["similar", "x.jpg"], 2, "--among: expected a feature cache or an embeddings.npy, found none named."),
        (["similar", "x.jpg", "--in", "nowhere.npy"], 1, "nowhere.json: expected a list of the rows of embeddings"),
        (["similar", "x.jpg", "--in", "nowhere"], 1, "manifest.json: expected a feature manifest"),
        (["port", "--source", "nowhere.h5"], 2, "nowhere.h5: expected a file of weights or one of"),
    ],
)
def test_bad_input_is_one_line_without_a_traceback(arguments, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("", "run --data demo --out runs/demo"),
        ("--data photos --out runs/photos", "run --data photos --out runs/photos"),
    ],
)
def test_make_run_takes_the_drawings_unless_it_is_told_otherwise(arguments, command):
    told = ["make", "--no-print-directory", "-n", "run", "VENV=.venv", f"ARGS={arguments}"]
    shown = subprocess.run(told, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert " ".join(shown.splitlines()[-1].split()) == f".venv/bin/catdog {command}"


def test_what_a_stage_returns_is_no_exit_status(monkeypatch):
    monkeypatch.setattr("catdog_jax.commands.train.train", lambda _: {"accuracy": 0.5})
    assert run(["train"]) == 0


def test_an_interrupted_stage_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("catdog_jax.commands.train.train", interrupted)
    monkeypatch.setattr("catdog_jax.commands.extract.extract", interrupted)
    assert run(["extract"]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert run(["train"]) == 130
    assert "Files of earlier runs are as they were" in capsys.readouterr().err


def test_markup_in_names_is_printed_as_it_is(capsys, monkeypatch):
    def refuse(_):
        raise CatdogError("[bold]odd[/] [name]\n\x1b]0;title\x07: expected x, found y.")

    monkeypatch.setattr("catdog_jax.commands.train.train", refuse)
    assert run(["train"]) == 1
    assert capsys.readouterr().err == r"error: [bold]odd[/] [name]\n\x1b]0;title\x07: expected x, found y." + "\n"


def test_the_systems_errors_name_the_path(capsys, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", "/secret/photo.jpg")

    monkeypatch.setattr("catdog_jax.commands.train.train", refuse)
    assert run(["train"]) == 1
    assert capsys.readouterr().err == "error: /secret/photo.jpg: Permission denied\n"


def test_a_missing_package_names_the_extra_that_brings_it():
    code = "import sys\nsys.modules['optax'] = None\nfrom catdog_jax import cli\nsys.exit(cli.main(['train']))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert told.returncode == 2
    assert "expected the package optax" in told.stderr
    assert "pip install 'catdog-jax[cpu,weights]'" in told.stderr


def test_the_command_line_imports_no_jax_before_a_stage_needs_it():
    stages = [
        "commands.predict",
        "commands.embed",
        "commands.similar",
        *(["commands.serve"] if importlib.util.find_spec("uvicorn") else []),
    ]
    code = "import sys\nfrom catdog_jax import cli\ncli._parse(['predict', 'x.jpg'])\n"
    code += "".join(f"import catdog_jax.{stage}\n" for stage in stages)
    heavy = {"jax", "flax", "sklearn", "scipy", "matplotlib", "onnx", "h5py", "tensorflow_datasets", "fsspec", "etils"}
    assert python(f"{code}print(sorted({heavy} & sys.modules.keys()))") == "[]\n"


@pytest.mark.parametrize("stage", cli.STAGES)
def test_each_stage_has_a_script_that_is_the_same_command(stage):
    script = REPOSITORY / "scripts" / f"{stage}.py"
    assert f'main(["{stage}", *sys.argv[1:]])' in script.read_text()


def test_usage_errors_and_data_errors_have_their_statuses():
    assert (CatdogError.exit_status, UsageError.exit_status) == (1, 2)


def test_a_reader_of_the_help_may_go_away():
    command = [sys.executable, "-m", "catdog_jax", "run", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    process.stdout.close()
    assert (process.communicate()[1], process.returncode) == (b"", cli.BROKEN_PIPE)
