"""Near copies: found among photos whatever was done to them, none found where there are none, and never in two splits."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import png
from PIL import Image

from catdog_jax.photos import decoding, near_copies
from catdog_jax.photos.dataset import Record
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.hashes import GREY
from catdog_jax.photos.near_copies import Units
from catdog_jax.photos.sources import load_photos

SHARED = Path(__file__).parents[3] / "shared"


def jpeg(image: Image.Image, quality: int = 90, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def cropped(image: Image.Image) -> Image.Image:
    """Without the outer 1 % of each side."""
    right, bottom = round(image.width / 100), round(image.height / 100)
    return image.crop((right, bottom, image.width - right, image.height - bottom))


COPIES = {
    "encoded at quality 60": lambda image: jpeg(image, 60),
    "half": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "quarter": lambda image: jpeg(image.resize((image.width // 4, image.height // 4))),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "cropped": lambda image: jpeg(cropped(image)),
}


def photos(count: int) -> list[bytes]:
    """Real photos, evenly from all."""
    real = sorted((SHARED / "dogs-vs-cats" / "train").glob("*/*.jpg"))
    if not real:
        pytest.skip("needs the photos of ../shared/dogs-vs-cats, beside the repository")
    return [path.read_bytes() for path in real[:: len(real) // count][:count]]


def found(encoded: list[bytes]) -> set[tuple[int, int]]:
    grey = np.stack([decoding.thumbnail(photo, GREY) for photo in encoded])
    return {(first, second) for first, second in near_copies.pairs(grey).tolist()}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_real_photos_are_found_and_nothing_else(kind):
    originals = photos(150)
    copies = [COPIES[kind](decoding.load(photo).image) for photo in originals]
    expected = {(i, i + len(originals)) for i in range(len(originals))}
    pairs = found(originals + copies)
    assert pairs <= expected
    assert len(pairs) >= 0.98 * len(expected)


def test_a_thumbnail_is_nearly_the_whole_photo_made_small(tmp_path):
    """Against the decoder of the network, at full size; upright by EXIF; of every kind of file."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((60, 80, 1))).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    png = io.BytesIO()
    image.save(png, "PNG")
    for photo in (
        jpeg(image),
        jpeg(image, exif=turned),
        jpeg(image.convert("L")),
        jpeg(image.convert("CMYK")),
        png.getvalue(),
    ):
        whole = decoding.load(photo).image.convert("L").resize((GREY, GREY), Image.Resampling.BOX)
        small = decoding.thumbnail(photo, GREY)
        assert (small.shape, small.dtype) == ((GREY, GREY), np.uint8)
        assert near_copies.correlations(small[None], np.asarray(whole)[None])[0] > 0.99


def test_what_is_no_photo_has_no_picture_and_is_alone():
    bomb = png(2**15, 2**15, b"")
    good = jpeg(drawing.draw("cat", np.random.default_rng(0), 96))
    files = [good, good[: len(good) // 2], b"", b"text", bomb, jpeg(Image.new("RGB", (64, 64), "red"))]
    records = [Record(f"{i}", 0, "train", len(one), lambda one=one: one) for i, one in enumerate(files)]
    looks = list(near_copies.look(records, pictures=True))
    assert [grey is not None for _, grey in looks] == [True] + [False] * 5
    assert all(len(digest) == 32 for digest, _ in looks)
    assert all(grey is None for _, grey in near_copies.look(records, pictures=False))
    with pytest.raises(decoding.ImageError, match="expected at most 67,108,864 pixels"):
        decoding.thumbnail(bomb, GREY)


def test_units_are_what_is_joined_by_way_of_others():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 60, (30, 2)).tolist()
    units = Units[int]()
    for one, other in pairs:
        units.join(one, other)
    reached = np.eye(60, dtype=bool)
    for one, other in pairs:
        reached[one, other] = reached[other, one] = True
    for _ in range(6):
        reached = reached @ reached
    assert [units.top(i) for i in range(60)] == [int(np.flatnonzero(row)[0]) for row in reached]


def folder(root: Path, kinds: int = 15) -> Path:
    """A folder of drawn photos; of some a re-encoded, a small and a mirrored copy."""
    for label, kind in enumerate(("cat", "dog")):
        (root / f"{kind}s").mkdir(parents=True)
        for i in range(kinds):
            image = drawing.draw(kind, np.random.default_rng([label, i]), 96)
            (root / f"{kind}s" / f"{i}.jpg").write_bytes(jpeg(image))
            for name in ("encoded at quality 60", "half", "mirrored") if i < 6 else ():
                (root / f"{kind}s" / f"{i} {name}.jpg").write_bytes(COPIES[name](image))
    return root


def test_near_copies_never_lie_in_two_splits(tmp_path):
    dataset = load_photos(folder(tmp_path))
    splits: dict[str, set[str]] = {}
    for record in dataset.records:
        splits.setdefault(record.id.removesuffix(".jpg").split(" ")[0], set()).add(record.split)
    assert all(len(places) == 1 for places in splits.values())
    assert "48 photos are near copies of others, and lie in one split with them" in dataset.notes
    assert all({record.label for record in dataset.split(split)} == {0, 1} for split in ("train", "validation", "test"))


def test_too_many_photos_are_not_compared_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(near_copies, "MAX_PHOTOS", 20)
    monkeypatch.setattr(decoding, "thumbnail", None)
    (note,) = load_photos(folder(tmp_path, 12)).notes
    assert note.startswith("near copies were not looked for among 60 photos, because they are more than 20;")


def test_photos_that_all_belong_together_cannot_be_divided(tmp_path):
    image = drawing.draw("cat", np.random.default_rng(0), 96)
    for kind in ("cats", "dogs"):
        (tmp_path / kind).mkdir()
        for i in range(12):
            other = image if kind == "cats" else drawing.draw("dog", np.random.default_rng(i), 96)
            (tmp_path / kind / f"{i}.jpg").write_bytes(jpeg(other, 80 + i))
    with pytest.raises(
        Exception, match=r"expected photos of 'cats' in at least 3 groups, .* found 12 in 1. Groups, copies"
    ):
        load_photos(tmp_path)
