"""The server's description of itself: OpenAPI 3.1, made of the names, shapes and limits that the server goes by.

Every operation has an id, for programs that write clients, and every property a meaning.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from catdog_jax import __version__
from catdog_jax.config import ServeConfig
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.serving import inference_protocol

Json = dict[str, Any]

_MEDIA = (*(f"image/{form.lower()}" for form in decoding.FORMATS), "application/octet-stream")
_BINARY = "application/octet-stream"
_JSON = "application/json"
_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_SURE: Json = {
    "type": ["boolean", "null"],
    "description": "Whether the probability reaches the model's level to abstain at. False: the class is what the model leans "
    "to, and no decision. Null: the model does not know its level.",
}
_WHY: Json = {**_TEXT, "description": "Why there is no decision for the class, for a reader; empty where there is."}
_STRANGE: Json = {
    "strangeness": {**_NUMBER, "description": "How unlike the photos of the model's training it is."},
    "neither": {
        "type": "boolean",
        "description": "Whether it is so unlike them that it is of neither class; the class is then what the model leans to.",
    },
}
_NAME: Json = {**_TEXT, "description": "The photo's name, as it was sent; absent where it has none."}
_WRONG: Json = {**_TEXT, "description": "What was expected and what was found, in one line for a reader."}
_ID: Json = {**_TEXT, "description": "Of the client's choice; the answer has the same."}
_NUMBERS: Json = {"type": "array", "items": _NUMBER, "description": "The values, flat, row by row."}
_REASONS = {
    400: "The request is malformed, or holds other tensors than the model takes, or asks for what there is not.",
    404: "There is no such path, model or version.",
    408: "The headers or the body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "None of the photos can be read.",
    500: "The server failed; its log says why.",
    503: "There is no room for all photos of the request at present; none of them was looked at.",
    504: "There was no answer in time.",
}
_PARTS = {
    "probabilities": "the probability of each class",
    "heatmap": "what each cell of the photo, of 32 × 32 pixels, gives to the logit of the second class",
}


def document(
    config: ServeConfig,
    classes: tuple[str, str],
    *,
    outputs: Sequence[str],
    recipe: DecodingRecipe,
    assets: Iterable[str],
    parts: Sequence[str],
    prefix: str,
) -> Json:
    """The OpenAPI document of a server.

    Args:
      config: whose limits it has.
      classes: the names of the two classes.
      outputs: the names of those that the model has.
      recipe: how photos are decoded for it.
      assets: the paths of the page's files.
      parts: what `/predict` may be asked for beside the verdict.
      prefix: below which a proxy offers the server; may be empty.
    """
    ready = {"/v2/health/live": "serverLive", "/v2/health/ready": "serverReady"}
    first, second = inference_protocol.PATHS
    paths = {
        "/predict": _predict(config, parts),
        **{f"{path}/infer": _infer(name) for path, name in ((first, "infer"), (second, "inferVersion"))},
        first: _get("modelMetadata", "The model's tensors", _JSON, _ref("Model")),
        second: _get("modelVersionMetadata", "The model's tensors", _JSON, _ref("Model")),
        **{
            path: _get(
                ready.get(path, "modelReady" if path == f"{first}/ready" else "modelVersionReady"),
                "Whether the server answers",
                _JSON,
                _object({key: _said(_constant(value), _LIVE[key]) for key, value in answer.items()}),
            )
            for path, answer in inference_protocol.LIVE.items()
        },
        "/v2": _get("serverMetadata", "The server's name, version and extensions", _JSON, _ref("Server")),
        "/metrics": _get("metrics", "Figures for Prometheus", "text/plain", _TEXT),
        "/model.json": _get("about", "What the page wants to know", _JSON, _ref("About")),
        "/openapi.json": _get("openapi", "This document", _JSON, {"type": "object"}),
        **{path: _get(_asset_id(path), "A file of the page", "*/*", {}) for path in assets},
    }
    about = "Photos in, verdicts out. Uploads stay in memory and are forgotten with the request."
    return {
        "openapi": "3.1.0",
        "info": {"title": "catdog_jax", "version": __version__, "description": about, "license": _LICENSE},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": {
                **_photo_schemas(config, classes, outputs, recipe),
                **_tensor_schemas(config, classes, outputs, recipe),
            },
            "responses": {_name(status): _error(status) for status in _REASONS},
        },
    }


_LIVE = {"live": "The server runs.", "ready": "Requests are answered.", "name": "The model."}


def _asset_id(path: str) -> str:
    """`pagePageCss` for `/page.css`: a name that every writer of clients takes."""
    words = path.strip("/").replace(".", " ").split()
    return "page" + "".join(word.capitalize() for word in words)


def _predict(config: ServeConfig, parts: Sequence[str]) -> Json:
    photo: Json = {"maxLength": config.max_body, "description": "The file of a photo, as it is."}
    files = {
        "type": "array",
        "items": {"type": "string", "contentMediaType": _BINARY},
        "minItems": 1,
        "maxItems": config.max_files,
        "description": "Files of photos; their part may have any name.",
    }
    form = _object({"file": files}, closed=False)
    body = {
        **{kind: {"schema": photo} for kind in _MEDIA},
        "multipart/form-data": {"schema": form},
        _JSON: {"schema": _ref("Photos")},
    }
    several = f"up to {config.max_files}, as files of a form or in base64"
    summary = f"Classifies one photo, the body, or {several}; one bad photo fails alone"
    include = {
        "name": "include",
        "in": "query",
        "description": "What the answer has beside the verdict: "
        + "; ".join(f"`{part}`, {_PARTS[part]}" for part in parts),
        "schema": {"type": "array", "items": {"enum": [*parts]}},
        "style": "form",
        "explode": False,
    }
    answers = {"200": _answer("A verdict a photo, in their order", _JSON, _ref("Predictions"))}
    refused = {"422": _answer(_REASONS[422], _JSON, _ref("Refused"))}
    responses = {**answers, **_errors(400, 408, 413, 415), **refused, **_errors(500, 503, 504)}
    return _post("predict", summary, body, responses, [include])


def _infer(identity: str) -> Json:
    length = {
        "schema": {"type": "integer", "minimum": 1},
        "description": "The length of the JSON that a body begins with.",
    }
    answer = _answer("The tensors that were asked for", _JSON, _ref("InferenceResponse"))
    described = "The JSON of an InferenceResponse, and behind it the outputs that were asked for in binary"
    answer["content"][_BINARY] = {"schema": {"description": f"{described}, in their order."}}
    answer["headers"] = {inference_protocol.HEADER.title(): length}
    body = {
        _JSON: {"schema": _ref("InferenceRequest")},
        _BINARY: {
            "schema": {
                "description": "The JSON of an InferenceRequest whose input has `binary_data_size` for `data`, "
                "and behind it the bytes of the tensor."
            }
        },
    }
    header = {"name": inference_protocol.HEADER.title(), "in": "header", "required": False, **length}
    summary = "Computes photos of the Open Inference Protocol v2, in JSON or in binary"
    return _post(identity, summary, body, {"200": answer, **_errors(400, 408, 413, 415, 500, 503, 504)}, [header])


def _photo_schemas(
    config: ServeConfig, classes: tuple[str, str], outputs: Sequence[str], recipe: DecodingRecipe
) -> Json:
    heatmaps, strangers = ("heatmap" in outputs), ("strangeness" in outputs)
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    cells: Json = _NUMBER
    for size in reversed(inference_protocol.output_shape("heatmap", recipe)):
        cells = {"type": "array", "items": cells, "minItems": size, "maxItems": size}
    verdict = {
        "class": _said({"enum": [*classes]}, "What the photo shows, by the model's rule."),
        "probability": _said(probability, "Of that class."),
        "sure": _SURE,
        "why": _WHY,
        **(_STRANGE if strangers else {}),
    }
    each = {name: _said(probability, f"Of {name}.") for name in classes}
    asked = {
        "probabilities": _said(_object(each), "Of each class; where `include` asks for it."),
        **({"heatmap": _said(cells, f"{_PARTS['heatmap']}; where `include` asks for it.")} if heatmaps else {}),
    }
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": config.max_files,
        "description": "One for each photo, in their order.",
    }
    names = {"classes": _said({"const": [*classes]}, "The first and the second class.")}
    about = {
        **names,
        "decision": _rule(probability, strangers),
        "heatmaps": _said({"const": heatmaps}, "Whether the model has heat maps."),
        "recipe": _said({"const": recipe.to_json()}, "How a photo becomes the square that the model sees."),
        "max_bytes": _said({"const": config.max_body}, "Bytes of a request at most."),
    }
    photo = _object(
        {"data": {**_TEXT, "contentEncoding": "base64", "description": "The file of a photo, in base64."}},
        {"name": _said(_TEXT, "Of your choice; the answer has the same.")},
    )
    return {
        "About": _object(about),
        "Photos": _object({"photos": rows | {"items": photo, "description": "The photos."}}),
        "Verdict": _object(verdict, {**asked, "name": _NAME}),
        "Failure": _object({"error": _WRONG}, {"name": _NAME}),
        "Predictions": _object(
            {**names, "predictions": rows | {"items": {"oneOf": [_ref("Verdict"), _ref("Failure")]}}},
        ),
        "Refused": _object({**names, "predictions": rows | {"items": _ref("Failure")}, "error": _WRONG}),
        "Error": _object({"error": _WRONG}),
    }


def _tensor_schemas(
    config: ServeConfig, classes: tuple[str, str], given: Sequence[str], recipe: DecodingRecipe
) -> Json:
    most, binary = (
        inference_protocol.most_photos(config.max_files, config.max_body, recipe, binary=way) for way in (False, True)
    )
    sizes = inference_protocol.input_shape(recipe)
    size = math.prod(sizes)
    pixels = {"type": "integer", "minimum": 0, "maximum": 255}
    head = {
        "name": _said({"const": inference_protocol.INPUT["name"]}, "The model's one input."),
        "datatype": _said({"const": inference_protocol.INPUT["datatype"]}, "Its type."),
    }
    values = {"type": "array", "items": pixels, "minItems": size, "maxItems": size * most}
    length = {"type": "integer", "multipleOf": size, "minimum": size, "maximum": size * binary}
    behind = _object({"binary_data_size": _said(length, "The bytes of the tensor, behind the JSON.")})
    shape = f"Photos, height, width, and red, green and blue: [N, {recipe.size}, {recipe.size}, 3]."
    inputs = [
        _object(
            {
                **head,
                "shape": _said(_shape(_count(most), sizes), shape),
                "data": _said(values, "The pixels, flat, or nested as the shape says."),
            },
            closed=False,
        ),
        _object(
            {**head, "shape": _said(_shape(_count(binary), sizes), shape), "parameters": _said(behind, "In binary.")},
            closed=False,
        ),
    ]
    flag = {"type": "boolean"}
    classification = {"type": "integer", "minimum": 1, "maximum": len(classes)}
    asked = {
        "binary_data": _said(flag, "Whether this output comes behind the JSON, in binary."),
        "classification": _said(
            classification, "Of probability: so many of the most probable classes, as PROBABILITY:INDEX:CLASS."
        ),
    }
    wanted = _object(
        {"name": _said({"enum": [*given]}, "The output.")},
        {"parameters": _said(_object({}, asked), "How it is wanted.")},
        closed=False,
    )
    request = {
        "inputs": {
            "type": "array",
            "items": {"oneOf": inputs},
            "minItems": 1,
            "maxItems": 1,
            "description": "The one tensor of the model.",
        }
    }
    all_binary = _object({}, {"binary_data_output": _said(flag, "Whether all outputs come in binary.")})
    optional = {
        "id": _ID,
        "outputs": {
            "type": "array",
            "items": wanted,
            "maxItems": len(given),
            "description": "The outputs that are wanted; all where none is named.",
        },
        "parameters": _said(all_binary, "Of the whole request."),
    }
    metadata = inference_protocol.model_metadata(given, recipe)
    answered = {
        "model_name": _said({"const": inference_protocol.MODEL}, "The model."),
        "model_version": _said({"const": inference_protocol.VERSION}, "Its version; there is one."),
        "outputs": {
            "type": "array",
            "items": {"oneOf": [schema for name in given for schema in _answered(name, config, recipe)]},
            "description": "The outputs that were asked for.",
        },
    }
    return {
        "InferenceRequest": _object(request, optional, closed=False),
        "InferenceResponse": _object(answered, {"id": _ID}),
        "Model": _object({key: _said({"const": value}, _MODEL[key]) for key, value in metadata.items()}),
        "Server": _object({k: _said({"const": v}, _SERVER[k]) for k, v in inference_protocol.SERVER.items()}),
    }


_MODEL = {
    "name": "The model.",
    "versions": "Its versions.",
    "platform": "What runs it, in Triton's words.",
    "inputs": "The tensors that it takes.",
    "outputs": "The tensors that it answers.",
}
_SERVER = {
    "name": "The program.",
    "version": "Its version.",
    "extensions": "Of the protocol, by Triton's names.",
}


def _answered(name: str, config: ServeConfig, recipe: DecodingRecipe) -> list[Json]:
    """An output as it is answered: its values, or the classes, in JSON or in binary."""
    count = _count(config.max_files)
    shape = inference_protocol.output_shape(name, recipe)
    size = {"type": "integer", "minimum": 0}
    behind = {
        "parameters": _said(_object({"binary_data_size": _said(size, "Its bytes behind the JSON.")}), "In binary.")
    }
    title = {"name": _said({"const": name}, "The output.")}
    tensor = {
        **title,
        "datatype": _said({"const": "FP32"}, "Its type."),
        "shape": _said(_shape(count, shape), "Photos, and what there is of each."),
    }
    found = [_object({**tensor, "data": _NUMBERS}), _object({**tensor, **behind})]
    if name != "probability":
        return found
    texts = {"type": "array", "items": _TEXT, "description": "PROBABILITY:INDEX:CLASS, the most probable first."}
    labels = {
        **title,
        "datatype": _said({"const": "BYTES"}, "Its type."),
        "shape": _said(
            {"type": "array", "prefixItems": [count, _count(shape[0])], "items": False, "minItems": 2},
            "Photos, and classes of each.",
        ),
    }
    return [*found, _object({**labels, "data": texts}), _object({**labels, **behind})]


def _count(most: int) -> Json:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _rule(probability: Json, strangers: bool) -> Json:
    level = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    threshold = "A photo is of the second class from this probability of it on."
    abstain = "A verdict is unsure where the probability of its class is below; null where the model does not know."
    strange = _said({"type": "number", "minimum": 0}, "A photo is of neither class where its strangeness is above.")
    rule = {"threshold": _said(probability, threshold), "abstain_below": _said(level, abstain)}
    return _said(
        _object(rule | ({"strange_above": strange} if strangers else {})), "What makes verdicts of the outputs."
    )


def _shape(count: Json, rest: Iterable[int]) -> Json:
    sizes = [count, *({"const": size} for size in rest)]
    return {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(sizes)}


def _constant(value: Any) -> Json:
    return {"const": value}


def _said(schema: Json, description: str) -> Json:
    return {**schema, "description": description}


def _object(required: Json, optional: Json | None = None, *, closed: bool = True) -> Json:
    schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}
    return schema | ({"additionalProperties": False} if closed else {})


def _get(identity: str, summary: str, media: str, schema: Json) -> Json:
    answers = {"200": _answer("As asked", media, schema), **_errors(400, 408, 500)}
    return {"get": {"operationId": identity, "summary": summary, "responses": answers}}


def _post(identity: str, summary: str, body: Json, responses: Json, parameters: list[Json]) -> Json:
    request = {"required": True, "content": body}
    told = {"operationId": identity, "summary": summary, "parameters": parameters}
    return {"post": {**told, "requestBody": request, "responses": responses}}


def _answer(description: str, media: str, schema: Json) -> Json:
    return {"description": description, "content": {media: {"schema": schema}}}


def _error(status: int) -> Json:
    seconds = {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}
    retry = {"headers": {"Retry-After": seconds}} if status == 503 else {}
    return {**_answer(_REASONS[status], _JSON, _ref("Error")), **retry}


def _errors(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _name(status: int) -> str:
    return f"Error{status}"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
