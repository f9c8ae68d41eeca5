"""A stand-in for the network, so that only the files matter. It imports little: processes start with it."""

import numpy as np

from catdog_jax import features, vgg16, weights


class Blocks:
    """Stands in for the network: means of 7x7 blocks of pixels."""

    batch_size = 4
    precision = "float32"

    def __init__(self, *_):
        pass

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        means = photos.reshape(-1, 7, 32, 7, 32, 3).mean(axis=(2, 4), dtype=np.float32)
        return vgg16.pool_cells(np.tile(means, 171)[..., :512], "avg")[:, None]


def stand_in() -> None:
    features.Extractor = Blocks
    weights.load = lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in")
