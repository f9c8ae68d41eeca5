"""The server's description of itself: OpenAPI 3.1, made of the names, shapes and limits that the server goes by."""

import math
from collections.abc import Iterable
from typing import Any

from catdog_jax import __version__
from catdog_jax.config import ServeConfig
from catdog_jax.photos import decoding
from catdog_jax.serving import inference_protocol

Json = dict[str, Any]

_MEDIA = (*(f"image/{form.lower()}" for form in decoding.FORMATS), "application/octet-stream")
_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_SURE: Json = {
    "type": ["boolean", "null"],
    "description": "Whether the probability reaches the model's level to abstain at. False: the class is what the model leans "
    "to, and no decision. Null: the model does not know its level.",
}
_WHY: Json = {**_TEXT, "description": "Why the model is not sure, for a reader; empty where it is."}
_NUMBERS: Json = {"type": "array", "items": _NUMBER}
_REASONS = {
    400: "The request is malformed, or holds other tensors than the model takes.",
    404: "There is no such path or model.",
    408: "The headers or the body did not arrive in time.",
    413: "The body is too large.",
    422: "None of the photos can be read.",
    500: "The server failed; its log says why.",
    503: "There is no room for all photos of the request at present; none of them was looked at.",
    504: "There was no answer in time.",
}


def document(config: ServeConfig, classes: tuple[str, str], *, heatmaps: bool, assets: Iterable[str]) -> Json:
    """The OpenAPI document of a server."""
    model, ready = inference_protocol.PATH, {"ready": {"const": True}}
    paths = {
        "/predict": _predict(config),
        f"{model}/infer": _infer(),
        model: _get("The model's tensors", "application/json", _ref("Model")),
        **{
            path: _get("Whether the server answers", "application/json", _object(ready))
            for path in inference_protocol.HEALTH
        },
        "/v2": _get("The server's name and version", "application/json", _ref("Server")),
        "/metrics": _get("Requests counted, for Prometheus", "text/plain", _TEXT),
        "/model.json": _get("What the page wants to know", "application/json", _ref("About")),
        "/openapi.json": _get("This document", "application/json", {"type": "object"}),
        **{path: _get("A file of the page", "*/*", {}) for path in assets},
    }
    about = "Photos in, probabilities out. Uploads stay in memory and are forgotten with the request."
    return {
        "openapi": "3.1.0",
        "info": {"title": "catdog_jax", "version": __version__, "description": about, "license": _LICENSE},
        "paths": paths,
        "components": {
            "schemas": {**_photo_schemas(config, classes, heatmaps), **_tensor_schemas(config, heatmaps)},
            "responses": {_name(status): _error(status) for status in _REASONS},
        },
    }


def _predict(config: ServeConfig) -> Json:
    photo: Json = {"maxLength": config.max_body}
    files = {
        "type": "array",
        "items": {"type": "string", "contentMediaType": _MEDIA[-1]},
        "minItems": 1,
        "maxItems": config.max_files,
    }
    form = _object({"file": files}, closed=False)
    body = {**{kind: {"schema": photo} for kind in _MEDIA}, "multipart/form-data": {"schema": form}}
    summary = (
        f"Classifies one photo, the body, or up to {config.max_files}, files of any name; one bad photo fails alone"
    )
    answers = {"200": _answer("A verdict a photo, in their order", "application/json", _ref("Predictions"))}
    refused = {"422": _answer(_REASONS[422], "application/json", _ref("Refused"))}
    return _post(summary, body, {**answers, **_errors(400, 408, 413), **refused, **_errors(500, 503, 504)})


def _infer() -> Json:
    answers = {"200": _answer("The tensors that were asked for", "application/json", _ref("InferenceResponse"))}
    body = {"application/json": {"schema": _ref("InferenceRequest")}}
    summary = "Computes photos of the Open Inference Protocol v2, in JSON"
    return _post(summary, body, {**answers, **_errors(400, 408, 413, 500, 503, 504)})


def _photo_schemas(config: ServeConfig, classes: tuple[str, str], heatmaps: bool) -> Json:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    cells: Json = _NUMBER
    for size in reversed(inference_protocol.OUTPUTS["heatmap"]):
        cells = {"type": "array", "items": cells, "minItems": size, "maxItems": size}
    verdict = {
        "class": {"enum": [*classes]},
        "probability": probability,
        "probabilities": _object(dict.fromkeys(classes, probability)),
        "sure": _SURE,
        "why": _WHY,
        **({"heatmap": cells} if heatmaps else {}),
    }
    rows = {"type": "array", "minItems": 1, "maxItems": config.max_files}
    names = {"classes": {"const": [*classes]}}
    about = {**names, "decision": _rule(probability), "max_bytes": {"const": config.max_body}}
    return {
        "About": _object(about),
        "Verdict": _object(verdict, {"name": _TEXT}),
        "Failure": _object({"error": _TEXT}, {"name": _TEXT}),
        "Predictions": _object(
            {**names, "predictions": rows | {"items": {"oneOf": [_ref("Verdict"), _ref("Failure")]}}},
        ),
        "Refused": _object({**names, "predictions": rows | {"items": _ref("Failure")}, "error": _TEXT}),
        "Error": _object({"error": _TEXT}),
    }


def _tensor_schemas(config: ServeConfig, heatmaps: bool) -> Json:
    count = {"type": "integer", "minimum": 1, "maximum": config.max_files}
    pixels = {"type": "integer", "minimum": 0, "maximum": 255}
    size = math.prod(inference_protocol.INPUT["shape"][1:])
    image = {
        "name": {"const": inference_protocol.INPUT["name"]},
        "datatype": {"const": inference_protocol.INPUT["datatype"]},
        "shape": _shape(count, inference_protocol.INPUT["shape"][1:]),
        "data": {"type": "array", "items": pixels, "minItems": size, "maxItems": size * config.max_files},
    }
    given = {name: shape for name, shape in inference_protocol.OUTPUTS.items() if heatmaps or name != "heatmap"}
    tensors = [
        _object(
            {"name": {"const": name}, "datatype": {"const": "FP32"}, "shape": _shape(count, shape), "data": _NUMBERS}
        )
        for name, shape in given.items()
    ]
    wanted = _object({"name": {"enum": [*given]}}, closed=False)
    request = {"inputs": {"type": "array", "items": _object(image, closed=False), "minItems": 1, "maxItems": 1}}
    optional = {"id": _TEXT, "outputs": {"type": "array", "items": wanted, "maxItems": len(given)}}
    metadata = inference_protocol.model_metadata(heatmaps)
    return {
        "InferenceRequest": _object(request, optional, closed=False),
        "InferenceResponse": _object(
            {
                "model_name": {"const": inference_protocol.MODEL},
                "outputs": {"type": "array", "items": {"oneOf": tensors}},
            },
            {"id": _TEXT},
        ),
        "Model": _object({key: {"const": value} for key, value in metadata.items()}),
        "Server": _object({key: {"const": value} for key, value in inference_protocol.SERVER.items()}),
    }


def _rule(probability: Json) -> Json:
    level = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    threshold = "A photo is of the second class from this probability of it on."
    abstain = "A verdict is unsure where the probability of its class is below; null where the model does not know."
    return _object(
        {"threshold": {**probability, "description": threshold}, "abstain_below": {**level, "description": abstain}}
    )


def _shape(count: Json, rest: Iterable[int]) -> Json:
    sizes = [count, *({"const": size} for size in rest)]
    return {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(sizes)}


def _object(required: Json, optional: Json | None = None, *, closed: bool = True) -> Json:
    schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}
    return schema | ({"additionalProperties": False} if closed else {})


def _get(summary: str, media: str, schema: Json) -> Json:
    answers = {"200": _answer("As asked", media, schema), **_errors(400, 408, 500)}
    return {"get": {"summary": summary, "responses": answers}}


def _post(summary: str, body: Json, responses: Json) -> Json:
    return {"post": {"summary": summary, "requestBody": {"required": True, "content": body}, "responses": responses}}


def _answer(description: str, media: str, schema: Json) -> Json:
    return {"description": description, "content": {media: {"schema": schema}}}


def _error(status: int) -> Json:
    retry = {"headers": {"retry-after": {"schema": {"type": "integer"}}}} if status == 503 else {}
    return {**_answer(_REASONS[status], "application/json", _ref("Error")), **retry}


def _errors(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _name(status: int) -> str:
    return f"Error{status}"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
