"""The Open Inference Protocol v2: the one tensor that the model takes, checked, and the tensors that it answers.

Tensors are numbers in JSON, or bytes behind it (Triton's extension `binary_tensor_data`); an output
may be asked for as its most probable classes (`classification`). What this server does not do, such
as memory that is shared, is refused by its name: nothing that is asked for is passed over.
"""

import itertools
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from catdog_jax import __version__
from catdog_jax.errors import CatdogError
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.runtime.predictor import Predictor

MODEL, VERSION = "catdog", "1"
PATH = f"/v2/models/{MODEL}"
PATHS = (PATH, f"{PATH}/versions/{VERSION}")
LIVE: dict[str, dict[str, Any]] = {  # path -> what it answers while the server runs
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    **{f"{path}/ready": {"name": MODEL, "ready": True} for path in PATHS},
}
HEADER = "inference-header-content-length"
SERVER = {"name": "catdog_jax", "version": __version__, "extensions": ["binary_tensor_data", "classification"]}
INPUT = {"name": "image", "datatype": "UINT8"}
OUTPUTS = ("probability", "heatmap", "strangeness")
_TEXT = 5  # bytes of a value in JSON, at most: three digits, a comma and a space
_LENGTH = re.compile(r"[0-9]{1,18}")


class ProtocolError(CatdogError):
    """A request that is not of the protocol, or not for this model. The message says what was expected and found."""


class Output(NamedTuple):
    """An output that is asked for: its name, whether in binary, and how many of the classes (0: the tensor itself)."""

    name: str
    binary: bool = False
    classes: int = 0


class Inference(NamedTuple):
    """A request: its id, uint8 [N, size, size, 3], and the outputs that are asked for."""

    identity: str | None
    photos: np.ndarray
    outputs: list[Output]


def input_shape(recipe: DecodingRecipe) -> tuple[int, int, int]:
    """The shape of a photo in the tensor `image`."""
    return recipe.size, recipe.size, 3


def output_shape(name: str, recipe: DecodingRecipe) -> tuple[int, ...]:
    """The shape of a photo's part in an output."""
    return {"probability": (2,), "heatmap": (recipe.grid, recipe.grid), "strangeness": ()}[name]


def most_photos(limit: int, max_body: int, recipe: DecodingRecipe, *, binary: bool) -> int:
    """The photos of a tensor that a request may have at most, so that its body is sure to be taken.

    What else the JSON says has 1,000 bytes.
    """
    each = math.prod(input_shape(recipe)) * (1 if binary else _TEXT)
    return max(1, min(limit, (max_body - 1000) // each))


def given(predictor: Predictor) -> list[str]:
    """The outputs that a model has, by name."""
    has = {"heatmap": predictor.explains, "strangeness": predictor.knows_strangers}
    return [name for name in OUTPUTS if has.get(name, True)]


def decode_request(
    body: bytes, lengths: Sequence[str], max_photos: int, outputs: Sequence[str], recipe: DecodingRecipe
) -> Inference:
    """Reads an inference request.

    Args:
      body: JSON, and the bytes of the tensor where they come in binary.
      lengths: what the header `Inference-Header-Content-Length` says, once or not at all.
      max_photos: in the tensor.
      outputs: the names of those that the model has.
      recipe: the model's, whose size the photos have.

    Returns:
      The request; where it names no outputs, it has all of them.

    Raises:
      ProtocolError: it is not JSON, or its lengths do not fit, or the tensor's name, datatype, shape
        or data are not those of the model, or an output is asked for that the model does not have, or
        one twice, or a parameter is none that this server follows.
    """
    split = _split(body, lengths)
    try:
        request = json.loads(body[:split])
    except (ValueError, RecursionError):
        hint = "" if lengths else f" Bytes behind it need the header {HEADER.title()}."
        raise ProtocolError(f"body: expected a JSON object, found something else.{hint}") from None
    match request:
        case {"inputs": [dict(tensor)]}:
            photos = _tensor(tensor, memoryview(body)[split:], max_photos, recipe)
        case _:
            raise ProtocolError("inputs: expected a list of one tensor named 'image', found something else.")
    parameters = _parameters(request, "", "binary_data_output")
    binary = _flag(parameters, "binary_data_output", "", default=False)
    return Inference(_identity(request.get("id")), photos, _outputs(request.get("outputs"), outputs, binary))


def encode_response(
    inference: Inference, arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> tuple[bytes, int | None]:
    """The answer to a request.

    `arrays` are float32 [N, …] by the name of the output, of all outputs that are asked for.

    Returns:
      The body, and the length of the JSON that it begins with; None where there is nothing behind it.
    """
    outputs, behind = [], []
    for wanted in inference.outputs:
        array = arrays[wanted.name]
        datatype, shape = "FP32", list(array.shape)
        data: list[Any] = []
        if wanted.classes:
            datatype, shape = "BYTES", [len(array), wanted.classes]
            data = [text for row in array for text in _best(row, wanted.classes, classes)]
        described: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            behind.append(_counted(data) if wanted.classes else array.astype("<f4", copy=False).tobytes())
            outputs.append({**described, "parameters": {"binary_data_size": len(behind[-1])}})
        else:
            outputs.append({**described, "data": data or array.ravel().tolist()})
    identity = {} if inference.identity is None else {"id": inference.identity}
    answer = {"model_name": MODEL, "model_version": VERSION, **identity, "outputs": outputs}
    head = json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    return b"".join([head, *behind]), len(head) if behind else None


def model_metadata(outputs: Sequence[str], recipe: DecodingRecipe) -> dict[str, Any]:
    """What `/v2/models/catdog` answers of a model with these outputs."""
    inputs = [{**INPUT, "shape": [-1, *input_shape(recipe)]}]
    described = [{"name": name, "datatype": "FP32", "shape": [-1, *output_shape(name, recipe)]} for name in outputs]
    about = {"name": MODEL, "versions": [VERSION], "platform": "onnxruntime_onnx"}
    return {**about, "inputs": inputs, "outputs": described}


# What is asked for


def _split(body: bytes, lengths: Sequence[str]) -> int:
    """Where the JSON of a body ends."""
    if not lengths:
        return len(body)
    found = lengths[0].strip()
    if len(lengths) > 1 or not _LENGTH.fullmatch(found) or not 1 <= int(found) <= len(body):
        told = ", ".join(lengths)[:100]
        raise ProtocolError(
            f"{HEADER}: expected the length of the JSON, 1 to {len(body):,} (the whole body), found {told!r}."
        )
    return int(found)


def _identity(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ProtocolError(f"id: expected a string, found {type(value).__name__}.")


def _parameters(holder: dict[str, Any], where: str, *known: str) -> dict[str, Any]:
    """The parameters of a request, an input or an output: of these names, or refused."""
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ProtocolError(f"{where}parameters: expected an object, found {type(found).__name__}.")
    if unknown := sorted(set(found) - {*known}):
        expected = " or ".join(known)
        raise ProtocolError(f"{where}parameters: expected {expected}, found {unknown[0][:100]!r}. Leave it out.")
    return found


def _flag(parameters: dict[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}parameters.{name}: expected true or false, found {str(value)[:100]!r}.")
    return value


def _outputs(wanted: Any, given: Sequence[str], binary: bool) -> list[Output]:
    if wanted is None or wanted == []:
        return [Output(name, binary) for name in given]
    items = wanted if isinstance(wanted, list) else [None]
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) and name in given for name in names) or len(set(names)) < len(names):
        raise ProtocolError(
            f"outputs: expected objects named {' or '.join(given)}, each once, found {str(names[:9])[:100]}."
        )
    return [_output(item, f"outputs[{i}].", binary) for i, item in enumerate(items)]


def _output(item: dict[str, Any], where: str, binary: bool) -> Output:
    parameters = _parameters(item, where, "binary_data", "classification")
    classes = parameters.get("classification", 0)
    most = 2
    if "classification" in parameters:
        if item["name"] != "probability":
            raise ProtocolError(
                f"{where}parameters.classification: expected it for probability alone, found it for {item['name']}."
            )
        if isinstance(classes, bool) or not isinstance(classes, int) or not 1 <= classes <= most:
            raise ProtocolError(
                f"{where}parameters.classification: expected a number of classes, 1 to {most}, "
                f"found {str(classes)[:100]!r}."
            )
    return Output(item["name"], _flag(parameters, "binary_data", where, default=binary), classes)


def _tensor(tensor: dict[str, Any], behind: memoryview, max_photos: int, recipe: DecodingRecipe) -> np.ndarray:
    for key, wanted in INPUT.items():
        if tensor.get(key) != wanted:
            raise ProtocolError(f"inputs[0].{key}: expected {wanted!r}, found {str(tensor.get(key))[:100]!r}.")
    shape = tensor.get("shape")
    expected = f"[N, {recipe.size}, {recipe.size}, 3] with N from 1 to {max_photos}"
    match shape:
        case [int(count), recipe.size, recipe.size, 3] if not isinstance(count, bool) and 1 <= count <= max_photos:
            pass
        case _:
            raise ProtocolError(f"inputs[0].shape: expected {expected}, found {str(shape)[:100]}.")
    size = math.prod(shape)
    parameters = _parameters(tensor, "inputs[0].", "binary_data_size")
    if "binary_data_size" in parameters:
        return np.frombuffer(_behind(tensor, parameters["binary_data_size"], behind, size), np.uint8).reshape(shape)
    if behind:
        raise ProtocolError(
            f"inputs[0].parameters.binary_data_size: expected {size:,}, found none, and {len(behind):,} bytes "
            "behind the JSON."
        )
    data = _flat(tensor.get("data"))
    if data is None or len(data) != size:
        raise ProtocolError(f"inputs[0].data: expected {size:,} whole numbers from 0 to 255, found other data.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _behind(tensor: dict[str, Any], told: Any, behind: memoryview, size: int) -> memoryview:
    """The tensor behind the JSON, once what is told of its size is true of its shape and of the body."""
    where = "inputs[0].parameters.binary_data_size"
    if "data" in tensor:
        raise ProtocolError(f"{where}: expected it or inputs[0].data, found both.")
    if isinstance(told, bool) or not isinstance(told, int) or told != size:
        raise ProtocolError(f"{where}: expected {size:,}, the bytes of this shape, found {str(told)[:100]!r}.")
    if len(behind) != size:
        raise ProtocolError(f"body: expected {size:,} bytes behind the JSON, found {len(behind):,}.")
    return behind


def _flat(data: Any) -> bytes | None:
    """Whole numbers from 0 to 255, in a list or in evenly nested ones; None for anything else.

    NumPy is not asked: of texts it would make an array with room for the longest in each place,
    which is a bomb.
    """
    while isinstance(data, list) and {*map(type, data)} == {list} and len({*map(len, data)}) == 1:
        data = list(itertools.chain.from_iterable(data))
    if not isinstance(data, list) or {*map(type, data)} != {int}:
        return None
    try:
        return bytes(data)
    except ValueError:
        return None


# What is answered


def _best(row: np.ndarray, count: int, classes: Sequence[str]) -> list[str]:
    """The most probable classes of a photo, as Triton writes them: "0.900000:1:dogs"."""
    order = np.argsort(-row, kind="stable")[:count]
    return [f"{row[i]:f}:{i}:{classes[i]}" for i in order]


def _counted(texts: Sequence[str]) -> bytes:
    """Texts as BYTES in binary: each behind its length, uint32."""
    encoded = [text.encode(errors="replace") for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
