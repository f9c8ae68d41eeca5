"""The embedded demo data set: seeded, varied, licence-clean drawings of cats and dogs. NumPy and Pillow only."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from catdog_jax.console import progress_bar
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import folders
from catdog_jax.photos.dataset import SPLITS
from catdog_jax.photos.demo.animals import KINDS, Kind
from catdog_jax.photos.demo.scenes import scene
from catdog_jax.photos.splitting import Found

VERSION = 1  # raised by every change that alters a picture
COUNTS = {"train": 80, "validation": 30, "test": 30}  # pictures of each class


def load(source: str = "demo", needed: Sequence[str] = SPLITS) -> Found:
    """The pictures of the demo; see `draw_once`."""
    return folders.load_folder(draw_once(), source, needed)


def draw(kind: Kind, rng: np.random.Generator, size: int = 224) -> Image.Image:
    """Draws one animal: an RGB picture of `size` x `size` pixels that follows from `rng` alone."""
    return scene(kind, rng, (size, size))


def draw_dataset(root: Path, seed: int = 0, counts: Mapping[str, int] = COUNTS) -> None:
    """Writes ROOT/SPLIT/{cats,dogs}/{cat,dog}.NNN.jpg: `counts[split]` pictures of each class, of 200 to 320 pixels a side.

    Each picture has a generator of its own, seeded with (seed, split, class, number): counts can
    change without changing the pictures, and the same seed gives the same files (with the same
    versions of NumPy and Pillow).
    """
    jobs = [
        (split, label, number) for split in counts for label in range(len(KINDS)) for number in range(counts[split])
    ]
    with progress_bar("pictures") as progress:
        for split, label, number in progress.track(jobs, description="drawing the demo data set"):
            rng, kind = np.random.default_rng([seed, SPLITS.index(split), label, number]), KINDS[label]
            path = root / split / f"{kind}s" / f"{kind}.{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            width, height = rng.integers(200, 321, 2).tolist()
            scene(kind, rng, (width, height)).save(path, quality=int(rng.integers(82, 95)))


def draw_once() -> Path:
    """The root of the default data set, below `atomic.cache_directory()`: drawn by the first call, found by later ones.

    It is drawn beside its place and renamed, so that a killed run leaves no half data set; of two
    processes that draw at once, both end with the whole of it.

    Raises:
      CatdogError: the directory cannot be written, with the path and the reason.
    """
    root = atomic.cache_directory() / f"demo-v{VERSION}"
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        if not root.is_dir():
            draw_dataset(temporary, counts=COUNTS)
            os.replace(temporary, root)
    except OSError as error:
        if not root.is_dir():  # otherwise another process was faster
            raise CatdogError(
                f"{root}: cannot be drawn: {error.strerror or error}. Free space or set CATDOG_CACHE."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root
