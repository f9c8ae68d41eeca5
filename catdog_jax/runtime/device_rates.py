"""What ONNX Runtime reaches on this machine: each device that it has a provider for, timed, and compared with the CPU."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catdog_jax.errors import UsageError
from catdog_jax.photos import decoding
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.demo.animals import KINDS
from catdog_jax.runtime import devices
from catdog_jax.runtime.predictor import Predictor

_BATCH = 8


class Reached(NamedTuple):
    """A model on a device.

    Attributes:
      device: a name of `devices.PROVIDERS`.
      works: whether the model runs there.
      said: where it runs, or why it does not.
      rate: photos a second; 0 where it does not run.
      difference: the largest of a probability from the CPU's, on drawings.
    """

    device: str
    works: bool
    said: str
    rate: float = 0.0
    difference: float = 0.0


def reached(model: Path, seconds: float) -> list[Reached]:
    """Times a model on every device that is installed, for so many seconds each; the CPU comes first.

    Raises:
      CatdogError: the model cannot be used.
    """
    drawn = [drawing.draw(kind, np.random.default_rng(seed)) for seed in range(_BATCH // 2) for kind in KINDS]
    on_cpu = Predictor(model, device="cpu")
    photos = np.stack([decoding.square(picture, on_cpu.recipe) for picture in drawn])
    expected = on_cpu.probabilities(photos)
    found = []
    for device in devices.installed():
        try:
            predictor = Predictor(model, device=device)  # type: ignore[arg-type] # a name of `devices.PROVIDERS`
        except UsageError as error:
            found.append(Reached(device, False, str(error).partition("found: ")[2].partition(". Check its")[0]))
            continue
        difference = float(np.abs(predictor.probabilities(photos) - expected).max())

        def work(predictor: Predictor = predictor) -> int:
            return len(predictor.probabilities(photos))

        found.append(Reached(device, True, str(predictor.placement), rate(work, seconds), difference))
    return found


def rate(work: Callable[[], int], seconds: float) -> float:
    """How much is done a second by calls of `work`, each of which tells how much it did; at least one is made."""
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += work()
    return done / elapsed


def telemetry(environment: Mapping[str, str]) -> str:
    """Whether ONNX Runtime reports to Microsoft: the package says no by its variable, which the user may have set otherwise."""
    said = environment.get("ORT_DISABLE_TELEMETRY", "")
    off = said.strip().lower() in ("1", "true", "yes", "y", "on")
    return "off" if off else f"on, since ORT_DISABLE_TELEMETRY is set to {said!r}"
