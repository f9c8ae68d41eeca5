"""Tables of the pages that promise names or values have those of the code."""

import dataclasses
import re

import onnxruntime
import pytest
from helpers.documents import ROOT

from catdog_jax.config import ServeConfig
from catdog_jax.photos import decoding
from catdog_jax.runtime.predictor import Predictor

DOCS = ROOT / "docs"
MODEL = ROOT / "artifacts" / "default" / "model-int8.onnx"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = (DOCS / page).read_text().split(f" {heading}\n", 1)[1]
    lines = text[text.index("| ") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_model_file_has_exactly_these_metadata_keys():
    keys = [quoted(row[0])[0] for row in rows("model-file.md", "Metadata")]
    assert len(keys) == len({*keys})
    assert {*keys} == Predictor(MODEL).metadata.keys()


def test_the_model_file_has_exactly_these_tensors():
    session = onnxruntime.InferenceSession(MODEL)
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    tensors = [
        [f"{side} `{one.name}`", f"{types[one.type]} [{', '.join(map(str, one.shape))}]"]
        for side, some in (("input", session.get_inputs()), ("output", session.get_outputs()))
        for one in some
    ]
    if not Predictor(MODEL).knows_strangers:  # a file of before
        tensors.append(["output `strangeness`", "float32 [N]"])
    assert [row[:2] for row in rows("model-file.md", "Input and outputs")] == tensors


def test_the_server_has_exactly_these_endpoints():
    app = pytest.importorskip("catdog_jax.serving.app")
    served = {route.path for route in app.application(Predictor(MODEL), ServeConfig()).routes}
    listed = {path.split()[-1] for row in rows("serving.md", "The server") for path in quoted(row[0])}
    assert listed == {path for path in served if "." not in path or path.endswith(".json")} - {"/"}


def test_the_limits_are_those_of_the_settings():
    defaults = {field.name: field.default for field in dataclasses.fields(ServeConfig)}
    for row in rows("serving.md", "Limits"):
        number, _, unit = row[2].partition(" ")
        assert float(number) * (2**20 if unit == "MiB" else 1) == defaults[quoted(row[1])[0][2:].replace("-", "_")]


def test_the_server_has_exactly_these_figures():
    metrics = pytest.importorskip("catdog_jax.serving.metrics")
    told = re.findall(
        r"^# HELP (catdog_\w+) ", metrics.Metrics("fp32", batch_size=8, strangers=True).text().decode(), re.MULTILINE
    )
    listed = [name for row in rows("serving.md", "Figures") for name in quoted(row[0])]
    assert sorted(listed) == sorted(told)


def test_the_formats_are_those_that_are_decoded():
    listed = {suffix: row[0].upper() for row in rows("data.md", "Formats") for suffix in quoted(row[1])}
    assert listed == decoding.SUFFIXES
