"""Which files of a run go with its head, and which are told apart where they do not."""

import json

import pytest
from helpers.caches import config, make_cache

from catdog_jax import cli
from catdog_jax.commands import train
from catdog_jax.commands.evaluate import evaluate
from catdog_jax.config import EvaluateConfig
from catdog_jax.files import atomic
from catdog_jax.heads import head
from catdog_jax.heads.run_directory import DERIVED, OUT_OF_FOLD, SWEEP, OtherHeadError, RunDirectory
from catdog_jax.photos.sources import SPLITS

pytestmark = pytest.mark.lenient_types
TRAINED = {"head.safetensors", "history.csv", "config.json"}


@pytest.fixture
def run(tmp_path):
    make_cache(tmp_path / "features")
    train.train(config(tmp_path))
    return RunDirectory(tmp_path / "run")


def names(run: RunDirectory) -> set[str]:
    return {path.name for path in run.path.iterdir()}


def test_every_file_that_a_stage_names_after_a_head_is_known(tmp_path):
    run = RunDirectory(tmp_path)
    made = {make(split) for split in (*SPLITS, "folds") for make in (run.metrics, run.report)}
    made |= {run.comparison, run.whole, *map(run.model, ("fp32", "fp16", "int8"))}
    assert {path.name for path in made} == set(DERIVED)


def test_another_head_leaves_only_what_the_user_named(run, tmp_path, capsys):
    for name in (*DERIVED, *SWEEP, OUT_OF_FOLD, "mine.onnx", "metrics-of-may.json"):
        (run.path / name).write_text("x")
    (run.path / "model.onnx").unlink()
    (run.path / "model.onnx").symlink_to(tmp_path / "gone")  # a link that leads nowhere is a name too
    train.train(config(tmp_path, seed=9))
    assert names(run) == TRAINED | {"mine.onnx", "metrics-of-may.json"}
    said = " ".join(capsys.readouterr().err.split())
    assert all(name in said for name in (*DERIVED, *SWEEP, OUT_OF_FOLD))
    train.train(config(tmp_path, seed=8))
    assert "removed" not in capsys.readouterr().err


def test_the_same_head_keeps_what_describes_it_but_no_sweep_or_folds_that_are_not_its_own(run, tmp_path):
    for name in (*DERIVED, *SWEEP, OUT_OF_FOLD):
        (run.path / name).write_text("x")
    train.train(config(tmp_path))
    assert names(run) == TRAINED | set(DERIVED)


def test_a_sweep_leaves_its_own_files_and_the_next_training_none(run, tmp_path):
    train.train(config(tmp_path, sweep=2, epochs=1, seed=3))
    assert names(run) == TRAINED | set(SWEEP)
    listed = json.loads(run.settings.read_text())["files"]
    assert listed == {name: atomic.sha256_of_file(run.path / name) for name in ("history.csv", *SWEEP)}
    train.train(config(tmp_path, seed=4))
    assert names(run) == TRAINED


def test_settings_of_another_head_are_refused_before_anything_is_judged_by_them(run, tmp_path, capsys):
    train.train(config(tmp_path, out=tmp_path / "other", seed=9))
    # As after a kill before the settings
    run.head.write_bytes((tmp_path / "other" / "head.safetensors").read_bytes())
    with pytest.raises(
        OtherHeadError, match=r"config\.json: expected a file of the head beside it, sha256 .*, found one of"
    ):
        evaluate(EvaluateConfig(run=run.path))
    assert cli.main(["verify", str(run.path)]) == 1
    assert f"of another head: {run.settings}: expected" in (shown := capsys.readouterr().out)
    assert f"not checked: no hash of it is known: {run.path}: history.csv" in shown


def test_settings_of_versions_before_are_taken(run):
    settings = json.loads(run.settings.read_text())
    run.settings.write_text(json.dumps({name: settings[name] for name in ("features", "seed")}))
    assert run.read_settings(head.digest(head.load(run.head).params))["seed"] == 0
