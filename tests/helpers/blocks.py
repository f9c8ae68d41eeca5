"""A stand-in for the network, so that only the files matter. It imports little: processes start with it."""

import numpy as np

from catdog_jax.backbone import weights
from catdog_jax.backbone.pooling import Pool
from catdog_jax.features import extractor


class Blocks:
    """Stands in for the network: the means of blocks of 32x32 pixels, so that each row can be checked."""

    batch_size = 4
    precision = "float32"
    note = ""

    def __init__(self, pretrained, *, pool="avg", views=("original",), size=224, **_):
        self.pool, self.views, self.size = pool, views, size

    def dispatch(self, photos: np.ndarray) -> np.ndarray:
        assert photos.shape == (self.batch_size, self.size, self.size, 3)
        assert photos.dtype == np.uint8
        flipped = {"original": photos, "mirror": photos[:, :, ::-1]}
        return np.stack([blocks(flipped[view], self.pool) for view in self.views], axis=1)


def blocks(photos: np.ndarray, pool: str) -> np.ndarray:
    means = photos.reshape(-1, photos.shape[1] // 32, 32, photos.shape[2] // 32, 32, 3).mean(
        axis=(2, 4), dtype=np.float32
    )
    cells = np.tile(means, 171)[..., :512]
    return cells if pool == "none" else Pool(pool).apply(cells)


def stand_in() -> None:
    extractor.Extractor = Blocks
    weights.load = lambda *_: weights.Weights({}, "torch", "0" * 64, "stand-in")
