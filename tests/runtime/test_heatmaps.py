"""Overlays: colours by the evidence for the verdict, in the photo's own shape, named after the photos."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT, FIRST, DecodingRecipe
from catdog_jax.runtime import heatmaps


def encoded(width: int, height: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 60, 120)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def spot(y: int, x: int, value: float) -> np.ndarray:
    cells = np.zeros((7, 7), np.float32)
    cells[y, x] = value
    return cells


@pytest.mark.parametrize(
    ("value", "second", "alpha"), [(20, True, 165), (20, False, 0), (-20, False, 165), (-20, True, 0)]
)
def test_only_evidence_for_the_verdict_is_painted(value, second, alpha):
    colours = heatmaps.tint(spot(2, 5, value), second)
    assert colours.shape == (7, 7, 4)
    assert colours[2, 5].tolist() == ([255, 40, 0, 165] if alpha else [255, 200, 0, 0])
    assert colours[..., 3].sum() == alpha


def test_next_to_no_evidence_is_next_to_no_colour():
    assert heatmaps.tint(spot(0, 0, heatmaps.LEAST_SCALE / 10), True)[0, 0, 3] in (16, 17)  # 165 / 10


def test_the_page_paints_on_the_same_scale():
    page = Path(heatmaps.__file__).parents[1] / "page" / "page.js"
    assert float(re.search(r"LEAST_SCALE = ([\d.]+);", page.read_text())[1]) == heatmaps.LEAST_SCALE


def test_an_overlay_has_the_shape_of_the_photo_and_is_red_where_the_evidence_is():
    with Image.open(
        io.BytesIO(heatmaps.overlay(decoding.load(encoded(700, 350)).image, spot(1, 6, 30), True, FIRST))
    ) as found:
        assert (found.size, found.mode) == ((700, 350), "RGB")
        pixels = np.asarray(found, int)
    redness = pixels[..., 0] - pixels[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    assert (y * 7 // 350, x * 7 // 700) == (1, 6)
    assert pixels[300, 100].tolist() == [10, 60, 120]


def test_a_large_photo_makes_a_bounded_overlay_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(
        io.BytesIO(heatmaps.overlay(decoding.load(encoded(3000, 1500, exif=exif)).image, spot(0, 0, 30), True, FIRST))
    ) as found:
        assert found.size == (512, 1024)


@pytest.mark.parametrize(
    ("resize", "cell", "centre"),
    [
        ("squash", (1, 5), (64, 471)),
        ("halfway", (1, 5), (64, 435)),
        ("crop", (1, 5), (64, 386)),
        ("letterbox", (3, 5), (150, 471)),
    ],
)
def test_the_map_lies_where_the_model_saw_the_photo(resize, cell, centre):
    """A photo of 600 x 300: the square of a crop is its middle, that of a letterbox reaches beyond it."""
    found = heatmaps.overlay(Image.new("RGB", (600, 300), "blue"), spot(*cell, 30), True, DecodingRecipe(resize=resize))
    red = np.asarray(Image.open(io.BytesIO(found)), int)[..., 0]
    assert red.shape == (300, 600)
    assert np.abs(np.subtract(np.unravel_index(red.argmax(), red.shape), centre)).max() < 25
    y, x = np.mgrid[:300, :600]
    assert red[(abs(y - centre[0]) > 180) | (abs(x - centre[1]) > 180)].max() == 0


def test_evidence_beside_a_letterboxed_photo_is_not_painted():
    found = heatmaps.overlay(Image.new("RGB", (600, 300)), spot(0, 3, 30), True, DecodingRecipe(resize="letterbox"))
    assert not np.asarray(Image.open(io.BytesIO(found))).any()


def test_photos_of_one_name_have_overlays_of_their_own(tmp_path):
    folder = heatmaps.Folder(tmp_path / "out", DEFAULT)
    assert not (tmp_path / "out").exists()
    names = []
    for parent in ("a", "b", "C"):
        photo = tmp_path / parent / ("REX.png" if parent == "C" else "rex.png")
        photo.parent.mkdir()
        photo.write_bytes(encoded(30, 20))
        names.append(folder.write(photo, spot(0, 0, 1), True).name)
    assert names == ["rex.png", "rex-2.png", "REX-3.png"]  # on a system that ignores case too
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_a_name_as_long_as_names_can_be_and_not_in_utf_8(tmp_path):
    photo = Path(str(tmp_path) + "/" + "ü" * 120 + "\udcff.png")
    photo.write_bytes(encoded(30, 20))
    assert heatmaps.Folder(tmp_path / "out", DEFAULT).write(photo, spot(0, 0, 1), True).name == "ü" * 100 + ".png"


def test_a_photo_that_went_away_is_an_image_error(tmp_path):
    with pytest.raises(decoding.ImageError, match="found nothing"):
        heatmaps.Folder(tmp_path, DEFAULT).write(tmp_path / "gone.jpg", spot(0, 0, 1), True)
