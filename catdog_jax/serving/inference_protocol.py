"""The Open Inference Protocol v2 in JSON: the one tensor that the model takes, checked, and the tensors that it answers."""

import itertools
import json
import math
from typing import Any

import numpy as np

from catdog_jax import __version__
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding

MODEL = "catdog"
PATH = f"/v2/models/{MODEL}"
HEALTH = ("/v2/health/live", "/v2/health/ready", f"{PATH}/ready")
SERVER = {"name": "catdog_jax", "version": __version__, "extensions": []}
INPUT: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [-1, decoding.SIZE, decoding.SIZE, 3]}
OUTPUTS = {"probability": (2,), "heatmap": (7, 7)}


class ProtocolError(CatdogError):
    """A request that is not of the protocol, or not for this model. The message says what was expected and found."""


def decode_request(body: bytes, max_photos: int, heatmaps: bool) -> tuple[str | None, np.ndarray, list[str]]:
    """Reads an inference request.

    Returns:
      The request's id, uint8 [N, 224, 224, 3], and the names of the outputs that are asked for (all
      where none are named).

    Raises:
      ProtocolError: it is not JSON, or the tensor's name, datatype, shape or data are not those of
        the model, or an output is asked for that the model does not have, or one twice.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("body: expected a JSON object, found something else.") from None
    match request:
        case {"inputs": [dict(tensor)]}:
            photos = _tensor(tensor, max_photos)
        case _:
            raise ProtocolError("inputs: expected a list of one tensor named 'image', found something else.")
    return _identity(request.get("id")), photos, _outputs(request.get("outputs"), _given(heatmaps))


def encode_response(
    identity: str | None, wanted: list[str], probabilities: np.ndarray, heatmaps: np.ndarray | None
) -> dict[str, Any]:
    """The answer to a request: float32 [N, 2] and, where the model has them, [N, 7, 7], flat in row-major order."""
    arrays = {"probability": probabilities, "heatmap": heatmaps}
    chosen = [(name, array) for name in wanted if (array := arrays[name]) is not None]
    outputs = [
        {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        for name, array in chosen
    ]
    return {"model_name": MODEL, **({} if identity is None else {"id": identity}), "outputs": outputs}


def model_metadata(heatmaps: bool) -> dict[str, Any]:
    """What `/v2/models/catdog` answers."""
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, *OUTPUTS[name]]} for name in _given(heatmaps)]
    return {"name": MODEL, "platform": "onnxruntime_onnx", "inputs": [INPUT], "outputs": outputs}


def _identity(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ProtocolError(f"id: expected a string, found {type(value).__name__}.")


def _given(heatmaps: bool) -> list[str]:
    return [name for name in OUTPUTS if heatmaps or name != "heatmap"]


def _outputs(wanted: Any, given: list[str]) -> list[str]:
    if wanted is None or wanted == []:
        return given
    items = wanted if isinstance(wanted, list) else [None]
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) and name in given for name in names) or len(set(names)) < len(names):
        raise ProtocolError(
            f"outputs: expected objects named {' or '.join(given)}, each once, found {str(names[:9])[:100]}."
        )
    return [str(name) for name in names]


def _tensor(tensor: dict[str, Any], max_photos: int) -> np.ndarray:
    for key in ("name", "datatype"):
        if tensor.get(key) != INPUT[key]:
            raise ProtocolError(f"inputs[0].{key}: expected {INPUT[key]!r}, found {str(tensor.get(key))[:100]!r}.")
    shape = tensor.get("shape")
    expected = f"[N, {decoding.SIZE}, {decoding.SIZE}, 3] with N from 1 to {max_photos}"
    match shape:
        case [int(count), decoding.SIZE, decoding.SIZE, 3] if not isinstance(count, bool) and 1 <= count <= max_photos:
            pass
        case _:
            raise ProtocolError(f"inputs[0].shape: expected {expected}, found {str(shape)[:100]}.")
    data, size = _flat(tensor.get("data")), math.prod(shape)
    if data is None or len(data) != size:
        raise ProtocolError(f"inputs[0].data: expected {size:,} whole numbers from 0 to 255, found other data.")
    return np.frombuffer(data, np.uint8).reshape(shape)


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
