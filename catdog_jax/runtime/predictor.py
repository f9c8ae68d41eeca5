"""The exported model on photos. ONNX Runtime, NumPy and Pillow; no JAX, so that a deployment needs nothing else.

`Predictor` opens the file and checks that it is a model of this project; `predict` streams photos
through it: decoding runs ahead of inference in threads, results come in the order of the photos,
and memory is bounded by a few batches (but a table keeps its rows until its end).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding
from catdog_jax.photos.dataset import is_class_name
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.runtime import decision, model_check

_INPUT = f"image tensor(uint8) [N, {decoding.SIZE}, {decoding.SIZE}, 3]"
_OUTPUT = "probability tensor(float) [N, 2]"


class Predictor:
    """An exported model, ready for photos: `Predictor(path)(images) -> probabilities`.

    The model is this one file: external data is never read, whatever the file says.

    Attributes:
      classes: the names of the two classes, in the order of the probabilities.
      metadata: what the file says of itself (`metadata_props`), as strings.
      fingerprint: of the features that its head was trained on; empty where the file does not say.
      rule: what makes verdicts of the probabilities.
    """

    def __init__(self, path: Path, *, batch_size: int = 16, threads: int | None = None, spin: bool = True):
        """Opens a model.

        Args:
          path: the file that `catdog export` wrote.
          batch_size: photos that are computed at once at most; it bounds the memory.
          threads: ONNX Runtime's threads; by default one a core.
          spin: whether they wait for work without sleeping: some 5 % faster, on cores that nobody
            else needs.

        Raises:
          CatdogError: the file is missing, is not ONNX, is not a model of `catdog export`, or was
            made for photos that are decoded in another way than this version does.
        """
        self._path = path
        self._batch_size = batch_size
        self._session = _open_session(path, threads, spin)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        _check_signature(path, self._session)
        self.explains: bool = any(output.name == "heatmap" for output in self._session.get_outputs())
        self.classes: tuple[str, str] = _classes(path, self.metadata)
        self.fingerprint: Fingerprint = _fingerprint(self.metadata)
        self.rule: decision.Rule = _rule(path, self.classes, self.metadata)
        _check_recipe(path, self.metadata)

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """The probabilities of the two classes.

        Args:
          photos: uint8 [N, 224, 224, 3], RGB, as `images.decode` makes them.

        Returns:
          float32 [N, 2], in the order of `classes`.

        Raises:
          CatdogError: `photos` has another type or shape, or the model answers with NaN.
        """
        return self._compute(photos, ["probability"])[0]

    def explain(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The probabilities as of a call, and float32 [N, 7, 7], what each cell gives to the second class's logit, or None."""
        found = self._compute(photos, ["probability", "heatmap"] if self.explains else ["probability"])
        return found[0], found[1] if self.explains else None

    def _compute(self, photos: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        decoding.check_photos(photos)
        starts = range(0, len(photos), self._batch_size)
        parts = [self._session.run(outputs, {"image": photos[i : i + self._batch_size]}) for i in starts]
        if not parts:
            return [np.empty((0, 2), np.float32), np.empty((0, 7, 7), np.float32)][: len(outputs)]
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        if not np.isfinite(found[0]).all():
            raise CatdogError(
                f"{self._path}: expected finite probabilities, found NaN. Train and export the model again."
            )
        return found


# Opening a model


def _open_session(path: Path, threads: int | None, spin: bool) -> ort.InferenceSession:
    try:
        model = atomic.read_regular(path, model_check.MAX_BYTES)
    except OSError as error:
        found = "no file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise _not_a_model(path, str(found), "Check --model, or run `catdog export` first.") from None
    if model is None:
        raise _not_a_model(path, f"more than {model_check.MAX_BYTES:,} bytes", "Check --model.")
    try:
        model_check.screen(model)
    except CatdogError as error:
        raise CatdogError(f"{path}: {error}. Nothing of it was run; use a model of `catdog export`.") from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # External data is looked for below a path that cannot be a folder, so a stranger's model reads
    # no file of this machine.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise _not_a_model(path, f"what ONNX Runtime cannot load ({reason})", "Run `catdog export` again.") from None


def _not_a_model(path: Path, found: str, advice: str) -> CatdogError:
    return CatdogError(f"{path}: expected an ONNX model of `catdog export`, found {found}. {advice}")


def _check_signature(path: Path, session: ort.InferenceSession) -> None:
    inputs, outputs = (
        [_signature(tensor) for tensor in side] for side in (session.get_inputs(), session.get_outputs())
    )
    if inputs != [_INPUT]:
        raise _not_a_model(path, f"the input {'; '.join(inputs)} instead of {_INPUT}", "Check --model.")
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


def _classes(path: Path, metadata: dict[str, str]) -> tuple[str, str]:
    match _metadata_json(path, metadata, "classes"):
        case [str(first), str(second)] if first != second and is_class_name(first) and is_class_name(second):
            return first, second
        case found:
            raise _not_a_model(path, f"{found!r} instead of the names of two classes", "Run `catdog export` again.")


def _fingerprint(metadata: Mapping[str, str]) -> Fingerprint:
    try:
        return Fingerprint.from_json(json.loads(metadata["features"]))
    except (KeyError, ValueError, CatdogError):
        return Fingerprint()


def _rule(path: Path, classes: tuple[str, str], metadata: dict[str, str]) -> decision.Rule:
    try:
        return decision.read(classes, metadata)
    except CatdogError as error:
        raise CatdogError(
            f"{path}: metadata: {error}. Run `catdog export` again, or pip install -U catdog-jax."
        ) from None


def _check_recipe(path: Path, metadata: dict[str, str]) -> None:
    recipe = _metadata_json(path, metadata, "recipe")
    if recipe == decoding.RECIPE:
        return
    version = recipe.get("version") if isinstance(recipe, dict) else None
    if isinstance(version, int) and version > decoding.VERSION:
        raise CatdogError(
            f"{path}: expected a model for photos of decoding recipe {decoding.VERSION}, found recipe {version}. "
            "Upgrade: pip install -U catdog-jax."
        )
    raise _not_a_model(
        path, f"photos of the recipe {recipe!r} instead of {decoding.RECIPE!r}", "Extract and train again."
    )


# Printing the results
