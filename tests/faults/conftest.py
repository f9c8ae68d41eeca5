"""Six photos, one of each class in each split."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small") / "photos"
    for seed, (split, kind) in enumerate(itertools.product(("train", "validation", "test"), ("cats", "dogs"))):
        folder = root / split / kind
        folder.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "0.png")
    return root
