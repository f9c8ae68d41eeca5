"""What a photo may be given as, and the verdict on it, on a tiny model whose answers are known in closed form."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.models import METADATA, probability_of_dogs, save_grey, tiny_model
from PIL import Image

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.runtime import prediction
from catdog_jax.runtime.prediction import Prediction
from catdog_jax.runtime.predictor import Predictor

GREYS = (100, 120, 140, 160)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    metadata = METADATA | {"decision": json.dumps({"threshold": 0.5, "abstain_below": 0.75})}
    path.write_bytes(tiny_model(metadata=metadata).SerializeToString())
    return Predictor(str(path), batch_size=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [save_grey(folder / f"{grey}.png", grey) for grey in GREYS]


GIVEN = {
    "text": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "a view of bytes": lambda path: memoryview(path.read_bytes()),
    "a picture": Image.open,
    "an array": lambda path: np.asarray(Image.open(path).convert("RGB")),
    "a small array": lambda path: np.asarray(Image.open(path).convert("RGB"))[:9, :5],
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_photo_is_the_same_however_it_is_given(model, photos, given):
    answer = model(given(photos[1]))
    assert (answer.label, answer.sure) == ("cats", False)
    assert answer.probability == answer.probabilities["cats"] == pytest.approx(1 - probability_of_dogs(120), rel=1e-5)
    assert answer.probabilities["dogs"] == pytest.approx(probability_of_dogs(120), rel=1e-5)
    assert repr(answer) == f"Prediction(unsure, rather cats, probability {answer.probability:.4f})"


@pytest.mark.parametrize(
    "many",
    [
        lambda paths: paths,
        tuple,
        lambda paths: (path.read_bytes() for path in paths),
        lambda paths: np.stack([decoding.decode(path.read_bytes(), DEFAULT) for path in paths]),
        lambda paths: [
            paths[0],
            paths[1].read_bytes(),
            Image.open(paths[2]),
            decoding.decode(paths[3].read_bytes(), DEFAULT),
        ],
    ],
    ids=["list", "tuple", "generator", "batch", "mixed"],
)
def test_many_photos_are_a_list_in_their_order(model, photos, many):
    answers = model(many(photos))
    assert [answer.probabilities["dogs"] for answer in answers] == pytest.approx(
        [probability_of_dogs(grey) for grey in GREYS], rel=1e-5
    )
    assert model([photos[0]]) == [model(photos[0])]


def test_a_picture_is_turned_upright_and_made_white_as_its_file_is():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 90, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    expected = decoding.load(buffer.getvalue()).image
    found = prediction.upright(Image.open(io.BytesIO(buffer.getvalue())))
    assert found.size == expected.size == (40, 90)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_few_photos_are_decoded_ahead_of_the_answers(model, photos):
    taken = 0

    def counted():
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield photos[0]

    answers = model.stream(counted())
    assert isinstance(next(answers)[1], Prediction)
    assert taken <= 3 * 2 + 1  # batches of two


@pytest.mark.parametrize(
    ("photos", "error", "message"),
    [
        (3, TypeError, "expected a path, bytes, a PIL image or an array uint8 [H, W, 3], or a list of those, found int"),
        (None, TypeError, "found NoneType."),
        ([b"", 3], TypeError, "photos[1]: expected a path, bytes, a PIL image or an array uint8 [H, W, 3], found int."),
        ([], UsageError, "photos: expected at least one photo, found none."),
        (np.zeros((0, 224, 224, 3), np.uint8), UsageError, "photos: expected at least one photo, found none."),
        (np.zeros((5, 5, 4), np.uint8), UsageError, "expected uint8 [H, W, 3], RGB, found uint8 [5, 5, 4]."),
        (np.zeros((5, 5, 3)), UsageError, "expected uint8 [H, W, 3], RGB, found float64 [5, 5, 3]."),
        (np.zeros((0, 5, 3), np.uint8), UsageError, "expected uint8 [H, W, 3], RGB, found uint8 [0, 5, 3]."),
        (np.zeros((5, 5), np.uint8), UsageError, "photos: expected uint8 [H, W, 3] or [N, 224, 224, 3], found uint8 [5, 5]."),
        (np.zeros((2, 5, 5, 3), np.uint8), UsageError, "or [N, 224, 224, 3], found uint8 [2, 5, 5, 3]."),
        ("nothing.jpg", CatdogError, "nothing.jpg: expected a file, found nothing. Leave it out, or replace it."),
        (b"no photo", CatdogError, "photo (bytes): expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF, found unknown"),
    ],
)  # fmt: skip
def test_what_is_no_photo_is_refused_by_name(model, photos, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model(photos)


def test_a_picture_that_is_cut_off_is_an_error_of_ours(model):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    with pytest.raises(CatdogError, match=r"photo \(JpegImageFile\): damaged or truncated: image file is truncated"):
        model(Image.open(io.BytesIO(buffer.getvalue()[:900])))


@pytest.mark.parametrize("field", ["batch_size", "threads"])
def test_numbers_out_of_range_are_wrong_usage(field):
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')}: expected 1 or more, found 0"):
        Predictor("model.onnx", **{field: 0})


def test_a_notebook_shows_the_photo_under_its_heat_map_and_escapes_names(photos):
    cells = np.zeros((7, 7), np.float32)
    cells[0, 6] = 30
    rule = prediction.decision.Rule(("<cats>", "dogs"), abstain_below=0.6)
    shown = []
    for heat in (cells, None):
        answer = Prediction(rule.decide(np.array([0.1, 0.9], np.float32)), heat, photos[2])
        page = answer._repr_html_()
        with Image.open(io.BytesIO(base64.b64decode(re.search('base64,([^"]+)', page)[1]))) as picture:
            shown.append(np.asarray(picture.convert("RGB"), int))
        assert "<figcaption>dogs, 90.0%</figcaption>" in page
    height, width, _ = shown[0].shape
    red = (shown[0] - shown[1])[..., 0]
    y, x = np.unravel_index(red.argmax(), red.shape)
    assert (y * 7 // height, x * 7 // width) == (0, 6)
    assert np.ptp(shown[1]) == 0  # without a heat map, the grey photo alone
    first = Prediction(rule.decide(np.array([0.9, 0.1], np.float32)), None, photos[2])
    assert "&lt;cats&gt;, 90.0%" in first._repr_html_()


def test_predicting_brings_no_jax(model, photos):
    code = (
        "import sys\nfrom catdog_jax.runtime.predictor import Predictor\n"
        f"print(Predictor({str(model._path)!r})({str(photos[3])!r}).label, sorted({{'jax', 'flax'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "dogs []\n"
