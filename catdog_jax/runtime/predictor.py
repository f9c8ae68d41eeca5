"""The exported model, open: photos in, verdicts out. ONNX Runtime, NumPy and Pillow; no JAX."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from catdog_jax.config import PredictConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding, prefetch
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import decision, model_file, prediction
from catdog_jax.runtime.prediction import Prediction

CELLS = "block5_conv3_pool"  # what the convolutions give, in every file of `catdog export`
_CHANNELS = 512


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
    """

    def __init__(self, path: Path | str, *, batch_size: int = 16, threads: int | None = None, spin: bool = True):
        """Opens a model.

        Args:
          path: the file that `catdog export` wrote.
          batch_size: photos that are computed at once at most; it bounds the memory.
          threads: ONNX Runtime's threads; by default one a core.
          spin: whether they wait for work without sleeping: some 5 % faster, on cores that nobody
            else needs.

        Raises:
          CatdogError: the file is missing, is not ONNX, is not a model of `catdog export`, or was
            made for photos that are decoded in a way that this version cannot.
          UsageError: a number is out of range.
        """
        check_arguments(PredictConfig, batch_size=batch_size, threads=threads)
        self._path = path = Path(path)
        self._batch_size = batch_size
        self._threads, self._spin = threads, spin
        self._session = model_file.open_session(path, threads, spin)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.explains: bool = any(output.name == "heatmap" for output in self._session.get_outputs())
        self.classes: tuple[str, str] = model_file.classes(path, self.metadata)
        self.recipe: DecodingRecipe = model_file.recipe(path, self.metadata)
        model_file.check_signature(path, self._session, self.recipe.size)
        self.fingerprint: Fingerprint = model_file.fingerprint(self.metadata)
        self.rule: decision.Rule = model_file.rule(path, self.classes, self.metadata)

    def __repr__(self) -> str:
        heat = "with" if self.explains else "without"
        precision = self.metadata.get("precision", "fp32")
        return f"Predictor({str(self._path)!r}: {' | '.join(self.classes)}, {precision}, {heat} heat maps)"

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
                (cells,) = session.run([CELLS], {"image": stack})
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
        session = model_file.open_session(self._path, self._threads, self._spin, further=CELLS)
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
            computed: Iterator[tuple[np.ndarray, np.ndarray | None]] = iter(())
            if len(stack):
                probabilities, cells = self.explain(stack) if heatmaps else (self.probabilities(stack), None)
                computed = zip(probabilities, itertools.repeat(None) if cells is None else cells, strict=False)
            for photo, picture in batch:
                if isinstance(picture, decoding.ImageError):
                    yield photo, picture
                else:
                    pair, heatmap = next(computed)
                    yield photo, Prediction(self.rule.decide(pair), heatmap, photo, self.recipe)

    def probabilities(self, photos: np.ndarray) -> np.ndarray:
        """The probabilities of the two classes.

        From uint8 [N, size, size, 3], RGB, as `decoding.decode` makes them by the model's recipe, to
        float32 [N, 2], in the order of `classes`.

        Raises:
          CatdogError: `photos` has another type or shape, or the model answers with NaN.
        """
        return self._compute(photos, ["probability"])[0]

    def explain(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The `probabilities`, and float32 [N, grid, grid], what each cell gives to the second class's logit, or None."""
        outputs = self._compute(photos, ["probability", "heatmap"] if self.explains else ["probability"])
        return outputs[0], outputs[1] if self.explains else None

    def _compute(self, photos: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        decoding.check_photos(photos, self.recipe.size)
        starts = range(0, len(photos), self._batch_size)
        parts = [self._session.run(outputs, {"image": photos[i : i + self._batch_size]}) for i in starts]
        if not parts:
            grid = self.recipe.grid
            return [np.empty((0, 2), np.float32), np.empty((0, grid, grid), np.float32)][: len(outputs)]
        whole = [np.concatenate(part) for part in zip(*parts, strict=True)]
        if not np.isfinite(whole[0]).all():
            raise CatdogError(
                f"{self._path}: expected finite probabilities, found NaN. Train and export the model again."
            )
        return whole
