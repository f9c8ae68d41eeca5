"""`import catdog_jax as cd`: what is public, what importing it costs, and in which words it complains."""

import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import catdog_jax as cd
from catdog_jax.errors import for_python


def python(code: str, **environment: str) -> str:
    told = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=told | environment
    )
    return done.stdout


@pytest.mark.parametrize("name", cd.__all__)
def test_every_public_name_is_there_and_explained(name):
    thing = getattr(cd, name)
    assert name in dir(cd)
    assert name == "__version__" or inspect.getdoc(thing)


@pytest.mark.parametrize("name", sorted(cd._CALLS))
def test_every_public_call_has_types_and_an_example(name):
    thing = getattr(cd, name)
    call = thing.__init__ if inspect.isclass(thing) else thing
    arguments = [a for key, a in inspect.signature(call).parameters.items() if key != "self"]
    assert all(argument.annotation is not inspect.Parameter.empty for argument in arguments)
    assert ">>> " in inspect.getdoc(thing)
    positional = [a for a in arguments if a.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 2  # settings are named


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'catdog_jax' has no attribute 'bogus'"):
        _ = cd.bogus


def test_what_a_deployment_needs_brings_no_jax():
    code = "import sys, catdog_jax as cd; cd.Predictor, cd.load_photos, cd.Dataset, cd.CatdogError\n"
    assert python(code + "print({'jax', 'flax', 'sklearn', 'matplotlib'} & sys.modules.keys())") == "set()\n"


@pytest.mark.parametrize("first", ["", "import jax\n"])
def test_jax_is_prepared_whoever_imports_it_first(first):
    """As the command line does: a device for each core, and the sums right; a notebook need not know of it."""
    code = f"import os\n{first}import catdog_jax as cd\ncd.extract\nimport jax\n"
    code += "print(len(jax.devices()), len(os.sched_getaffinity(0)), '-reduce' in os.environ['XLA_FLAGS'])"
    devices, cores, flag = python(code, JAX_PLATFORMS="cpu").split()
    assert int(devices) == min(16, int(cores))
    assert flag == "True"


def test_jax_that_runs_keeps_its_devices():
    code = "import jax\nbefore = len(jax.devices())\nimport warnings\nwarnings.simplefilter('ignore')\n"
    code += "import catdog_jax as cd\ncd.extract\nprint(before, len(jax.devices()))"
    assert python(code, JAX_PLATFORMS="cpu") == "1 1\n"


@pytest.mark.parametrize(
    ("message", "names", "said"),
    [
        ("--batch-size: expected 1, found 0.", {}, "batch_size: expected 1, found 0."),
        ("x: expected y. Check --data.", {"data": "photos"}, "x: expected y. Check photos."),
        ("Run `catdog extract --out CACHE`, then --features.", {}, "Run `catdog extract --out CACHE`, then features."),
        ("a - b -- c", {}, "a - b -- c"),
    ],
)
def test_messages_name_arguments(message, names, said):
    assert for_python(message, names) == said


def test_an_error_names_the_argument_and_keeps_its_kind(tmp_path):
    with pytest.raises(
        cd.CatdogError, match=r"nowhere: expected a folder of photos, found nothing\. Check source\."
    ) as told:
        cd.load_photos("nowhere")
    assert told.type is cd.CatdogError
    assert told.value.__cause__ is None
    with pytest.raises(ValueError, match=r"^batch_size: expected 1 or more, found 0") as wrong:
        cd.Predictor(tmp_path / "model.onnx", batch_size=0)
    assert isinstance(wrong.value, cd.UsageError)


@pytest.mark.lenient_types
def test_the_examples_of_all_public_names_run(real_weights, tmp_path, monkeypatch):
    """In the order of the work, in one folder: each finds what those before it made."""
    monkeypatch.chdir(tmp_path)
    order = (
        "load_photos",
        "audit",
        "extract",
        "Extractor",
        "train",
        "evaluate",
        "load_head",
        "export",
        "Predictor",
        "similar",
    )
    assert {*order} == cd._CALLS
    names = {"np": np, "Path": Path}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for name in order:
        if name == "Predictor":
            cat = next(record for record in names["photos"].split("train") if record.label == 0)
            Path("cat.jpg").write_bytes(cat.read())
        thing = getattr(cd, name)
        calls = (
            [thing, thing.__call__, *([thing.embed] if name == "Predictor" else [])]
            if inspect.isclass(thing)
            else [thing]
        )
        for call in calls:
            for example in doctest.DocTestFinder(recurse=False).find(call, name, globs=names):
                runner.run(example, out=told.append, clear_globs=False)
                names |= example.globs
    assert not runner.failures, "".join(told)
    assert runner.tries > 15
