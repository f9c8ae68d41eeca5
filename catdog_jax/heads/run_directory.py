"""The files of a run directory: their names, and which of them a new head makes stale.

A run directory holds one head. Other stages put what they make of it (figures, pages, models)
beside it under names that are listed here; with a new head it would describe the wrong one, so a
training removes it first. A file whose name the user chose is the user's and stays; metrics,
settings and models say which head they are of, and `catdog verify` compares.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from catdog_jax.config import Precision
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, sealed
from catdog_jax.files.buckets import Location

TEST, FP32 = "test", "fp32"  # the split and the precision whose files have no suffix
FOLDS = "folds"  # the split whose photos are those of the cross-validation
HEAD, SETTINGS, WHOLE, COMPARISON = "head.safetensors", "config.json", "run.json", "models.json"
METRICS, REPORTS = (
    tuple(name.format(end) for end in ("", "-train", "-validation", "-folds"))
    for name in ("metrics{}.json", "report{}.html")
)
MODELS = tuple(f"model{'' if name == FP32 else f'-{name}'}.onnx" for name in get_args(Precision))
# What `catdog evaluate` and `catdog export` make of a head, and the settings of the `catdog run` that led to it
DERIVED = (*METRICS, *REPORTS, *MODELS, COMPARISON, WHOLE)
SWEEP = ("sweep.csv", "sweep.png")  # of the `catdog train --sweep` that chose the head
OUT_OF_FOLD = "out-of-fold.csv"  # of the `catdog train --folds` that judged it


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run's files, whether they exist or not."""

    path: Path

    @property
    def head(self) -> Path:
        """The trained head, by `catdog train`."""
        return self.path / HEAD

    @property
    def history(self) -> Path:
        """A row for each epoch, by `catdog train`."""
        return self.path / "history.csv"

    @property
    def out_of_fold(self) -> Path:
        """A row for each photo of a cross-validation, by `catdog train --folds`."""
        return self.path / OUT_OF_FOLD

    @property
    def settings(self) -> Path:
        """How the head was trained, by `catdog train`, which writes it last."""
        return self.path / SETTINGS

    @property
    def whole(self) -> Path:
        """The settings of `catdog run`, where it trained the head."""
        return self.path / WHOLE

    @property
    def comparison(self) -> Path:
        """Exported models side by side, by `catdog evaluate --model`."""
        return self.path / COMPARISON

    def metrics(self, split: str = TEST) -> Path:
        """The figures of the head on a split, by `catdog evaluate`."""
        return self.path / f"metrics{_suffix(split, TEST)}.json"

    def report(self, split: str = TEST) -> Path:
        """The page that shows them, by `catdog evaluate`."""
        return self.path / f"report{_suffix(split, TEST)}.html"

    def model(self, precision: str = FP32) -> Path:
        """The head and the convolutions as one file, by `catdog export`."""
        return self.path / f"model{_suffix(precision, FP32)}.onnx"

    def make_way(self, same_head: bool, files: Collection[str]) -> list[str]:
        """Removes what the next training makes stale, before it writes its head, so that a kill leaves no lie.

        `same_head`: whether the head that is there is the next one already; `files`:
        the names of those that the training writes beside its head. Gives the names of
        the removed files.
        """
        stale = [
            *(() if same_head else DERIVED),
            *(name for name in (*SWEEP, OUT_OF_FOLD) if not same_head or name not in files),
        ]
        names = [name for name in stale if (self.path / name).is_symlink() or (self.path / name).is_file()]
        for name in names:
            (self.path / name).unlink()
        return names

    def write_settings(self, settings: dict[str, Any], files: Mapping[str, bytes]) -> None:
        """Writes the other files of a training, and last the settings with the hash of each, for `catdog verify`."""
        for name, content in files.items():
            atomic.write_bytes(self.path / name, content)
        digests = {name: atomic.sha256(content) for name, content in files.items()}
        sealed.write_sealed_json(self.settings, settings | {"files": digests})

    def read_settings(self, head_sha256: str) -> dict[str, Any]:
        """How the head was trained. Versions before did not write down of which head the settings are.

        Raises:
          CatdogError: there are none, or they are of another head: the training was killed before
            it wrote them.
        """
        settings = sealed.read_json(self.settings, "run's settings file")
        check_head(self.settings, settings.get("head_sha256"), head_sha256)
        return settings


class OtherHeadError(CatdogError):
    """A file of a run directory is of another head than the one beside it."""


def check_head(path: Location, found: object, expected: str) -> None:
    """Compares the head that a file says it is of, None where it does not say, with the one that lies beside it.

    Raises:
      OtherHeadError: they differ.
    """
    if found is not None and found != expected:
        raise OtherHeadError(
            f"{path}: expected a file of the head beside it, sha256 {expected[:12]}…, found one of {str(found)[:12]}…. "
            "Run the stage that writes it again."
        )


def _suffix(name: str, plain: str) -> str:
    return "" if name == plain else f"-{name}"
