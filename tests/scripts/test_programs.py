"""The programs of scripts/benchmarks and scripts/experiments: each starts by its module's name, and its settings are there."""

import ast
import dataclasses
import importlib
import inspect
import runpy
import sys

import pytest

from scripts.benchmarks.benchmark import Contestant

POSITIONAL = ("--contests", "--targets")
PROGRAMS = {
    "scripts.benchmarks.benchmark": "BenchmarkConfig",
    "scripts.benchmarks.decoding": "DecodingConfig",
    "scripts.benchmarks.compiled": "CompiledConfig",
    "scripts.benchmarks.large_photos": "LargePhotosConfig",
    "scripts.benchmarks.layers": "LayersConfig",
    "scripts.benchmarks.load": "LoadConfig",
    "scripts.experiments.ablate": "AblateConfig",
    "scripts.experiments.reproduce": "ReproduceConfig",
    "scripts.experiments.robustness": "RobustnessConfig",
    "scripts.experiments.squares": "SquaresConfig",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_starts_by_its_name_and_lists_its_options(name, monkeypatch, capsys):
    settings = getattr(importlib.import_module(name), PROGRAMS[name])
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(name, run_name="__main__")
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m {name} ")
    options = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(settings)]
    assert not [option for option in options if option not in shown and option not in POSITIONAL]


@pytest.mark.parametrize("name", [*PROGRAMS, "scripts.experiments.ablation_rows"])
def test_what_a_program_reads_of_its_settings_is_there(name):
    module = importlib.import_module(name)
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        kinds = [one for one in getattr(getattr(function, "args", None), "args", []) if one.arg == "config"]
        for fields in [{f.name for f in dataclasses.fields(getattr(module, kind.annotation.id))} for kind in kinds]:
            nodes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
            read = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "config"}
            assert read <= fields, function.name


def test_a_contestant_measures_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the scripts need not be where the benchmark is started
    contestant = Contestant("limits", "matrix product, FLOP/s", {"seconds": 0.01})
    try:
        assert contestant.absent is None
        assert contestant.measure() > 0
    finally:
        contestant.close()
