"""A head whose threshold is 0.2 gives the same verdicts in Python, as a file, in a server and in evaluations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import sklearn.metrics
from helpers import serving
from helpers.exported import CELLS, fitted_head, photo, session
from PIL import Image

from catdog_jax.backbone import vgg16, weights
from catdog_jax.deployment import graph, onnx_file, triton
from catdog_jax.evaluation.compare import compare
from catdog_jax.evaluation.evaluate import evaluate
from catdog_jax.heads import head
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DEFAULT, FIRST
from catdog_jax.runtime import model_file
from catdog_jax.runtime.predictor import Predictor

THRESHOLD = 0.2
CLASSES = ("cats", "dogs")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        (root / CLASSES[seed % 2]).mkdir(exist_ok=True)
        Image.fromarray(photo(seed)).save(root / CLASSES[seed % 2] / f"{seed}.png")
    return root


def random_convolutions() -> vgg16.Params:
    rng = np.random.default_rng(0)
    return {
        layer.name: {
            "kernel": rng.normal(0, np.sqrt(2 / (9 * layer.inputs)), (3, 3, layer.inputs, layer.outputs)).astype(
                np.float32
            ),
            "bias": np.zeros(layer.outputs, np.float32),
        }
        for layer in vgg16.LAYERS
    }


class Told(NamedTuple):
    """A model file, its head, the features that its own convolutions compute, and the verdicts that are due."""

    model: Path
    fitted: head.FittedHead
    x: np.ndarray
    paths: list[Path]
    labels: np.ndarray
    expected: list[str]


@pytest.fixture(scope="module")
def told(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    params, records = random_convolutions(), sources.load(str(photos), ()).records
    loaded = weights.Weights(params, "torch", weights.digest(params), "random")
    plain = fitted_head("avg", fingerprint=Fingerprint(classes=CLASSES, image=FIRST.to_json()))
    model = graph.build(params, "torch", plain, {})
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(CELLS, onnx.TensorProto.FLOAT, ("N", 512, 7, 7)))
    convolutions = session(onnx.utils.Extractor(model).extract_model(["image"], [CELLS]))
    cells = convolutions.run(
        None, {"image": np.stack([decoding.decode(record.read(), DEFAULT) for record in records])}
    )[0]
    x, kernel = cells.mean(axis=(2, 3)), plain.params["output"]["kernel"]
    spread = (x @ kernel).std()
    bias = np.float32([-0.6 - (x @ kernel / spread).mean()])  # probabilities on both sides of 0.2 and of 0.5
    layer = {"kernel": kernel / spread, "bias": bias}
    recipe = {"pool": "avg", "threshold": THRESHOLD, "abstain_below": 0.4}
    folder = tmp_path_factory.mktemp("model")
    replace(plain, params={"output": layer}, recipe=recipe).save(folder / "head.safetensors")
    fitted = head.load(folder / "head.safetensors")
    described = onnx_file.metadata(fitted, loaded, ("original",), None)
    (folder / "model.onnx").write_bytes(graph.build(params, "torch", fitted, described).SerializeToString())
    p = fitted(x)
    assert {tuple(one) for one in np.stack([p >= THRESHOLD, p >= 0.5], axis=1)} == {(0, 0), (1, 0), (1, 1)}
    labels = np.array([record.label for record in records])
    paths = [photos / record.id for record in records]
    return Told(folder / "model.onnx", fitted, x, paths, labels, [CLASSES[int(one >= THRESHOLD)] for one in p])


def test_a_file_decides_as_its_head(told: Told):
    found = Predictor(told.model)(told.paths)
    assert [one.label for one in found] == told.expected
    p = told.fitted(told.x)
    assert [one.sure for one in found] == (np.where(p >= THRESHOLD, p, 1 - p) >= 0.4).tolist()


def test_a_server_decides_as_its_file(told: Told):
    with serving.started(told.model) as address:
        body = serving.multipart(*(path.read_bytes() for path in told.paths))
        status, answer, _ = serving.ask(f"{address}/predict", body, content_type="multipart/form-data; boundary=B")
        about = json.loads(serving.ask(f"{address}/model.json")[1])  # what the page in the browser decides by
    assert status == 200
    assert [one["class"] for one in json.loads(answer)["predictions"]] == told.expected
    assert about["decision"] == {"threshold": THRESHOLD, "abstain_below": 0.4}


def test_evaluations_of_the_head_and_of_its_file_judge_those_verdicts(told: Told, photos: Path):
    second = np.array(told.expected) == CLASSES[1]
    judged = evaluate(told.fitted, (told.x, told.labels))
    assert judged.confusion == sklearn.metrics.confusion_matrix(told.labels, second).tolist()
    assert judged.to_json()["threshold"] == THRESHOLD
    (compared,) = compare([told.model], sources.load(str(photos), ())).models
    for found in (judged.metrics, compared.metrics):
        assert found["accuracy"].value == sklearn.metrics.accuracy_score(told.labels, second)
        assert found["f1"].value == sklearn.metrics.f1_score(told.labels, second)


def test_tritons_clients_are_told(told: Told):
    text = triton.configuration(model_file.described(told.model.read_bytes()))
    assert json.dumps(json.dumps({"threshold": THRESHOLD, "abstain_below": 0.4})) in text
