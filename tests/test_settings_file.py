"""Settings in files: what `--config` reads, what it refuses in one line, and what a run records."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.caches import make_cache

from catdog_jax import cli, settings_file
from catdog_jax.config import AuditConfig, ExtractConfig, PredictConfig, RunConfig, TrainConfig
from catdog_jax.files.buckets import Bucket


def parsed(*arguments: str):
    return cli._parse([*arguments])[1]


def test_json_and_toml_by_the_names_of_the_options(tmp_path):
    values = {
        "epochs": 7,
        "hidden": [8, 4],
        "learning-rate": 1,
        "costs": [1, 5.5],
        "features": "s3://bucket/x",
        "head": None,
    }
    json_file, toml_file = tmp_path / "a.json", tmp_path / "A.TOML"
    json_file.write_text(json.dumps(values))
    toml_file.write_text(
        'epochs = 7\nhidden = [8, 4]\nlearning_rate = 1\ncosts = [1, 5.5]\nfeatures = "s3://bucket/x"\n'
    )
    expected = TrainConfig(
        epochs=7, hidden=(8, 4), learning_rate=1.0, costs=(1.0, 5.5), features=Bucket("s3://bucket/x"), out=Path("x")
    )
    assert parsed("train", "--config", str(json_file), "--out", "x") == expected
    assert parsed("train", "--out=x", f"--config={toml_file}") == expected


def test_options_win_over_the_file(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"epochs": 7, "seed": 3, "hidden": [8]}')
    found = parsed("train", "--config", str(file), "--epochs", "9", "--hidden", "2", "3")
    assert found == TrainConfig(epochs=9, seed=3, hidden=(2, 3))
    file.write_text('{"strict": true, "data": "demo"}')
    assert parsed("audit", "--config", str(file)) == AuditConfig(strict=True, data="demo")
    assert parsed("audit", "--config", str(file), "--no-strict") == AuditConfig(data="demo")
    assert parsed("audit", "--config", str(file), "--strict") == AuditConfig(strict=True, data="demo")


def test_what_must_be_given_may_be_in_the_file_or_beside_it(tmp_path, capsys):
    file = tmp_path / "settings.json"
    file.write_text('{"batch_size": 3}')
    assert parsed("predict", "a.jpg", "--config", str(file)) == PredictConfig(paths=("a.jpg",), batch_size=3)
    assert parsed("predict", "--config", str(file)) == dataclasses.replace(parsed("predict"), batch_size=3)
    file.write_text('{"batch_size": 3, "paths": ["b.jpg", "c"]}')
    assert parsed("predict", "--config", str(file)).paths == ("b.jpg", "c")
    assert parsed("predict", "a.jpg", "--config", str(file)).paths == ("a.jpg",)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        parsed("predict", "--config", str(file), "--help")
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "text", "message"),
    [
        ("train", '{"epoch": 3}', ", epoch: expected a setting of catdog train, found none of this name. Perhaps epochs is"),
        ("train", '{"xyzzy": 3}', ", xyzzy: expected a setting of catdog train, found none of this name. `catdog train"),
        ("train", '{"epochs": "3"}', ', epochs: expected a whole number, found "3". Correct it.'),
        ("train", '{"epochs": 2.5}', ", epochs: expected a whole number, found 2.5. Correct it."),
        ("train", '{"epochs": true}', ", epochs: expected a whole number, found true. Correct it."),
        ("train", '{"epochs": 0}', ", epochs: expected 1 or more, found 0. Leave it out for the default."),
        ("train", '{"l2": "small"}', ', l2: expected a number, found "small". Correct it.'),
        ("train", '{"preset": "best"}', ', preset: expected default or reference, found "best". Correct it.'),
        ("train", '{"preset": null}', ", preset: expected default or reference, found null. Correct it."),
        ("train", '{"hidden": 8}', ", hidden: expected a list, found 8. Correct it."),
        ("train", '{"costs": [1]}', ", costs: expected a list of 2, found [1]. Correct it."),
        ("train", '{"features": ""}', ', features: expected a path, found "". Correct it.'),
        ("train", '{"out": 3}', ", out: expected a path, found 3. Correct it."),
        ("extract", '{"views": ["mirror"]}', ', views: expected original or original,mirror, found ["mirror"]. Correct it.'),
        ("audit", '{"strict": 1}', ", strict: expected true or false, found 1. Correct it."),
        ("audit", '{"write-exclude": "a", "write_exclude": "b"}', ", write_exclude: expected each setting once, found it"),
        ("train", '{"l2": NaN}', ": expected settings in JSON, found: NaN, which is not JSON. Correct it."),
        ("train", "epochs = 3", ": expected settings in JSON, found: Expecting value: line 1 column 1 (char 0). Correct it."),
        ("train", "[1]", ": expected settings by name, found a list."),
        ("train", '{"head_sha256": "0", "recipe": {}}', ": expected settings, found a run of an older version, which"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_line(tmp_path, capsys, stage, text, message):
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert cli.main([stage, "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}{message}")
    assert error.count("\n") == 1


def test_files_that_are_none_are_one_line(tmp_path, capsys):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "wrong.toml").write_text("epochs 3")
    (tmp_path / "huge.json").write_bytes(b" " * 2**21)
    for name, message in {
        "absent.json": f"--config: expected a file of settings, found nothing at {tmp_path / 'absent.json'}. Check the path.",
        "run.yaml": f"--config: expected a .json or .toml file, found {tmp_path / 'run.yaml'}. Rename it, or check the path.",
        "folder.json": "folder.json: expected settings in JSON, found: Is a directory. Correct it.",
        "wrong.toml": "wrong.toml: expected settings in TOML, found: Expected '='",
        "huge.json": "huge.json: expected settings by name, found more than 1,048,576 bytes.",
    }.items():
        assert cli.main(["train", "--config", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [
        TrainConfig(hidden=(8,), costs=(1.0, 2.0), head="mlp"),
        ExtractConfig(views=("original", "mirror"), reuse=(Bucket("s3://b/x"), Path("old")), weights="weights.npz", groups="a"),
        RunConfig(data="tfds:cats_vs_dogs", exclude=Path("exclude.txt")),
    ],
)  # fmt: skip
def test_what_is_recorded_is_read_again_from_anywhere(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.npz").touch()
    (tmp_path / "runs").mkdir()
    file = tmp_path / "runs" / "run.json"
    file.write_text(json.dumps({"settings": settings_file.recorded(settings, file.parent)}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = type(settings)(**settings_file.read(file, "stage", type(settings)))

    def whole(value):
        if isinstance(value, tuple):
            return tuple(map(whole, value))
        is_place = isinstance(value, Path) or value == "weights.npz"
        return str(tmp_path / value) if is_place else str(value)

    for field in dataclasses.fields(settings):
        assert whole(getattr(found, field.name)) == whole(getattr(settings, field.name)), field.name


@pytest.mark.lenient_types
def test_the_config_of_a_run_trains_the_same_head_again(tmp_path, monkeypatch, capsys):
    make_cache(tmp_path / "features")
    monkeypatch.chdir(tmp_path)
    options = [
        "--pool",
        "avg",
        "--epochs",
        "3",
        "--hidden",
        "16",
        "8",
        "--seed",
        "7",
        "--l2",
        "0.01",
        "--dropout",
        "0.2",
    ]
    assert cli.main(["train", "--features", "features", "--out", "run", *options]) == 0
    monkeypatch.chdir("/")
    assert cli.main(["train", "--config", str(tmp_path / "run/config.json"), "--out", str(tmp_path / "run2")]) == 0
    heads = [(tmp_path / run / "head.safetensors").read_bytes() for run in ("run", "run2")]
    assert heads[0] == heads[1]
    assert cli.main(["verify", str(tmp_path / "run2")]) == 0
    assert cli.main(["run", "--config", str(tmp_path / "run/config.json")]) == 2
    assert "resident_gib: expected a setting of catdog run, found none" in capsys.readouterr().err
