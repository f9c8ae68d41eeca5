"""The server's description against JSON Schema, its routes and its real answers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import tiny_model
from helpers.serving import ask, multipart, photo, started

from catdog_jax.config import ServeConfig
from catdog_jax.photos import decoding
from catdog_jax.runtime.predictor import Predictor
from catdog_jax.serving import inference_protocol

jsonschema = pytest.importorskip("jsonschema", reason="the extra `dev` is not installed")
app = pytest.importorskip("catdog_jax.serving.app", reason="the extra `serve` is not installed")
PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("openapi") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


@pytest.fixture(scope="module")
def server(model) -> Iterator[str]:
    with started(model, "--max-body", "2000000") as url:
        yield url


@pytest.fixture(scope="module")
def document(server) -> dict[str, Any]:
    return json.loads(ask(f"{server}/openapi.json")[1])


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def check(document: dict[str, Any], path: str, method: str, status: int, headers: Any, body: bytes) -> None:
    """Asserts that an answer is one of those that are described."""
    answer = resolved(document, document["paths"][path][method]["responses"][str(status)])
    media = headers["content-type"].partition(";")[0]
    schema = answer["content"].get(media) or answer["content"]["*/*"]
    if media == "application/octet-stream":
        assert answer["headers"].keys() == {"Inference-Header-Content-Length"}
        schema = answer["content"]["application/json"]
        body, media = body[: int(headers["inference-header-content-length"])], "application/json"
    content = json.loads(body) if media == "application/json" else body.decode()
    # The document is the schema, so that its references resolve
    jsonschema.Draft202012Validator({**document, **schema["schema"]}).validate(content)


def test_it_is_whole(document):
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for node in nodes(document):
        assert resolved(document, node) is not None
        if "schema" in node:
            jsonschema.Draft202012Validator.check_schema(node["schema"])
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert all(resolved(document, answer)["description"] for answer in operation["responses"].values())


def test_each_route_is_in_it_and_each_path_is_a_route(document, model):
    routes = app.application(Predictor(model), ServeConfig()).routes
    methods = {route.path: {method.lower() for method in route.methods - {"HEAD"}} for route in routes}
    assert methods == {path: {*operations} for path, operations in document["paths"].items()}


def test_the_limits_are_those_of_the_server(document):
    predict = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {f"image/{form.lower()}" for form in decoding.FORMATS} < predict.keys()
    assert predict["image/jpeg"]["schema"]["maxLength"] == 2_000_000  # --max-body of the fixture
    inputs = document["components"]["schemas"]["InferenceRequest"]["properties"]["inputs"]["items"]["oneOf"]
    for image in inputs:
        sizes = image["properties"]["shape"]["prefixItems"]
        assert [size.get("const") for size in sizes] == [None, 224, 224, 3]
    assert [image["properties"]["shape"]["prefixItems"][0]["maximum"] for image in inputs] == [2, 13], "of 2 MB"


def test_what_is_advertised_is_taken(model):
    """A request of the most photos and the most bytes, as large as JSON writes them, gets its answer."""
    options = ["--max-body", "3100000", "--max-files", "5"]
    with started(model, *options) as url:
        document = json.loads(ask(f"{url}/openapi.json")[1])
        image, binary = document["components"]["schemas"]["InferenceRequest"]["properties"]["inputs"]["items"]["oneOf"]
        infer = f"{url}{inference_protocol.PATH}/infer"
        count = image["properties"]["shape"]["prefixItems"][0]["maximum"]
        assert count == 4
        body = json.dumps({"inputs": [{**tensor(255), "shape": [count, 224, 224, 3], "data": [255] * 150528 * count}]})
        assert ask(infer, body.encode())[0] == 200
        count = binary["properties"]["shape"]["prefixItems"][0]["maximum"]
        assert count == 5
        head, pixels = behind(np.zeros((count, 224, 224, 3), np.uint8))
        assert ask(infer, head + pixels, inference_header_content_length=str(len(head)))[0] == 200
        most = json.loads(ask(f"{url}/model.json")[1])["max_bytes"]
        photo_of_all = photo(140) + bytes(most - len(photo(140)))
        assert ask(f"{url}/predict", photo_of_all)[0] == 200
        assert ask(f"{url}/predict", photo_of_all + b"x")[0] == 413
        for body, kind in (
            (multipart(*[photo(140)] * 5), "multipart/form-data; boundary=B"),
            (base64_of(*[photo(140)] * 5), "application/json"),
        ):
            assert ask(f"{url}/predict", body, content_type=kind)[0] == 200


def test_each_operation_has_an_id_and_each_property_a_meaning(document):
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len({*ids}) == len(ids)
    assert {"predict", "infer", "modelMetadata", "serverReady", "metrics", "page"} <= {*ids}
    assert all(name.isidentifier() for name in ids)
    for node in nodes(document["components"]["schemas"]):
        if node.get("type") == "object":
            for name, schema in node["properties"].items():
                assert resolved(document, schema).get("description"), (name, schema)


def base64_of(*photos: bytes) -> bytes:
    return json.dumps({"photos": [{"data": base64.b64encode(data).decode()} for data in photos]}).encode()


def behind(pixels: np.ndarray, **changes: Any) -> tuple[bytes, bytes]:
    """A request in binary: its JSON, and the bytes behind it."""
    image = {**inference_protocol.INPUT, "shape": [*pixels.shape], "parameters": {"binary_data_size": pixels.nbytes}}
    return json.dumps({"inputs": [image], **changes}).encode(), pixels.tobytes()


def tensor(grey: int) -> dict[str, Any]:
    return {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": [grey] * 224 * 224 * 3}


def test_real_answers_are_as_described(server, document):
    for path, operations in document["paths"].items():
        if "get" in operations:
            check(document, path, "get", *described(ask(server + path)))
    form = {"content_type": "multipart/form-data; boundary=B"}
    for data, headers, expected in (
        (photo(140), {}, 200),
        (multipart(photo(100), b"no photo"), form, 200),
        (b"no photo", {}, 422),
        (multipart(b"no photo", b""), form, 422),
        (b"--B", form, 400),
        (bytes(2_000_001), {}, 413),
        (base64_of(photo(140), b"no photo"), {"content_type": "application/json"}, 200),
        (b"{}", {"content_type": "application/json"}, 400),
        (photo(140), {"content_encoding": "gzip"}, 415),
    ):
        found = ask(f"{server}/predict", data, **headers)
        assert found[0] == expected
        check(document, "/predict", "post", *described(found))
    request = {"id": "a", "inputs": [tensor(140)]}
    jsonschema.Draft202012Validator(whole(document, "InferenceRequest")).validate(request)
    labels = [{"name": "probability", "parameters": {"classification": 2}}]
    in_binary = {"parameters": {"binary_data_output": True}}
    for change, expected in (
        ({}, 200),
        ({"outputs": labels}, 200),
        ({"outputs": labels} | in_binary, 200),
        (in_binary, 200),
        ({"outputs": [{"name": "heatmap"}]}, 400),
        ({"inputs": []}, 400),
    ):
        if expected == 200:
            jsonschema.Draft202012Validator(whole(document, "InferenceRequest")).validate(request | change)
        for path in inference_protocol.PATHS:
            found = ask(f"{server}{path}/infer", json.dumps(request | change).encode())
            assert found[0] == expected
            check(document, f"{path}/infer", "post", *described(found))
    head, pixels = behind(np.full((2, 224, 224, 3), 140, np.uint8))
    jsonschema.Draft202012Validator(whole(document, "InferenceRequest")).validate(json.loads(head))
    length = str(len(head))
    found = ask(f"{server}{path}/infer", head + pixels, inference_header_content_length=length)
    assert found[0] == 200
    check(document, f"{path}/infer", "post", *described(found))


def test_heat_maps_are_described(tmp_path):
    if not PUBLISHED.exists():
        pytest.skip("needs the published model")
    with started(PUBLISHED) as url:
        document = json.loads(ask(f"{url}/openapi.json")[1])
        found = ask(f"{url}/predict?include=heatmap,probabilities", photo(140))
        check(document, "/predict", "post", *described(found))
        (row,) = json.loads(found[1])["predictions"]
        assert np.shape(row["heatmap"]) == (7, 7)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert ask(f"{url}/predict?include=heatmap&include=probabilities", photo(140))[1] == found[1]
        (row,) = json.loads(ask(f"{url}/predict", photo(140))[1])["predictions"]
        expected = {"class", "probability", "sure", "why", "strangeness", "neither"}
        assert row.keys() == expected, "what nobody asked for"
        found = ask(f"{url}{inference_protocol.PATH}/infer", json.dumps({"inputs": [tensor(3)]}).encode())
        check(document, f"{inference_protocol.PATH}/infer", "post", *described(found))
        assert [output["name"] for output in json.loads(found[1])["outputs"]] == [
            "probability",
            "heatmap",
            "strangeness",
        ]


def test_a_wrong_answer_does_not_pass(document):
    verdict = jsonschema.Draft202012Validator(whole(document, "Verdict"))
    row = {
        "class": "cats",
        "probability": 0.75,
        "sure": None,
        "why": "unknown",
    }
    for sure in (None, True, False):
        verdict.validate(row | {"sure": sure})
    for change in (
        {"class": "cows"},
        {"probability": 1.5},
        {"probabilities": {"cats": 1}},
        {"sure": "yes"},
        {"more": 1},
    ):
        assert not verdict.is_valid(row | change), change


def whole(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {**document, "$ref": f"#/components/schemas/{name}"}


def described(found: tuple[int, bytes, Any]) -> tuple[int, Any, bytes]:
    status, body, headers = found
    return status, headers, body
