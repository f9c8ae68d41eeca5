"""An exported file as a session of ONNX Runtime, and what its metadata says: all that is checked before a photo is seen."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos.dataset import is_class_name
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.runtime import decision, devices, model_check, wire

_OUTPUT = "probability tensor(float) [N, 2]"
_STRANGENESS = "strangeness tensor(float) [N]"


def open_session(path: Path, threads: int | None, spin: bool, further: str = "", device: str = "cpu") -> devices.Opened:
    """ONNX Runtime with the model of a file, and where it runs; see `Predictor` for the arguments.

    `further` is a float tensor inside the graph that becomes an output too.

    Raises:
      CatdogError: the file is missing, is not ONNX, asks for what no export has, or lacks the tensor
        `further`.
      UsageError: the device is not there, or does not run the model.
    """
    try:
        model = atomic.read_regular(path, model_check.MAX_BYTES)
    except OSError as error:
        found = "no file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise _not_a_model(path, str(found), "Check --model, or run `catdog export` first.") from None
    if model is None:
        raise _not_a_model(path, f"more than {model_check.MAX_BYTES:,} bytes", "Check --model.")
    try:
        tensors = model_check.screen(model)
    except CatdogError as error:
        raise CatdogError(f"{path}: {error}. Nothing of it was run; use a model of `catdog export`.") from None
    if further:
        if further not in tensors:
            raise _not_a_model(path, f"none with the tensor {further!r}", "Run `catdog export` again.")
        model += _as_output(further)
    try:
        return devices.opened(model, device, lambda: _options(threads, spin))
    except CatdogError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise _not_a_model(path, f"what ONNX Runtime cannot load ({reason})", "Run `catdog export` again.") from None


def _options(threads: int | None, spin: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # External data is looked for below a path that cannot be a folder, so a stranger's model reads
    # no file of this machine.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def _as_output(tensor: str) -> bytes:
    """What, behind the bytes of a model, makes a tensor of its graph an output of it.

    Protobuf merges a message that comes twice, and appends lists: a second `graph` (field 7 of
    ModelProto) that holds nothing but an `output` (12 of GraphProto), of a name (1) and a type (2: a
    tensor, 1, of floats, 1) adds this output to those of the first.
    """
    floats = wire.message(1, wire.number(1, 1))
    return wire.message(7, wire.message(12, wire.message(1, tensor.encode()) + wire.message(2, floats)))


class Described(NamedTuple):
    """What a model's bytes say of it: the metadata, and what goes in and comes out, as ONNX Runtime names it."""

    metadata: dict[str, str]
    inputs: list[Any]
    outputs: list[Any]


def described(model: bytes) -> Described:
    """Reads what an exported model says of itself. Nothing of it is run, and neither JAX nor `onnx` is needed."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is not going to run
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return Described(metadata, session.get_inputs(), session.get_outputs())


def _not_a_model(path: Path, found: str, advice: str) -> CatdogError:
    return CatdogError(f"{path}: expected an ONNX model of `catdog export`, found {found}. {advice}")


def check_signature(path: Path, session: ort.InferenceSession, size: int) -> None:
    """Checks the names, types and shapes of what goes in and comes out, of photos of `size`; raises CatdogError."""
    expected = f"image tensor(uint8) [N, {size}, {size}, 3]"
    inputs, outputs = (
        [_signature(tensor) for tensor in side] for side in (session.get_inputs(), session.get_outputs())
    )
    if inputs != [expected]:
        raise _not_a_model(path, f"the input {'; '.join(inputs)} instead of {expected}", "Check --model.")
    if _OUTPUT not in outputs:
        raise _not_a_model(path, f"the output {'; '.join(outputs)} instead of {_OUTPUT}", "Check --model.")


def _signature(tensor: Any) -> str:
    """A tensor's name, type and shape, with N for a batch of any size."""
    sizes = [str(size) for size in tensor.shape]
    if sizes and not isinstance(tensor.shape[0], int):
        sizes[0] = "N"
    return f"{tensor.name} {tensor.type} [{', '.join(sizes)}]"


def _metadata_json(path: Path, metadata: dict[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except KeyError:
        raise _not_a_model(path, f"no {key!r} in its metadata", "Check --model.") from None
    except ValueError:
        raise _not_a_model(
            path, f"{metadata[key]!r} as {key!r} in its metadata", "Run `catdog export` again."
        ) from None


def classes(path: Path, metadata: dict[str, str]) -> tuple[str, str]:
    """The names of the two classes; raises CatdogError."""
    match _metadata_json(path, metadata, "classes"):
        case [str(first), str(second)] if first != second and is_class_name(first) and is_class_name(second):
            return first, second
        case found:
            raise _not_a_model(path, f"{found!r} instead of the names of two classes", "Run `catdog export` again.")


def fingerprint(metadata: Mapping[str, str]) -> Fingerprint:
    """That of the features that the head was trained on; empty where the file does not say."""
    try:
        return Fingerprint.from_json(json.loads(metadata["features"]))
    except (KeyError, ValueError, CatdogError):
        return Fingerprint()


def rule(path: Path, classes: tuple[str, str], metadata: dict[str, str], outputs: Sequence[Any] = ()) -> decision.Rule:
    """What makes verdicts of the outputs, those of the session; raises CatdogError."""
    try:
        found = decision.read(classes, metadata)
    except CatdogError as error:
        raise CatdogError(
            f"{path}: metadata: {error}. Run `catdog export` again, or pip install -U catdog-jax."
        ) from None
    return _check_strangeness(path, found, outputs)


def _check_strangeness(path: Path, found: decision.Rule, outputs: Sequence[Any]) -> decision.Rule:
    """A rule that calls photos strange needs the output that says how strange they are."""
    if found.strange_above is not None and _STRANGENESS not in (signatures := [*map(_signature, outputs)]):
        has = "; ".join(signatures) or "none"
        raise _not_a_model(
            path, f"the outputs {has} without {_STRANGENESS}, of which its metadata speaks", "Check --model."
        )
    return found


def recipe(path: Path, metadata: dict[str, str]) -> DecodingRecipe:
    """How photos are decoded for the model; raises CatdogError where this version cannot."""
    return DecodingRecipe.from_json(_metadata_json(path, metadata, "recipe"), f"{path}: metadata: recipe")
