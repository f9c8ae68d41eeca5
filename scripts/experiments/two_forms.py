"""One folder of photos in two forms: squashed, as Kaggle's set is at hand, and some of them at their original size.

    OUT/SPLIT/CLASS/cat.1.jpg                  a link to the squashed photo
    OUT/SPLIT/CLASS/original-size/cat.1.jpg    a link to the same photo as it was taken

Both forms of a photo lie in one split. Those of the test split are left out at original size: they are
judged apart.
"""

from collections.abc import Sequence
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.photos import sources

FOLDER = "original-size"
SPLITS = ("train", "validation")


def link(squashed: Path, originals: Path, out: Path) -> Path:
    """Makes the folder, of links alone, and returns it; links that are there stay.

    Raises:
      CatdogError: an original is not among the squashed photos of its split and class.
    """
    for record in sources.load(str(squashed)).records:
        _link(squashed / record.id, out / record.id)
    for record in sources.load(str(originals), SPLITS).records:
        place = out / record.id
        if not place.is_symlink():
            raise CatdogError(
                f"{record.id}: expected the same photo in {squashed}, found none. Check --data and --originals."
            )
        if record.split in SPLITS:
            _link(originals / record.id, place.parent / FOLDER / place.name)
    return out


def is_original(photo: str) -> bool:
    """Whether a photo of the folder, named by its id, is one at original size.

    Example:
      >>> is_original("train/cats/original-size/cat.1.jpg"), is_original("train/cats/cat.1.jpg")
      (True, False)
    """
    return Path(photo).parent.name == FOLDER


def pairs(photos: Sequence[str]) -> list[list[int]]:
    """The places of the photos that are there in both forms, two each."""
    places = {photo: place for place, photo in enumerate(photos)}
    squashed = {photo: str(Path(photo).parents[1] / Path(photo).name) for photo in filter(is_original, photos)}
    return [[places[other], places[photo]] for photo, other in squashed.items() if other in places]


def _link(photo: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(photo.resolve())
