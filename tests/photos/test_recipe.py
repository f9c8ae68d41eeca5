"""The recipe of decoding: its JSON, what is no recipe, and the pixels that each makes of a photo."""

import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.photos import decoding
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DEFAULT, FILL, FIRST, DecodingRecipe

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


def photo(width: int, height: int) -> Image.Image:
    """A picture as smooth as photos of this size are, with edges as sharp."""
    rng = np.random.default_rng([width, height])
    coarse = Image.fromarray(rng.integers(0, 256, (14, 18, 3), np.uint8))
    picture = coarse.resize((width // 4, height // 4), Image.Resampling.BICUBIC)
    noisy = np.asarray(picture, int) + rng.normal(0, 12, (height // 4, width // 4, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 90} if form == "JPEG" else {}) | options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


# As JSON

OF_BEFORE = {  # the fingerprint of features that were published before there was another recipe
    "weights_sha256": "69c2781b2dae8de127a60fb201a187b6718b7257dad76fcb3b13155b2f589682",
    "preprocessing": "torch",
    "preprocessing_version": 1,
    "image": {
        "version": 1,
        "width": 224,
        "height": 224,
        "resize": "squash",
        "filter": "bicubic",
        "antialias": True,
    },
    "pool": "avg",
    "views": ["original"],
    "dtype": "float16",
    "precision": "float32",
    "shard_size": 15000,
    "classes": ["cats", "dogs"],
    "inputs": 19000,
    "inputs_sha256": "f1be4ddd084d8e1ac8a6fa0812a53574c867f3796a44e0f800e531612f40ce3a",
}


def test_the_json_of_the_first_recipe_is_that_of_files_from_before():
    """To the byte, so that caches, heads and models that exist stay usable."""
    assert json.dumps(FIRST.to_json()) == (
        '{"version": 1, "width": 224, "height": 224, "resize": "squash", "filter": "bicubic", "antialias": true}'
    )
    assert Fingerprint.from_json(OF_BEFORE).recipe == FIRST
    assert Fingerprint.from_json(OF_BEFORE).to_json() == OF_BEFORE
    assert Fingerprint().recipe == FIRST


def test_the_published_cache_has_the_default_recipe():
    assert FeatureCache.open(ARTIFACTS / "features").fingerprint.recipe == DEFAULT


@pytest.mark.parametrize("resize", ["halfway", "squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [96, 224, 320, 512])
@pytest.mark.parametrize("version", [1, 2])
def test_a_recipe_travels(version, size, resize):
    recipe = DecodingRecipe(version, size, resize)
    assert DecodingRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.grid * 32 == size


WRONG = {
    "no object": ([], "recipe: expected a JSON object, found list."),
    "an old version": ({"version": 0}, "recipe: version: expected 1 or 2, found 0. Extract and train again."),
    "a new version": ({"version": 3}, "recipe: version: expected 1 or 2, found 3. Upgrade: pip install -U catdog-jax."),
    "a truth for a version": ({"version": True}, "recipe: version: expected 1 or 2, found True."),
    "no version": ({"version": None}, "recipe: version: expected 1 or 2, found None."),
    "an odd width": ({"width": 225}, "recipe: width: expected a multiple of 32 from 96 to 512, found 225."),
    "a width in words": ({"width": "224"}, "recipe: width: expected a multiple of 32 from 96 to 512, found '224'."),
    "a small width": ({"width": 64}, "recipe: width: expected a multiple of 32 from 96 to 512, found 64."),
    "no square": ({"height": 256}, "recipe: height: expected 224, found 256."),
    "another resize": ({"resize": "fit"}, "recipe: resize: expected halfway, squash, crop or letterbox, found 'fit'."),
    "a list of resizes": (
        {"resize": ["crop"]},
        "recipe: resize: expected halfway, squash, crop or letterbox, found ['crop'].",
    ),
    "another filter": ({"filter": "box"}, "recipe: filter: expected 'bicubic', found 'box'."),
    "aliases": ({"antialias": False}, "recipe: antialias: expected True, found False."),
    "a number for a truth": ({"antialias": 1}, "recipe: antialias: expected True, found 1."),
    "a field too many": ({"gamma": 2.2}, "recipe: gamma: expected none, found 2.2."),
    "a fill of a squash": ({"fill": [0, 0, 0]}, "recipe: fill: expected none, found [0, 0, 0]."),
    "a letterbox without": ({"resize": "letterbox"}, "recipe: fill: expected [124, 116, 104], found none."),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_recipe_is_told_by_its_field(case):
    value, message = WRONG[case]
    with pytest.raises(CatdogError) as caught:
        DecodingRecipe.from_json(FIRST.to_json() | value if isinstance(value, dict) else value)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["version", "width", "height", "resize", "filter", "antialias"])
def test_a_field_that_is_missing_is_named(field):
    value = {name: one for name, one in FIRST.to_json().items() if name != field}
    with pytest.raises(CatdogError, match=rf"^recipe: {field}: expected .*, found none\."):
        DecodingRecipe.from_json(value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 100}, "--size: expected a multiple of 32 from 96 to 512, found 100."),
        ({"size": 544}, "--size: expected a multiple of 32 from 96 to 512, found 544."),
        ({"resize": "fit"}, "--resize: expected halfway, squash, crop or letterbox, found 'fit'."),
        ({"version": 3}, "--version: expected 1 or 2, found 3."),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(UsageError) as caught:
        DecodingRecipe(**fields)
    assert str(caught.value).startswith(message)


def test_the_difference_of_two_recipes_is_named():
    assert DEFAULT.difference(DEFAULT) == ""
    assert DEFAULT.difference(FIRST) == "version"
    assert DEFAULT.difference(DecodingRecipe(resize="squash")) == "resize"
    assert DEFAULT.difference(DecodingRecipe(size=320, resize="crop")) == "size"


# Squares


def quarters(width: int, height: int) -> Image.Image:
    """Red left, blue right; a green frame of 10 pixels at the ends of the longer side."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("blue", (width // 2, 0, width, height))
    for box in ((0, 0, 10, height), (width - 10, 0, width, height)) if width > height else ():
        picture.paste("lime", box)
    return picture


@pytest.mark.parametrize("version", [1, 2])
def test_a_crop_is_the_middle_of_the_photo(version):
    """Against the same pixels cut out first: away from the edges, beyond which the kernel looks, they are the same."""
    picture = photo(640, 320)
    found = decoding.decode(encoded(picture, "PNG"), DecodingRecipe(version, 320, "crop"))
    np.testing.assert_array_equal(found, np.asarray(picture)[:, 160:480])
    smaller = decoding.decode(encoded(picture, "PNG"), DecodingRecipe(version, 160, "crop"))
    cut = picture.crop((160, 0, 480, 320)).resize((160, 160), Image.Resampling.BICUBIC)
    assert difference(smaller[:, 3:-3], np.asarray(cut)[:, 3:-3]) <= 1
    upright = decoding.decode(encoded(quarters(400, 200), "PNG"), DecodingRecipe(version, 224, "crop"))
    assert not (upright == (0, 255, 0)).all(axis=2).any()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("upright", [False, True])
def test_halfway_cuts_the_longer_side_to_the_geometric_mean_and_squashes_the_rest(version, upright):
    picture = photo(640, 160)
    middle = picture.crop((160, 0, 480, 160))
    if upright:
        picture, middle = (one.transpose(Image.Transpose.ROTATE_90) for one in (picture, middle))
    found = decoding.decode(encoded(picture, "PNG"), DecodingRecipe(version, 224, "halfway"))
    squashed = np.asarray(middle.resize((224, 224), Image.Resampling.BICUBIC))
    inner = slice(4, -4)  # away from the edges, beyond which the kernel looks
    assert difference(found[inner, inner], squashed[inner, inner]) <= (1 if version == 1 else 2)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("width", "height"), [(640, 320), (320, 640), (333, 100), (100, 333), (900, 1), (50, 50)])
def test_a_letterbox_keeps_the_shape_of_the_photo(version, width, height):
    found = decoding.decode(
        encoded(Image.new("RGB", (width, height), "red"), "PNG"), DecodingRecipe(version, 224, "letterbox")
    )
    red = (found == (255, 0, 0)).all(axis=2)
    assert ((found == FILL).all(axis=2) | red).all()
    rows, columns = red.any(axis=1), red.any(axis=0)
    expected = [max(1, round(224 * side / max(width, height))) for side in (height, width)]
    assert [rows.sum(), columns.sum()] == expected
    assert red.sum() == rows.sum() * columns.sum()
    for used in (rows, columns):
        first, last = np.flatnonzero(used)[[0, -1]]
        assert 0 <= (len(used) - 1 - last) - first <= 1, "in the middle"


@pytest.mark.parametrize("resize", ["halfway", "squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [96, 320])
def test_a_small_photo_is_the_same_in_both_versions(resize, size):
    for data in (encoded(photo(400, 300)), encoded(photo(150, 180), "PNG"), encoded(photo(191, 380), "WEBP")):
        if size == 96 and data[:2] == b"\xff\xd8":
            continue  # it is large for so small a square
        one, other = (decoding.decode(data, DecodingRecipe(version, size, resize)) for version in (1, 2))
        np.testing.assert_array_equal(one, other)


# What version 2 decodes scaled

LARGE = {
    "RGB": encoded(photo(2016, 1512)),
    "odd": encoded(photo(2019, 1513)),
    "tall": encoded(photo(1512, 2016)),
    "progressive": encoded(photo(2016, 1512), progressive=True),
    "4:4:4": encoded(photo(2016, 1512), subsampling=0),
    "4:2:0": encoded(photo(2016, 1512), subsampling=2),
    "grey": encoded(photo(2016, 1512).convert("L")),
    "CMYK": encoded(photo(2016, 1512).convert("CMYK")),
    "MPO": encoded(photo(2016, 1512), "MPO", save_all=True, append_images=[photo(400, 300)]),
    "PNG": encoded(photo(1344, 1120), "PNG", compress_level=1),
    "WebP": encoded(photo(1344, 1120), "WEBP", lossless=True, quality=0, method=0),
    **{f"EXIF {i}": encoded(photo(1611, 1205), exif=turned(i)) for i in range(2, 9)},
}


@pytest.mark.parametrize("resize", ["halfway", "squash", "crop", "letterbox"])
@pytest.mark.parametrize("name", LARGE)
def test_a_large_photo_is_nearly_the_same_in_both_versions(name, resize):
    one, other = (decoding.decode(LARGE[name], DecodingRecipe(version, 224, resize)) for version in (1, 2))
    off = np.abs(one.astype(int) - other)
    assert off.any(), "it was reduced first"
    assert np.quantile(off, 0.999) <= 2
    assert off.max() <= 6


@pytest.mark.parametrize(
    ("size", "resize", "scaled"),
    [
        ((896, 896), "squash", (448, 448)),
        ((895, 2000), "squash", (895, 2000)),
        ((4032, 3024), "squash", (1008, 756)),
        ((4032, 3024), "crop", (1008, 756)),
        ((3024, 4032), "letterbox", (378, 504)),
        ((4032, 100), "letterbox", (504, 13)),
        ((4032, 100), "crop", (4032, 100)),
        ((500, 375), "letterbox", (500, 375)),
        ((896, 300), "letterbox", (448, 150)),
    ],
)
def test_twice_the_square_remains_along_each_side_that_matters(monkeypatch, size, resize, scaled):
    seen, square = [], decoding.square
    monkeypatch.setattr(decoding, "square", lambda image, *rest: seen.append(image.size) or square(image, *rest))
    pixels = decoding.decode(encoded(Image.new("RGB", size)), DecodingRecipe(2, 224, resize))
    assert (seen, pixels.shape) == ([scaled], (224, 224, 3))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("name", ["RGB", "progressive", "grey", "CMYK"])
def test_a_truncated_large_photo_is_an_error_in_both_versions(name, share):
    data = LARGE[name]
    for recipe in (FIRST, DEFAULT):
        with pytest.raises(decoding.ImageError, match="truncated"):
            decoding.decode(data[: int(share * len(data))], recipe)


def test_decoding_scaled_keeps_the_limits(monkeypatch):
    """The size is that of the file, not of what is decoded of it."""
    monkeypatch.setattr(decoding, "MAX_PIXELS", 2015 * 1512)
    with pytest.raises(decoding.ImageError, match="expected 1 to 3,046,680 pixels, found 2016 x 1512"):
        decoding.decode(LARGE["RGB"], DEFAULT)


def test_the_published_model_decides_alike_in_both_versions(shared_photos):
    """Photos of the data set, enlarged to what phones take."""
    pytest.importorskip("onnxruntime")
    from catdog_jax.runtime.predictor import Predictor

    model = Predictor(ARTIFACTS / "default" / "model-int8.onnx")
    assert model.recipe == DEFAULT
    pixels: dict[int, list[np.ndarray]] = {1: [], 2: []}
    for path in shared_photos[:6]:
        with Image.open(path) as image:
            data = encoded(image.convert("RGB").resize((2016, 1512), Image.Resampling.LANCZOS))
        for version, found in pixels.items():
            found.append(decoding.decode(data, dataclasses.replace(DEFAULT, version=version)))
    one, other = (model.probabilities(np.stack(found)) for found in pixels.values())
    assert (one.argmax(axis=1) == other.argmax(axis=1)).all()
    assert np.abs(one - other).max() < 0.03


def test_a_preview_is_small_upright_and_passes_the_gates():
    small = decoding.preview(LARGE["EXIF 6"], 300)
    assert (small.mode, small.size) == ("RGB", (224, 300))
    assert decoding.preview(encoded(photo(80, 60), "PNG"), 300).size == (80, 60)
    with pytest.raises(decoding.ImageError, match="truncated"):
        decoding.preview(LARGE["RGB"][:9000], 300)
