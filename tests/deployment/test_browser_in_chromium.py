"""The folder of `catdog export --web` in a real browser, which alone makes Python's pixels and Python's decisions."""

import base64
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import browser
from helpers.models import tiny_model
from PIL import Image

from catdog_jax.deployment import browser as browser_build
from catdog_jax.photos import decoding
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.recipe import DEFAULT, FIRST, DecodingRecipe
from catdog_jax.runtime.predictor import Predictor

PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"
CLOSE = 0.02  # the most that two computations of one int8 model may differ in a probability: not all CPUs round alike

chromium = pytest.fixture(scope="module")(browser.chromium)
runtime = pytest.fixture(scope="module")(browser.runtime)


@pytest.fixture(scope="module")
def folder(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return browser_build.write(tmp_path_factory.mktemp("web") / "site", PUBLISHED.read_bytes(), runtime)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with browser.hosted(folder.parent) as address:
        yield f"{address}/{folder.name}"  # below the root, as project pages are


# Pixels


def drawn(width: int, height: int) -> Image.Image:
    """A picture of coarse and fine detail."""
    rng = np.random.default_rng([width, height])
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def made_by(camera: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = camera
    return exif


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_text(data: bytes, text: bytes) -> bytes:
    """A PNG with XMP, before its pixels."""
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text) + data[place:]


def png(width: int, height: int, bits: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.random.default_rng(3).integers(0, 256, (image.height, image.width), dtype=np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


def deep(width: int, height: int) -> bytes:
    """A PNG of RGB in 16 bits."""
    lines = np.random.default_rng(4).integers(0, 256, (height, 6 * width), dtype=np.uint8)
    return png(width, height, 16, 2, b"".join(b"\0" + line.tobytes() for line in lines))


# Both orders of the passes, a pass that is left out, enlarging and reducing, and both sides of
# where Pillow changes the order
SIZES = [
    (1, 1),
    (3, 500),
    (500, 3),
    (224, 224),
    (223, 1000),
    (1000, 223),
    (100, 60),
    (224, 500),
    (447, 670),
    (447, 671),
    (1500, 1100),
]
MODE_NAMES = ("L", "LA", "P", "1")
EXACT = {
    **{f"{width}x{height}": encoded(drawn(width, height), "PNG") for width, height in SIZES},
    **{
        mode: encoded(drawn(90, 70).convert("L" if mode in ("L", "LA") else "RGB").convert(mode), "PNG")
        for mode in MODE_NAMES
    },
    "alpha": encoded(with_alpha(drawn(300, 200)), "PNG"),
    "transparent colour": encoded(drawn(90, 70).quantize(20), "PNG", transparency=3),
    "16 bits": deep(90, 70),
    "turned": encoded(drawn(90, 70), "PNG", exif=turned(6)),
    "turned by XMP": with_text(encoded(drawn(90, 70), "PNG"), xmp(6)),
    "EXIF against XMP": with_text(encoded(drawn(90, 70), "PNG", exif=turned(3)), xmp(6)),
    "large, turned by XMP": encoded(drawn(1500, 1100), "WEBP", lossless=True, xmp=xmp(6)),
    "BMP": encoded(drawn(91, 70), "BMP"),
    "GIF": encoded(drawn(90, 70), "GIF"),
    "WebP": encoded(with_alpha(drawn(90, 70)), "WEBP", lossless=True),
}
JPEGS = {
    **{f"EXIF {orientation}": encoded(drawn(90, 60), "JPEG", exif=turned(orientation)) for orientation in range(1, 9)},
    **{f"XMP {orientation}": encoded(drawn(90, 60), "JPEG", xmp=xmp(orientation)) for orientation in range(10)},
    "EXIF upright, XMP not": encoded(drawn(90, 60), "JPEG", exif=turned(1), xmp=xmp(6)),
    "EXIF against XMP": encoded(drawn(90, 60), "JPEG", exif=turned(8), xmp=xmp(3)),
    "XMP beside EXIF of other things": encoded(drawn(90, 60), "JPEG", exif=made_by("camera"), xmp=xmp(8)),
    "XMP as an element": encoded(drawn(90, 60), "JPEG", xmp=b"<tiff:Orientation>6</tiff:Orientation>"),
    "XMP, tall": encoded(drawn(223, 1000), "JPEG", xmp=xmp(5)),
    **{f"subsampling {kind}": encoded(drawn(601, 401), "JPEG", subsampling=kind, quality=85) for kind in range(3)},
    "progressive": encoded(drawn(600, 400), "JPEG", progressive=True),
    "grey": encoded(drawn(600, 400).convert("L"), "JPEG"),
    "CMYK": encoded(drawn(600, 400).convert("CMYK"), "JPEG"),
    "lossy WebP": encoded(drawn(600, 400), "WEBP", quality=80),
}


JPEGS_OF_PHONES = {
    "1600x1200": encoded(drawn(400, 300).resize((1600, 1200), Image.Resampling.BICUBIC), "JPEG", quality=90),
    "turned": encoded(drawn(400, 300).resize((2016, 1512), Image.Resampling.BICUBIC), "JPEG", exif=turned(6)),
}


@pytest.fixture
def page(chromium: Any, site: str) -> Iterator[Any]:
    """A browser on the page; whatever it complains of in the test fails it."""
    browser.emulate(chromium, 1280, 900)
    browser.events(chromium, "")
    chromium.get(f"{site}/")
    browser.complaints(chromium)
    yield chromium
    assert browser.complaints(chromium) == []


def decoded(page: Any, data: bytes, recipe: DecodingRecipe = FIRST) -> np.ndarray | str:
    """The pixels that the page's own code makes of a file, or the reason why not."""
    script = """const [text, recipe, done] = arguments;
        const file = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
        import('./pixels.js').then(({decode}) => decode(file, recipe)).then(
            (data) => done({pixels: btoa(Array.from(data, (value) => String.fromCharCode(value)).join(''))}),
            (error) => done({error: error.message}))"""
    found = page.execute_async_script(script, base64.b64encode(data).decode(), recipe.to_json())
    if "error" in found:
        return found["error"]
    return np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(recipe.size, recipe.size, 3)


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_of_pillow(page: Any, name: str) -> None:
    np.testing.assert_array_equal(decoded(page, EXACT[name]), decoding.decode(EXACT[name], FIRST))


@pytest.mark.parametrize("resize", ["halfway", "squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [96, 320])
def test_other_squares_are_those_of_pillow(page: Any, size: int, resize: str) -> None:
    recipe = DecodingRecipe(1, size, resize)
    for width, height in [*SIZES, (320, 321), (321, 320), (640, 321), (97, 96), (333, 100)]:
        data = encoded(drawn(width, height), "PNG", exif=turned(3))
        off = np.abs(decoding.decode(data, recipe).astype(int) - decoded(page, data, recipe))
        # Of a photo that is much cut, Pillow may take the passes in the other order
        assert off.max() <= (1 if resize in ("crop", "halfway") else 0), (width, height)


@pytest.mark.parametrize("data", [JPEGS_OF_PHONES[name] for name in JPEGS_OF_PHONES], ids=[*JPEGS_OF_PHONES])
def test_large_photos_are_nearly_those_of_version_2(page: Any, data: bytes) -> None:
    found = decoded(page, data, DEFAULT)
    assert not isinstance(found, str), found
    off = np.abs(found.astype(int) - decoding.decode(data, DEFAULT))
    assert np.quantile(off, 0.999) <= 3
    assert off.mean() < 0.6


@pytest.mark.parametrize("name", JPEGS)
def test_lossy_files_are_decoded_alike(page: Any, name: str) -> None:
    """Another browser may have another inverse transform, whose steps differ by one; Chromium's is Pillow's."""
    found = decoded(page, JPEGS[name])
    assert not isinstance(found, str), found
    assert np.abs(found.astype(int) - decoding.decode(JPEGS[name], FIRST)).max() <= 1


def test_greys_of_16_bits_are_off_by_their_rounding(page: Any) -> None:
    lines = np.random.default_rng(5).integers(0, 256, (70, 180), dtype=np.uint8)
    data = png(90, 70, 16, 0, b"".join(b"\0" + line.tobytes() for line in lines))
    found = decoded(page, data)
    assert not isinstance(found, str), found
    assert np.abs(found.astype(int) - decoding.decode(data, FIRST)).max() <= 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a photo, found an empty file"),
        (b" <html>", "expected JPEG, PNG, WEBP, BMP, GIF, found what looks like HTML, XML or SVG"),
        (b"%PDF-1.7", "expected JPEG, PNG, WEBP, BMP, GIF, found unknown content"),
        (b"RIFF1234WAVEfmt", "expected JPEG, PNG, WEBP, BMP, GIF, found unknown content"),
        (EXACT["alpha"][:12], "damaged or truncated: its header cannot be read"),
        (JPEGS["EXIF 1"][:40], "damaged or truncated: its header cannot be read"),
        (EXACT["alpha"][:-4000], "damaged or truncated"),
        (JPEGS["progressive"][:-2000], "damaged or truncated"),
        (EXACT["WebP"][:-100], "damaged or truncated"),
        (png(8193, 8192), "expected 1 to 67,108,864 pixels, found 8193 x 8192"),
        (png(50_000, 50_000), "pixels, found"),
        (b"GIF89a\xff\xff\xff\xff" + bytes(20), "pixels, found"),
        (b"\xff\xd8\xff\xe0\0\4ab\xff\xc2\0\x11\x08\xff\xff\xff\xfe" + bytes(20), "pixels, found"),
        (b"RIFF\x20\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0\xff\xff\0\xff\xff\0" + bytes(20), "pixels, found"),
    ],
)
def test_what_is_refused_is_refused_with_the_same_reason(page: Any, data: bytes, message: str) -> None:
    with pytest.raises(decoding.ImageError) as python:
        decoding.decode(data, FIRST)
    found = decoded(page, data)
    assert isinstance(found, str)
    assert message in found
    expected = message if "pixels" not in message else "67,108,864 pixels, found"
    expected = expected.replace("JPEG, PNG, WEBP, BMP, GIF", ", ".join(decoding.FORMATS))  # Python takes more
    assert expected in str(python.value) or "damaged or truncated" in str(python.value)


# Verdicts


def judged(page: Any, photos: list[Path]) -> list[dict[str, Any]]:
    browser.choose(page, photos)
    return browser.settled(page, len(photos))


def answers(page: Any, photos: list[Path]) -> list[dict[str, Any]]:
    """What the folder's backend says of photos, in all its digits."""
    script = """const [texts, done] = arguments;
        const blob = (text) => new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
        import('./backend.js').then(({classify}) => Promise.all(texts.map((text) => classify(blob(text), () => {})))).then(
            done, (error) => done(error.message))"""
    return page.execute_async_script(script, [base64.b64encode(photo.read_bytes()).decode() for photo in photos])


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("drawings") / f"{kind}.jpg" for kind in ("cat", "dog")]
    for path in paths:
        drawing.draw(path.stem, np.random.default_rng(5)).save(path)
    return paths


def assert_as_python(page: Any, photos: list[Path]) -> None:
    predictor = Predictor(PUBLISHED)
    probabilities, heatmaps = predictor.explain(
        np.stack([decoding.decode(photo.read_bytes(), FIRST) for photo in photos])
    )
    found = answers(page, photos)
    differences = []
    for answer, row, cells in zip(found, probabilities, heatmaps, strict=True):
        expected = predictor.rule.decide(row)
        assert (answer["class"], answer["sure"], answer["why"]) == (expected.name, expected.sure, expected.why)
        assert answer["classes"] == list(predictor.classes)
        assert answer["probability"] == answer["probabilities"][answer["class"]]
        differences.append(abs(answer["probability"] - expected.probability))
        assert np.shape(answer["heatmap"]) == (7, 7)
        assert np.corrcoef(np.ravel(answer["heatmap"]), cells.ravel())[0, 1] > 0.99
    print(f"max |Δprobability| {max(differences):.2g} on {len(photos)} photos")
    assert max(differences) < CLOSE


def test_the_browser_decides_as_python_does(page: Any, drawings: list[Path]) -> None:
    assert_as_python(page, drawings)


def test_the_browser_decides_as_python_does_on_real_photos(page: Any, shared_photos: list[Path]) -> None:
    assert_as_python(page, shared_photos)


def test_the_page_works_and_asks_nobody_else(page: Any, site: str, drawings: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    cards = judged(page, [*drawings, tmp_path / "broken.jpg"])
    assert [card["state"] for card in cards][-1] == "failed"
    predictor = Predictor(PUBLISHED)
    for card, path in zip(cards, drawings, strict=False):
        verdict = predictor.rule.decide(predictor.probabilities(decoding.decode(path.read_bytes(), FIRST)[None])[0])
        assert card["verdict"][0] == (verdict.name if verdict.sure else "Unsure")
    browser.eventually(lambda: len(page.find_elements("tag name", "canvas")) == 2, "two heat maps")
    assert page.find_element("id", "privacy").text == "Photos do not leave this device."
    asked = {event["request"]["url"] for event in browser.events(page, "Network.requestWillBeSent")}
    assert {f"{site}/page.js", f"{site}/worker.js"} <= asked
    assert {url for url in asked if not url.startswith((f"{site}/", "blob:", "data:"))} == set()


def test_a_model_that_cannot_be_fetched_is_worth_another_try(
    chromium: Any, runtime: Path, drawings: list[Path], tmp_path: Path
) -> None:
    browser_build.write(tmp_path / "site", tiny_model().SerializeToString(), runtime)
    os.rename(tmp_path / "site" / "model.onnx", tmp_path / "model.onnx")
    with browser.hosted(tmp_path / "site") as address:
        chromium.get(f"{address}/")
        (card,) = judged(chromium, drawings[:1])
        assert card["remark"].startswith("The model cannot be loaded: model.onnx: the server answered 404")
        os.rename(tmp_path / "model.onnx", tmp_path / "site" / "model.onnx")
        chromium.find_element("css selector", "figcaption button").click()
        browser.eventually(
            lambda: "not judged" not in (text := chromium.find_element("id", "status").text) and "to go" not in text,
            "a verdict",
        )
        chromium.get("about:blank")
    browser.complaints(chromium)


def test_a_folder_that_lacks_its_program_says_so(
    chromium: Any, runtime: Path, drawings: list[Path], tmp_path: Path
) -> None:
    browser_build.write(tmp_path / "site", tiny_model().SerializeToString(), runtime)
    os.remove(tmp_path / "site" / "worker.js")
    with browser.hosted(tmp_path / "site") as address:
        chromium.get(f"{address}/")
        for count in (1, 2):
            browser.choose(chromium, drawings[:1])
            cards = browser.settled(chromium, count)
            assert {card["remark"][:43] for card in cards} == {"The program behind this page cannot be load"}
        chromium.get("about:blank")
    browser.complaints(chromium)


def test_a_page_opened_as_a_file_says_what_it_needs(chromium: Any, folder: Path) -> None:
    chromium.get((folder / "index.html").as_uri())
    browser.eventually(lambda: chromium.find_element("id", "privacy").is_displayed(), "a hint")
    assert "a web server behind it" in chromium.find_element("id", "privacy").text
    chromium.get("about:blank")
    browser.complaints(chromium)


def test_the_folders_own_policy_forbids_what_a_stranger_might_inject(chromium: Any, site: str) -> None:
    chromium.get(f"{site}/")
    inject = """const script = document.createElement('script'); script.textContent = 'window.bad = 1';
        document.body.append(script); return window.bad"""
    assert chromium.execute_script(inject) is None
    assert any("Content Security Policy" in message for message in browser.complaints(chromium))
