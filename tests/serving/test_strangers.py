"""The server of a model that knows strangers, and of one that does not: verdicts, tensors, its description, its figures."""

import json

import numpy as np
import pytest
from helpers.models import strange_model, tiny_model
from helpers.serving import conversation, multipart, photo

from catdog_jax.config import ServeConfig
from catdog_jax.runtime.predictor import Predictor

serving_app = pytest.importorskip("catdog_jax.serving.app", reason="the extra `serve` is not installed")


def application(folder, model):
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return serving_app.application(Predictor(folder / "model.onnx"), ServeConfig())


def answered(app, *requests):
    """The bodies of the answers, none of them an error."""
    found = conversation(app, *((positional, {}) for positional in requests))
    assert {status for status, _, _ in found} == {200}, found
    return [body for _, _, body in found]


def tensor(grey):
    image = np.full((1, 224, 224, 3), grey, np.uint8)
    described = {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": image.ravel().tolist()}
    return json.dumps({"inputs": [described]}).encode()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a server of a model that calls bright photos strange says, in JSON."""
    return answered(
        application(tmp_path_factory.mktemp("strangers"), strange_model()),
        ("/predict", multipart(photo(100), photo(250))),
        ("/v2/models/catdog/infer", tensor(250), "application/json"),
        ("/v2/models/catdog",),
        ("/openapi.json",),
        ("/model.json",),
        ("/metrics",),
    )


def test_verdicts_say_neither(answers):
    dark, bright = json.loads(answers[0])["predictions"]
    assert (dark["neither"], bright["neither"], bright["class"], bright["sure"]) == (False, True, "dogs", True)
    assert bright["strangeness"] == pytest.approx(250 / 255, rel=1e-6)
    assert bright["why"].startswith("Neither: ")


def test_the_tensor_is_answered_and_described(answers):
    found = {output["name"]: output for output in json.loads(answers[1])["outputs"]}
    assert (found["strangeness"]["datatype"], found["strangeness"]["shape"]) == ("FP32", [1])
    assert found["strangeness"]["data"] == [pytest.approx(250 / 255, rel=1e-6)]
    described = json.loads(answers[2])["outputs"]
    assert {"name": "strangeness", "datatype": "FP32", "shape": [-1]} in described


def test_its_description_is_true_of_its_answers(answers):
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(answers[3])

    def check(answer, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer))

    for answer, name in zip(answers, ("Predictions", "InferenceResponse", "Model", None, "About"), strict=False):
        if name:
            check(answer, name)
    assert json.loads(answers[4])["decision"]["strange_above"] == 0.5


def test_figures_count_them(answers):
    lines = answers[5].decode().splitlines()
    assert "catdog_neither_photos_total 2.0" in lines
    assert 'catdog_verdicts_total{class="dogs",sure="true"} 2.0' in lines


def test_a_model_that_knows_none_does_not_mention_them(tmp_path):
    found = answered(
        application(tmp_path, tiny_model()),
        ("/predict", multipart(photo(250))),
        ("/v2/models/catdog",),
        ("/openapi.json",),
        ("/model.json",),
        ("/metrics",),
    )
    for body in found:
        assert b"neither" not in body
        assert b"strange" not in body
