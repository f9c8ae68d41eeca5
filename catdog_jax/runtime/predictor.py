"""The exported model, open: photos in, verdicts out. ONNX Runtime, NumPy and Pillow; no JAX."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from catdog_jax.config import Device, PredictConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, prefetch
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import decision, devices, model_file, prediction
from catdog_jax.runtime.default_model import find_model
from catdog_jax.runtime.prediction import Prediction

CELLS = "block5_conv3_pool"  # what the convolutions give, in every file of `catdog export`
_CHANNELS = 512
_DECIDING = {"probability": "probabilities", "strangeness": "strangeness"}  # outputs that verdicts are made of


class Computed(NamedTuple):
    """What a model computes of N photos.

    Attributes:
      probabilities: float32 [N, 2], in the order of the classes.
      heatmaps: float32 [N, grid, grid], or None where they were not asked for or the model has none.
      strangeness: float32 [N], or None of a model that knows no strangers.
    """

    probabilities: np.ndarray
    heatmaps: np.ndarray | None
    strangeness: np.ndarray | None


class Predictor:
    """An exported model, ready for photos: `Predictor(path)("cat.jpg")` is a `Prediction`.

    The model is this one file: external data is never read, whatever the file says.

    Example:
      >>> import catdog_jax as cd
      >>> model = cd.Predictor("run/model.onnx")
      >>> model.classes
      ('cats', 'dogs')

    Attributes:
      classes: the names of the two classes, in the order of the probabilities.
      metadata: what the file says of itself (`metadata_props`), as strings.
      fingerprint: of the features that its head was trained on; empty where the file does not say.
      recipe: how photos are decoded for it.
      rule: what makes verdicts of the probabilities.
      explains: whether the model has heat maps.
      knows_strangers: whether it says of a photo that it is of neither class.
      device: where the model runs: "cpu", "cuda", "openvino", … What was asked for, or what `auto` chose.
      placement: the same with how many nodes of the graph the device left to the CPU, and what `auto` passed over.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        batch_size: int = 16,
        threads: int | None = None,
        spin: bool = True,
        device: Device = "auto",
    ):
        """Opens a model.

        Args:
          path: the file that `catdog export` wrote, or "published" for the model that came with the
            package; by default run/model.onnx, else that.
          batch_size: photos that are computed at once at most; it bounds the memory.
          threads: ONNX Runtime's threads; by default one a core.
          spin: whether they wait for work without sleeping: some 5 % faster, on cores that nobody
            else needs.
          device: where ONNX Runtime computes: "cpu", "cuda", "tensorrt", "openvino", "coreml" or
            "webgpu"; or "auto", an accelerator that is there and runs the model, else the CPU.

        Raises:
          CatdogError: the file is missing, is not ONNX, is not a model of `catdog export`, or was
            made for photos that are decoded in a way that this version cannot.
          UsageError: a number is out of range; the device is not there, or does not run the model.
        """
        check_arguments(PredictConfig, batch_size=batch_size, threads=threads)
        self._path = path = find_model(None if path is None else Path(path))
        self._batch_size = batch_size
        self._threads, self._spin = threads, spin
        self._session, self.placement = model_file.open_session(path, threads, spin, device=device)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.explains: bool = any(output.name == "heatmap" for output in self._session.get_outputs())
        self.classes: tuple[str, str] = model_file.classes(path, self.metadata)
        self.recipe: DecodingRecipe = model_file.recipe(path, self.metadata)
        model_file.check_signature(path, self._session, self.recipe.size)
        self.fingerprint: Fingerprint = model_file.fingerprint(self.metadata)
        self.rule: decision.Rule = model_file.rule(path, self.classes, self.metadata, self._session.get_outputs())
        self.knows_strangers: bool = self.rule.strange_above is not None

    def __repr__(self) -> str:
        heat = "with" if self.explains else "without"
        precision = self.metadata.get("precision", "fp32")
        about = f"{' | '.join(self.classes)}, {precision}, {heat} heat maps, on {self.placement}"
        return f"Predictor({str(self._path)!r}: {about})"

    @property
    def device(self) -> str:
        """Where the model runs, a name of `devices.PROVIDERS`."""
        return self.placement.device

    def __call__(self, photos: Any) -> Any:
        """What the model says of a photo, or of many.

        Args:
          photos: a photo: its path, the bytes of its file, a PIL image, or an array uint8 [H, W, 3] in
            RGB; or many: a list or any other iterable of those, or an array uint8 [N, size, size, 3].

        Returns:
          A `Prediction` of one photo, a list of them of many, in their order. The pixels of a batch
          are in memory at once at most.

        Raises:
          TypeError: something is none of these.
          UsageError: there is no photo, or an array has another type or shape.
          CatdogError: a photo cannot be read or decoded, or the model answers with NaN.

        Example:
          >>> import catdog_jax as cd
          >>> model = cd.Predictor("run/model.onnx")
          >>> verdict = model("cat.jpg")
          >>> verdict.label, verdict.heatmap.shape
          ('cats', (7, 7))
          >>> [answer.label for answer in model(["cat.jpg", Path("cat.jpg").read_bytes()])]
          ['cats', 'cats']
        """
        if prediction.is_one(photos):
            (answer,) = self._raising([photos])
            return answer
        answers = list(self._raising(prediction.many(photos, self.recipe.size)))
        if not answers:
            raise UsageError("photos: expected at least one photo, found none.")
        return answers

    def _raising(self, photos: Iterable[Any]) -> Iterator[Prediction]:
        for photo, answer in self.stream(photos):
            if isinstance(answer, decoding.ImageError):
                raise CatdogError(f"{prediction.name(photo)}: {answer}. Leave it out, or replace it.")
            yield answer

    def embed(self, photos: Any) -> np.ndarray:
        """The averaged features of photos, as vectors: photos that look alike have a high cosine.

        They are what the convolutions give, averaged over the cells, before any head; of a photo
        itself, where the model looks at its mirror image too. `catdog extract --pool avg` gives the
        same of the same weights: an fp32 file agrees to rounding, int8 within its own.

        Args:
          photos: as in a call. One photo gives one row.

        Returns:
          float32 [N, 512]: a row a photo, in order.

        Raises:
          TypeError, UsageError, CatdogError: as a call; or the file lacks the tensor that is needed.

        Example:
          >>> import catdog_jax as cd
          >>> model = cd.Predictor("run/model.onnx")
          >>> model.embed(["cat.jpg", "cat.jpg"]).shape
          (2, 512)
        """
        rows = []
        given = [photos] if prediction.is_one(photos) else prediction.many(photos, self.recipe.size)
        for photo, row in self.stream_embeddings(given):
            if isinstance(row, decoding.ImageError):
                raise CatdogError(f"{prediction.name(photo)}: {row}. Leave it out, or replace it.")
            rows.append(row)
        if not rows:
            raise UsageError("photos: expected at least one photo, found none.")
        return np.stack(rows)

    def stream_embeddings(self, photos: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray | decoding.ImageError]]:
        """Yields each photo as it was given and its row, float32 [512], or why it cannot be decoded, in order.

        Raises:
          TypeError, UsageError, CatdogError: as `embed`.
        """
        session = self._embedding_session
        expected = (_CHANNELS, self.recipe.grid, self.recipe.grid)
        for batch, stack in self._decoded(photos):
            rows: Iterator[np.ndarray] = iter(())
            if len(stack):
                (cells,) = self._run(session, [CELLS], stack)
                if cells.shape[1:] != expected or len(cells) not in (len(stack), 2 * len(stack)):
                    raise CatdogError(
                        f"{self._path}: expected {CELLS} of [N, {', '.join(map(str, expected))}], "
                        f"found {[*cells.shape]}. Run `catdog export` again."
                    )
                averages = cells[: len(stack)].mean(axis=(2, 3), dtype=np.float32)  # mirror images come behind
                if not np.isfinite(averages).all():
                    raise CatdogError(f"{self._path}: expected finite features, found NaN. Export the model again.")
                rows = iter(averages)
            for photo, picture in batch:
                yield photo, picture if isinstance(picture, decoding.ImageError) else next(rows)

    @functools.cached_property
    def _embedding_session(self) -> Any:
        """A second session, of which the convolutions' last tensor is an output: nobody else pays for it."""
        session = model_file.open_session(
            self._path, self._threads, self._spin, further=CELLS, device=self.device
        ).session
        if session.get_modelmeta().custom_metadata_map != self.metadata:
            raise CatdogError(
                f"{self._path}: expected the model that was opened, found another that took its place. Open it again."
            )
        return session

    def _decoded(
        self, photos: Iterable[Any]
    ) -> Iterator[tuple[list[tuple[Any, np.ndarray | decoding.ImageError]], np.ndarray]]:
        """Yields batches: each photo with its pixels or why it has none, and all pixels together, [n, size, size, 3].

        Decoding runs ahead in threads, and memory is bounded by a few batches.
        """
        decode = functools.partial(prediction.decoded, recipe=self.recipe)
        decoded = prefetch.map_ahead(decode, enumerate(photos), workers=None, ahead=2 * self._batch_size)
        nothing = np.empty((0, self.recipe.size, self.recipe.size, 3), np.uint8)
        while batch := list(itertools.islice(decoded, self._batch_size)):
            pixels = [picture for _, picture in batch if isinstance(picture, np.ndarray)]
            yield batch, np.stack(pixels) if pixels else nothing

    def stream(
        self, photos: Iterable[Any], heatmaps: bool = True
    ) -> Iterator[tuple[Any, Prediction | decoding.ImageError]]:
        """Yields each photo as it was given and what the model says of it, or why it cannot be decoded, in order.

        Decoding runs ahead of inference in threads, and memory is bounded by a few batches.

        Args:
          photos: as in a call.
          heatmaps: whether they are computed, where the model has them.

        Raises:
          TypeError: something is no photo.
          UsageError: an array has another type or shape.
          CatdogError: the model answers with NaN.
        """
        for batch, stack in self._decoded(photos):
            computed: Iterator[Any] = iter(())
            if len(stack):
                computed = zip(*map(_each, self.compute(stack, heatmaps)), strict=False)
            for photo, picture in batch:
                if isinstance(picture, decoding.ImageError):
                    yield photo, picture
                else:
                    pair, heatmap, strangeness = next(computed)
                    yield photo, Prediction(self.rule.decide(pair, strangeness), heatmap, photo, self.recipe)

    def probabilities(self, photos: np.ndarray) -> np.ndarray:
        """The probabilities of the two classes.

        From uint8 [N, size, size, 3], RGB, as `decoding.decode` makes them by the model's recipe, to
        float32 [N, 2], in the order of `classes`.

        Raises:
          CatdogError: `photos` has another type or shape, or the model answers with NaN.
        """
        return self._outputs(photos, ["probability"])[0]

    def explain(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The `probabilities`, and float32 [N, grid, grid], what each cell gives to the second class's logit, or None."""
        computed = self.compute(photos, heatmaps=True)
        return computed.probabilities, computed.heatmaps

    def compute(self, photos: np.ndarray, heatmaps: bool = False) -> Computed:
        """All that verdicts are made of, and the heat maps where they are asked for and the model has them.

        The photos are as for `probabilities`, which says what is raised.
        """
        further = {"heatmap": heatmaps and self.explains, "strangeness": self.knows_strangers}
        names = ["probability", *(name for name, wanted in further.items() if wanted)]
        found = dict(zip(names, self._outputs(photos, names), strict=True))
        return Computed(found["probability"], found.get("heatmap"), found.get("strangeness"))

    def _outputs(self, photos: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        decoding.check_photos(photos, self.recipe.size)
        starts = range(0, len(photos), self._batch_size)
        parts = [self._run(self._session, outputs, photos[i : i + self._batch_size]) for i in starts]
        if not parts:
            of_a_photo = {"probability": (2,), "heatmap": (self.recipe.grid, self.recipe.grid), "strangeness": ()}
            return [np.empty((0, *of_a_photo[name]), np.float32) for name in outputs]
        whole = [np.concatenate(part) for part in zip(*parts, strict=True)]
        for name, values in zip(outputs, whole, strict=True):
            if name in _DECIDING and not np.isfinite(values).all():
                raise CatdogError(
                    f"{self._path}: expected finite {_DECIDING[name]}, found NaN. Train and export the model again."
                )
        return whole

    def _run(self, session: Any, outputs: list[str], photos: np.ndarray) -> list[np.ndarray]:
        """A batch through a session.

        Raises:
          CatdogError: the device fails, as one does whose memory is full.
        """
        try:
            return session.run(outputs, {"image": photos})
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            if self.device == "cpu":
                raise
            raise CatdogError(
                f"{self._path}: expected an answer of --device {self.device}, found: {devices.reason(error)}. Lower "
                "--batch-size, or choose --device cpu."
            ) from None


def _each(values: np.ndarray | None) -> Iterable[Any]:
    """The values of each photo; None for each where there are none."""
    return itertools.repeat(None) if values is None else values
