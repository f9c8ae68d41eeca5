"""The exported model on photos. ONNX Runtime, NumPy and Pillow; no JAX, so that a deployment needs nothing else.

`Predictor` opens the file and checks that it is a model of this project; `predict` streams photos through it: decoding runs
ahead of inference in threads, results come in the order of the photos, and memory is bounded by a few batches (but a table
keeps its rows until its end).
"""

import collections
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.text import Text

from catdog_jax import ahead, data, heatmaps, images, screening, storage
from catdog_jax.config import THRESHOLD, PredictConfig
from catdog_jax.console import console, printable, progress_bar
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.listing import Row, discard_stdout, rendered, write

BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports for a program whose reader went away
_OWN, _PUBLISHED = Path("run/model.onnx"), Path("artifacts/default/model-int8.onnx")
_INPUT = f"image tensor(uint8) [N, {images.SIZE}, {images.SIZE}, 3]"
_OUTPUT = "probability tensor(float) [N, 2]"


class Predictor:
    """An exported model, ready for photos: `Predictor(path)(images) -> probabilities`.

    The model is this one file: external data is never read, whatever the file says.

    Attributes:
      classes: the names of the two classes, in the order of the probabilities.
      metadata: what the file says of itself (`metadata_props`), as strings.
      abstain_below: see the function of that name.
    """

    def __init__(self, path: Path, *, batch_size: int = 16, threads: int | None = None, spin: bool = True):
        """Opens a model.

        Args:
          path: the file that `catdog export` wrote.
          batch_size: photos that are computed at once at most; it bounds the memory.
          threads: ONNX Runtime's threads; by default one a core.
          spin: whether they wait for work without sleeping: some 5 % faster, on cores that nobody else needs.

        Raises:
          CatdogError: the file is missing, is not ONNX, is not a model of `catdog export`, or was made for photos that are
            decoded in another way than this version does.
        """
        self._path = path
        self._batch_size = batch_size
        self._session = _open_session(path, threads, spin)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        _check_signature(path, self._session)
        self.explains: bool = any(output.name == "heatmap" for output in self._session.get_outputs())
        self.classes: tuple[str, str] = _classes(path, self.metadata)
        self.abstain_below: float = abstain_below(self.metadata)
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
        images.check_photos(photos)
        starts = range(0, len(photos), self._batch_size)
        parts = [self._session.run(outputs, {"image": photos[i : i + self._batch_size]}) for i in starts]
        if not parts:
            return [np.empty((0, 2), np.float32), np.empty((0, 7, 7), np.float32)][: len(outputs)]
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        if not np.isfinite(found[0]).all():
            raise CatdogError(f"{self._path}: expected finite probabilities, found NaN. Train and export the model again.")
        return found


def predict(config: PredictConfig) -> int:
    """Classifies photos and prints the results on stdout as a table, as JSON lines or as CSV.

    Args:
      config: the photos, the model and the format.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason), or 141 if the reader of stdout
      went away.

    Raises:
      CatdogError: there are no photos, or the model cannot be used; see `Predictor`.
      UsageError: a setting is out of range.
    """
    _check_settings(config)
    photos = find_photos(config.paths)
    predictor = Predictor(find_model(config.model), batch_size=config.batch_size, threads=config.threads)
    if config.heatmap is not None and not predictor.explains:
        raise UsageError("--heatmap: expected a model with the output 'heatmap', found none. Export it again.")
    overlays = None if config.heatmap is None else heatmaps.Folder(config.heatmap)
    counts: collections.Counter[str | None] = collections.Counter()
    batches = _counted(predictions(predictor, photos, config.batch_size, overlays), counts)
    try:
        if config.format == "table":  # which is printed at the end, and should not be waited for in the dark
            batches = _with_progress(batches, len(photos))
        for text in rendered(config.format, predictor.classes, batches):
            write(text)
    except BrokenPipeError:
        discard_stdout()
        return BROKEN_PIPE
    found = "".join(f"{counts[name]:,} {printable(name)}, " for name in predictor.classes)
    where = "" if config.heatmap is None else f"; heat maps in {config.heatmap}"
    console.print(Text(f"{len(photos):,} photos: {found}{counts[None]:,} unreadable{where}"), soft_wrap=True)
    return 1 if counts[None] else 0


def find_model(named: Path | None) -> Path:
    """The model that is meant: the one that is named; else that of a run here; else the published one, which is said.

    Raises:
      CatdogError: none is named, and there is none.
    """
    if named is not None:
        return named
    if _OWN.exists():
        return _OWN
    published = next((path for root in (Path(), Path(__file__).parents[1]) if (path := root / _PUBLISHED).exists()), None)
    if published is None:
        raise CatdogError(f"--model: expected {_OWN} or {_PUBLISHED}, found neither. Name a model, or run `catdog run` first.")
    console.print(Text(f"No {_OWN} here: using the published {published}"), soft_wrap=True)
    return published


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, whatever their names; folders replaced by the photos below them.

    Raises:
      CatdogError: that makes no photo at all.
    """
    paths = list(paths)
    photos = [photo for path in paths for photo in (data.photos_below(path) if os.path.isdir(path) else [path])]
    if not photos:
        where = ", ".join(map(str, paths))
        raise CatdogError(f"{where}: expected photos ({', '.join(images.SUFFIXES)}), found none. Check the path.")
    return photos


def predictions(
    predictor: Predictor, photos: Iterable[Path], batch_size: int, overlays: heatmaps.Folder | None = None
) -> Iterator[list[Row]]:
    """Yields what there is to say about `batch_size` photos at a time, in order, each batch as soon as it is computed.

    A photo's dictionary is {"path", "class", "probability" (of that class), "probabilities" (by class)} with the path of its
    "heatmap" where overlays are written, or {"path", "error"} where it cannot be read.
    """
    decoded = ahead.map_ahead(_decode, photos, workers=None, ahead=2 * batch_size)
    while batch := list(itertools.islice(decoded, batch_size)):
        pixels = [picture for _, picture in batch if isinstance(picture, np.ndarray)]
        found: Iterator[tuple[np.ndarray, np.ndarray | None]] = iter(())
        if pixels:
            probabilities, cells = predictor.explain(np.stack(pixels)) if overlays else (predictor(np.stack(pixels)), None)
            found = zip(probabilities, itertools.repeat(None) if cells is None else cells, strict=False)
        yield [
            {"path": str(path), "error": str(picture)}
            if isinstance(picture, images.ImageError)
            else _row(predictor.classes, path, *next(found), overlays)
            for path, picture in batch
        ]


def _row(
    classes: tuple[str, str], path: Path, probabilities: np.ndarray, cells: np.ndarray | None, overlays: heatmaps.Folder | None
) -> Row:
    row = {"path": str(path), **verdict(classes, probabilities)}
    if overlays is None or cells is None:
        return row
    try:
        return {**row, "heatmap": str(overlays.write(path, cells, row["class"] == classes[1]))}
    except images.ImageError as error:  # it was there a moment ago
        return {"path": str(path), "error": str(error)}


def verdict(classes: tuple[str, str], probabilities: np.ndarray) -> dict[str, Any]:
    """What float32 [2] says: {"class", "probability" (of that class), "probabilities" (by class)}."""
    # The float with the fewest digits that is still this float32: 0.9, not 0.8999999761581421
    values = [float(np.format_float_scientific(value)) for value in probabilities]
    label = int(values[1] >= THRESHOLD)
    return {"class": classes[label], "probability": values[label], "probabilities": dict(zip(classes, values, strict=True))}


def abstain_below(metadata: Mapping[str, str]) -> float:
    """The probability of its class below which a verdict should count as unsure; 0 where the model's file does not say."""
    try:
        found = json.loads(metadata["head"])["abstain_below"]
    except (KeyError, TypeError, ValueError):
        return 0.0
    return float(found) if isinstance(found, float) and 0 <= found <= 1 else 0.0


def _decode(path: Path) -> tuple[Path, np.ndarray | images.ImageError]:
    try:
        return path, images.decode(images.read_photo(path))
    except images.ImageError as error:
        return path, error


# Opening a model


def _open_session(path: Path, threads: int | None, spin: bool) -> ort.InferenceSession:
    try:
        model = storage.read_regular(path, screening.MAX_BYTES)
    except OSError as error:
        found = "no file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise _not_a_model(path, str(found), "Check --model, or run `catdog export` first.") from None
    if model is None:
        raise _not_a_model(path, f"more than {screening.MAX_BYTES:,} bytes", "Check --model.")
    try:
        screening.screen(model)
    except CatdogError as error:
        raise CatdogError(f"{path}: {error}. Nothing of it was run; use a model of `catdog export`.") from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # External data is looked for below a path that cannot be a folder, so a stranger's model reads no file of this machine.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise _not_a_model(path, f"what ONNX Runtime cannot load ({reason})", "Run `catdog export` again.") from None


def _not_a_model(path: Path, found: str, advice: str) -> CatdogError:
    return CatdogError(f"{path}: expected an ONNX model of `catdog export`, found {found}. {advice}")


def _check_signature(path: Path, session: ort.InferenceSession) -> None:
    inputs, outputs = ([_signature(tensor) for tensor in side] for side in (session.get_inputs(), session.get_outputs()))
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
        raise _not_a_model(path, f"{metadata[key]!r} as {key!r} in its metadata", "Run `catdog export` again.") from None


def _classes(path: Path, metadata: dict[str, str]) -> tuple[str, str]:
    match _metadata_json(path, metadata, "classes"):
        case [str(first), str(second)] if first != second:
            return first, second
        case found:
            raise _not_a_model(path, f"{found!r} instead of the names of two classes", "Run `catdog export` again.")


def _check_recipe(path: Path, metadata: dict[str, str]) -> None:
    recipe = _metadata_json(path, metadata, "recipe")
    if recipe == images.RECIPE:
        return
    version = recipe.get("version") if isinstance(recipe, dict) else None
    if isinstance(version, int) and version > images.VERSION:
        raise CatdogError(
            f"{path}: expected a model for photos of decoding recipe {images.VERSION}, found recipe {version}. "
            "Upgrade: pip install -U catdog-jax."
        )
    raise _not_a_model(path, f"photos of the recipe {recipe!r} instead of {images.RECIPE!r}", "Extract and train again.")


# Printing the results


def _check_settings(config: PredictConfig) -> None:
    if not config.paths:
        raise UsageError("paths: expected photos or folders, found none. Name some; see `catdog predict --help`.")
    for name, value in (("batch_size", config.batch_size), ("threads", config.threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value}. Leave it out for the default.")


def _counted(batches: Iterable[list[Row]], counts: collections.Counter[str | None]) -> Iterator[list[Row]]:
    for batch in batches:
        counts.update(row.get("class") for row in batch)
        yield batch


def _with_progress(batches: Iterable[list[Row]], photos: int) -> Iterator[list[Row]]:
    with progress_bar("photos") as progress:
        task = progress.add_task("predict", total=photos)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
