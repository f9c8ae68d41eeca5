"""A training's course while it goes on: log.jsonl, a line an epoch and a trial, and TensorBoard's event files."""

import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catdog_jax import __version__
from catdog_jax.console import say
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.heads import event_files
from catdog_jax.heads.event_files import EventFile, Setting
from catdog_jax.heads.head import Epoch

LOG = "log.jsonl"
_TAGS = {  # a field of an epoch -> the tag of its curve
    "train_loss": "log_loss/train",
    "validation_loss": "log_loss/validation",
    "validation_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
}
_JUDGED = ("log_loss/validation", "accuracy/validation")


class TrainingLog:
    """The log of one training, or of all trials of a sweep; without a folder it writes nothing.

    Every line and record is written as it comes, so that `tail -f` and TensorBoard show it at once. A log that
    cannot be written any more ends with a remark; the training goes on.
    """

    def __init__(self, folder: Path | str | None):
        """A log in a folder, which is made; `start` begins the log.

        Raises:
          CatdogError: nothing can be written there.
          UsageError: it is no local folder, or holds another log.
        """
        self._folder = None if folder is None else Path(folder)
        self._files: dict[int, EventFile] = {}
        self._swept = False
        if self._folder is not None:
            self._check(self._folder)

    @staticmethod
    def _check(folder: Path) -> None:
        if ":/" in folder.as_posix():
            raise UsageError(f"--log-dir {folder}: expected a folder of this machine, found a URL. Name a folder.")
        try:
            there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        except OSError as error:
            raise UsageError(f"--log-dir {folder}: expected a folder, found: {error.strerror}. Name another.") from None
        if logs := [name for name in there if name == LOG or name.startswith((event_files.PREFIX, "trial-"))]:
            raise UsageError(
                f"--log-dir {folder}: expected no log of another training, found {logs[0]}. Name another folder, or remove it."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _unwritable(folder, error) from None

    def start(self, trials: int | None, recipe: Mapping[str, Any], seed: int) -> None:
        """Says what begins: a sweep of so many trials, or one training, None, with its settings.

        Raises:
          CatdogError: the log cannot be written; nothing is trained then.
        """
        self._swept = trials is not None
        if self._folder is None:
            return
        about = {"event": "start", "version": __version__, "seed": seed, "trials": trials or 1, "recipe": {**recipe}}
        try:
            self._line(about)
            if self._swept:
                EventFile(self._folder).experiment(_settings(recipe), _JUDGED)
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def begin(self, trial: int, recipe: Mapping[str, Any]) -> None:
        """A trial of these settings begins; 1 is the preset, and the only one where nothing is swept."""
        if self._folder is not None:
            place = self._folder / f"trial-{trial:03}" if self._swept else self._folder
            self._attempt(lambda: self._begin(trial, place, recipe))

    def _begin(self, trial: int, place: Path, recipe: Mapping[str, Any]) -> None:
        self._files[trial] = file = EventFile(place)
        if not self._swept:
            file.experiment(_settings(recipe), _JUDGED)
        file.begin(_settings(recipe))

    def epoch(self, trial: int, epoch: Epoch) -> None:
        """An epoch of a trial is over."""
        if self._folder is not None:
            row = epoch._asdict()
            self._attempt(lambda: self._line({"event": "epoch", "trial": trial, **row}))
            curves = {tag: row[name] for name, tag in _TAGS.items()}
            self._attempt(lambda: self._files[trial].scalars(epoch.epoch, curves))

    def end(self, trial: int, recipe: Mapping[str, Any], best: Epoch) -> None:
        """A trial is over; `best` is the epoch that it keeps."""
        if self._folder is not None:
            about = {"event": "trial", "trial": trial, "recipe": {**recipe}, "best": best._asdict()}
            self._attempt(lambda: self._line(about))
            self._attempt(lambda: self._files[trial].end())

    def _line(self, values: dict[str, Any]) -> None:
        assert self._folder is not None
        text = json.dumps(_finite({"time": round(time.time(), 3), **values}), allow_nan=False)
        with open(self._folder / LOG, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _attempt(self, write: Any) -> None:
        """Writes, unless that failed before."""
        if self._folder is None:
            return
        try:
            write()
        except OSError as error:
            say(f"{self._folder}: the log ends here: {error.strerror or error}. The training goes on.", "yellow")
            self._folder = None


def _unwritable(folder: Path, error: OSError) -> CatdogError:
    return CatdogError(f"{folder / LOG}: cannot be written: {error.strerror or error}. Choose another --log-dir.")


def _settings(recipe: Mapping[str, Any]) -> dict[str, Setting]:
    """A recipe as TensorBoard shows it: the widths of the layers as text."""
    shown = {
        name: "x".join(map(str, value)) or "linear" if name == "hidden" else value for name, value in recipe.items()
    }
    return {name: value for name, value in shown.items() if isinstance(value, Setting)}


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
