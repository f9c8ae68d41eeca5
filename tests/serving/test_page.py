"""The page at `/` in a real browser: what it shows is what the server and Python say, and anyone can work it."""

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import browser
from helpers.models import METADATA, probability_of_dogs, tiny_model
from helpers.serving import started
from PIL import Image

from catdog_jax.photos import decoding
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.recipe import DecodingRecipe
from catdog_jax.runtime import heatmaps
from catdog_jax.runtime.decision import UNKNOWN
from catdog_jax.runtime.predictor import Predictor

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

PUBLISHED = Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx"
LEAST = 0.8  # the tiny model does not decide below it

chromium = pytest.fixture(scope="module")(browser.chromium)


@pytest.fixture(scope="module")
def published():
    with browser.served(PUBLISHED) as address:
        yield address


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    model = tmp_path_factory.mktemp("page") / "model.onnx"
    metadata = METADATA | {"head": json.dumps({"abstain_below": LEAST})}
    model.write_bytes(tiny_model(metadata=metadata).SerializeToString())
    with browser.served(model) as address:
        yield address


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Four drawn pictures of odd shapes and names, and a file that is none, between them."""
    folder = tmp_path_factory.mktemp("photos")
    names = (
        "cat.jpg",
        "a dog with a name that no card can hold in one line, nor in two, nor in " + "three" * 20 + ".jpg",
    )
    for name, kind in zip(names, ("cat", "dog"), strict=True):
        drawing.draw(kind, np.random.default_rng(5)).save(folder / name)
    drawn = drawing.draw("dog", np.random.default_rng(6))
    drawn.resize((900, 120)).save(folder / "wide & <b>bold.png")
    drawn.resize((90, 800)).save(folder / "tall.webp")
    (folder / "broken.jpg").write_bytes(b"<html>no photo</html>")
    return [folder / name for name in (names[0], "broken.jpg", names[1], "wide & <b>bold.png", "tall.webp")]


@pytest.fixture
def page(chromium: Any):
    """A browser on no page yet; whatever it complains of in the test fails it."""
    chromium.get("about:blank")
    browser.emulate(chromium, 1280, 900)
    browser.complaints(chromium)
    yield chromium
    assert browser.complaints(chromium) == []


def grey(folder: Path, level: int) -> Path:
    path = folder / f"{level}.png"
    Image.new("RGB", (30, 20), (level,) * 3).save(path)
    return path


def test_verdicts_are_those_of_the_server_and_of_python(page: Any, published: str, photos: list[Path]) -> None:
    page.get(published)
    browser.events(page, "")
    browser.choose(page, photos)
    cards = browser.settled(page, len(photos))
    predictor = Predictor(PUBLISHED)
    for card, path in zip(cards, photos, strict=True):
        request = urllib.request.Request(f"{published}/predict", path.read_bytes(), {"Content-Type": "image/jpeg"})
        assert card["name"] == path.name
        if path.name == "broken.jpg":
            assert (card["verdict"], card["state"]) == (["Not judged"], "failed")
            assert (
                card["remark"]
                == "expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF, found what looks like HTML, XML or SVG"
            )
            continue
        with urllib.request.urlopen(request) as answer:
            (server,) = json.load(answer)["predictions"]
        python = predictor(path)
        shown = ["Neither"] if server["neither"] else [server["class"] if server["sure"] else "Unsure"]
        percent = [] if server["neither"] else [browser.percent(server["probability"])]
        assert (card["verdict"], card["remark"]) == (shown + percent, server["why"])
        said = (server["class"], server["sure"], server["why"], server["neither"])
        assert said == (python.label, python.sure, python.verdict.why, python.neither)
        assert server["probability"] == pytest.approx(python.probability, abs=1e-3)
    counts = page.find_element("id", "status").text
    assert counts.startswith("5 photos: ")
    assert "1 not judged" in counts
    assert page.find_element("id", "title").text == "cats or dogs?"


def test_nothing_is_asked_of_anyone_else(page: Any, published: str, photos: list[Path]) -> None:
    browser.events(page, "")
    page.get(published)
    browser.choose(page, photos[:1])
    browser.settled(page, 1)
    asked = [event["request"]["url"] for event in browser.events(page, "Network.requestWillBeSent")]
    assert {
        f"{published}/{name}"
        for name in ("", "page.css", "page.js", "backend.js", "model.json", "predict?include=heatmap")
    } <= set(asked)
    assert {url for url in asked if not url.startswith((f"{published}/", "blob:", "data:"))} == set()


def test_the_policy_forbids_what_a_stranger_might_inject(chromium: Any, published: str) -> None:
    chromium.get(published)
    inject = """const script = document.createElement('script'); script.textContent = 'window.bad = 1';
        document.body.append(script); return window.bad"""
    assert chromium.execute_script(inject) is None
    assert any("Content Security Policy" in message for message in browser.complaints(chromium))


def test_the_heat_map_is_painted_over_the_photo_and_can_be_switched_off(
    page: Any, published: str, photos: list[Path]
) -> None:
    page.get(published)
    assert not page.find_element("id", "tray").is_displayed()
    browser.choose(page, [photos[0], photos[3]])
    browser.settled(page, 2)
    painted = """return [...document.querySelectorAll('canvas')].map((canvas) => {
        const {width, height} = canvas, copy = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        const {data} = copy.getImageData(0, 0, width, height), [down, across] = arguments[0].shift();
        const alphas = down.map((y) => across.map((x) =>
            data[4 * (Math.floor(y * height) * width + Math.floor(x * width)) + 3]));
        const [over, under] = [canvas, canvas.previousSibling].map((one) => JSON.stringify(one.getBoundingClientRect()));
        return {alphas, shape: width / height, aligned: over === under, opacity: +getComputedStyle(canvas).opacity}})"""
    predictor = Predictor(PUBLISHED)
    places = [middles(path, predictor.recipe) for path in (photos[0], photos[3])]
    maps = browser.eventually(
        lambda: len(found := page.execute_script(painted, places)) == 2 and found, "two heat maps"
    )
    for one, path in zip(maps, (photos[0], photos[3]), strict=True):
        probabilities, cells = predictor.explain(decoding.decode(path.read_bytes(), predictor.recipe)[None])
        expected = heatmaps.tint(cells[0], probabilities[0, 1] >= 0.5)[..., 3]
        assert expected.max() > 40
        assert np.corrcoef(np.ravel(one["alphas"]), expected.ravel())[0, 1] > 0.97
        height, width = np.asarray(decoding.load(path.read_bytes()).image).shape[:2]
        assert one["shape"] == pytest.approx(width / height, rel=0.02)
        assert (one["aligned"], one["opacity"]) == (True, 1)
    page.find_element("id", "heat").click()
    browser.eventually(
        lambda: {one["opacity"] for one in page.execute_script(painted, places)} == {0}, "hidden heat maps"
    )
    page.find_element("id", "heat").click()
    browser.eventually(lambda: {one["opacity"] for one in page.execute_script(painted, places)} == {1}, "heat maps")


def middles(path: Path, recipe: DecodingRecipe) -> list[list[float]]:
    """Where the middles of the cells lie on a photo, as shares of its height and of its width."""
    extent = decoding.load(path.read_bytes()).image.size
    left, upper, right, lower = recipe.taken(extent)
    steps = (np.arange(recipe.grid) + 0.5) / recipe.grid
    down, across = upper + steps * (lower - upper), left + steps * (right - left)
    return [(down / extent[1]).tolist(), (across / extent[0]).tolist()]


def test_a_verdict_of_low_confidence_is_shown_as_unsure(page: Any, tiny: str, tmp_path: Path) -> None:
    page.get(tiny)
    levels = (100, 124, 130, 160)
    browser.choose(page, [grey(tmp_path, level) for level in levels])
    cards = browser.settled(page, len(levels))
    shown = [(card["state"], *card["verdict"]) for card in cards]
    dogs = [probability_of_dogs(level) for level in levels]
    assert shown == [
        ("first", "cats", browser.percent(1 - dogs[0])),
        ("unsure", "Unsure", browser.percent(1 - dogs[1])),
        ("unsure", "Unsure", browser.percent(dogs[2])),
        ("second", "dogs", browser.percent(dogs[3])),
    ]
    assert [card["remark"] for card in cards] == [
        "",
        "Rather cats. Below 80.0 % this model does not decide.",
        *("Rather dogs. Below 80.0 % this model does not decide.", ""),
    ]
    assert page.find_element("id", "status").text == "4 photos: 1 cats, 1 dogs, 2 unsure"
    assert not page.find_element("id", "toggle").is_displayed(), "this model has no heat map to switch"


def test_a_model_that_does_not_know_when_it_is_sure_says_so(page: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_model().SerializeToString())
    with browser.served(tmp_path / "model.onnx") as address:
        page.get(address)
        browser.choose(page, [grey(tmp_path, 130)])
        (card,) = browser.settled(page, 1)
        page.get("about:blank")
    assert (card["state"], card["verdict"][0], card["remark"]) == ("second", "dogs", UNKNOWN)


@pytest.mark.parametrize(
    ("exif", "upright"), [(None, True), (6, True), (1, False)], ids=["XMP alone", "EXIF alike", "EXIF against it"]
)
def test_the_preview_lies_as_the_pixels_that_are_judged(
    page: Any, tiny: str, tmp_path: Path, exif: int | None, upright: bool
) -> None:
    """Browsers follow EXIF alone, Python XMP too where EXIF does not say."""
    picture = Image.new("RGB", (90, 60), "white")
    picture.paste("black", (0, 0, 45, 60))  # the left, which is the top once it is turned
    stored = Image.Exif()
    if exif:
        stored[0x0112] = exif
    picture.save(tmp_path / "photo.jpg", exif=stored, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    page.get(tiny)
    browser.choose(page, [tmp_path / "photo.jpg"])
    browser.settled(page, 1)
    drawn = """const image = document.querySelector('.photo img'), {naturalWidth: width, naturalHeight: height} = image;
        if (!image.complete || !width) return null;
        const context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
        context.drawImage(image, 0, 0);
        const grey = (x, y) => context.getImageData(x, y, 1, 1).data[0];
        return [width, height, grey(5, 5), grey(width - 5, 5), grey(5, height - 5)]"""
    width, height, *greys = browser.eventually(lambda: page.execute_script(drawn), "a preview")
    judged = np.asarray(decoding.load((tmp_path / "photo.jpg").read_bytes()).image, int)[..., 0]
    assert judged.shape == (height, width) == ((90, 60) if upright else (60, 90))
    np.testing.assert_allclose(greys, [judged[5, 5], judged[5, -5], judged[-5, 5]], atol=3)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_photos_are_dropped_and_pasted(page: Any, tiny: str, tmp_path: Path, kind: str) -> None:
    page.get(tiny)
    contents = [base64.b64encode(grey(tmp_path, level).read_bytes()).decode() for level in (100, 160)]
    send = """const [kind, contents] = arguments, transfer = new DataTransfer();
        contents.forEach((text, i) => transfer.items.add(
            new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], `${i}.png`, {type: 'image/png'})));
        const options = {bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer};
        if (kind === 'drop') document.body.dispatchEvent(new DragEvent('dragover', options));
        const over = document.body.className;
        const event = kind === 'drop' ? new DragEvent('drop', options) : new ClipboardEvent('paste', options);
        document.body.dispatchEvent(event);
        return [over, document.body.className, event.defaultPrevented]"""
    hover = """document.body.dispatchEvent(new DragEvent('dragover', {bubbles: true, cancelable: true}));
        const over = document.body.className; document.body.className = ''; return over"""
    browser.eventually(lambda: page.execute_script(hover) == "over", "a page that listens")
    states = page.execute_script(send, kind, contents)
    assert states == (["over", "", True] if kind == "drop" else ["", "", False])
    cards = browser.settled(page, 2)
    assert [(card["name"], card["verdict"][0]) for card in cards] == [("0.png", "cats"), ("1.png", "dogs")]


def test_the_keyboard_alone_is_enough(page: Any, published: str, photos: list[Path]) -> None:
    page.get(published)
    page.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": True})
    browser.events(page, "")
    press(page, "\ue004")  # tab
    assert focused(page) == "files"
    press(page, " ")
    opened = browser.eventually(lambda: browser.events(page, "Page.fileChooserOpened"), "an open file dialog")
    page.execute_cdp_cmd("DOM.enable", {})
    files = [str(path) for path in photos[:1]]
    page.execute_cdp_cmd("DOM.setFileInputFiles", {"files": files, "backendNodeId": opened[0]["backendNodeId"]})
    browser.settled(page, 1)
    press(page, "\ue004")
    assert focused(page) == "heat"
    press(page, " ")
    assert page.find_element("id", "results").get_attribute("class") == "cold"
    press(page, "\ue004")
    assert focused(page) == "clear"
    press(page, "\ue007")  # enter
    assert page.find_elements("css selector", "#results li") == []
    assert focused(page) == "files"
    page.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": False})


def press(page: Any, key: str) -> None:
    browser.webdriver.ActionChains(page).send_keys(key).perform()


def focused(page: Any) -> str:
    shown = """const one = document.activeElement;
        return [one.id, getComputedStyle(one.closest('#drop') ?? one).outlineStyle]"""
    name, outline = page.execute_script(shown)
    assert outline == "solid", f"the focus on {name} cannot be seen"
    return name


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction_only(page: Any, published: str, photos: list[Path], width: int) -> None:
    browser.emulate(page, width, 844, phone=True)
    page.get(published)
    browser.choose(page, photos)
    browser.settled(page, len(photos))
    widths = """return [...document.querySelectorAll('main *')].map((one) => one.getBoundingClientRect())
        .reduce((most, box) => Math.max(most, box.right), document.documentElement.scrollWidth)"""
    assert page.execute_script(widths) <= width
    assert page.find_element("css selector", ".touch").is_displayed()
    targets = "return ['.button', '#toggle', '#clear'].map((one) => document.querySelector(one).getBoundingClientRect().height)"
    assert min(page.execute_script(targets)) >= 44, "a finger needs 44 pixels"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable(page: Any, tiny: str, tmp_path: Path, scheme: str) -> None:
    """The contrast of WCAG 2.2 for every text on the page: 4.5 to 1."""
    browser.emulate(page, 1280, 900, prefers_color_scheme=scheme)
    page.get(tiny)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    browser.choose(page, [tmp_path / "broken.jpg", *(grey(tmp_path, level) for level in (100, 128, 160))])
    browser.settled(page, 4)
    texts = """const ground = (one) => { const c = getComputedStyle(one).backgroundColor;
            return c === 'rgba(0, 0, 0, 0)' ? ground(one.parentElement) : c; };
        return [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility() && [...one.childNodes].some(
            (node) => node.nodeType === 3 && node.data.trim())).map(
                (one) => [one.textContent, getComputedStyle(one).color, ground(one)])"""
    found = page.execute_script(texts)
    assert {"Clear", "Choose photos", "Unsure", "cats", "dogs", "Not judged", "128.png"} <= {text for text, *_ in found}
    for text, ink, ground in found:
        light, dark = sorted(map(luminance, (ink, ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text!r}: {ink} on {ground}"
    assert (luminance(found[0][2]) < 0.1) == (scheme == "dark")


def luminance(colour: str) -> float:
    channels = np.array([int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_who_wants_no_motion_gets_none(page: Any, tiny: str) -> None:
    browser.emulate(page, 1280, 900, prefers_reduced_motion="reduce")
    page.get(tiny)
    script = """const item = document.createElement('li'); item.setAttribute('aria-busy', 'true');
        item.innerHTML = '<div class="meter"><i></i></div>'; document.querySelector('#results').append(item);
        return getComputedStyle(item.querySelector('i')).animationName"""
    assert page.execute_script(script) == "none"
    browser.emulate(page, 1280, 900)
    page.get(tiny)
    assert page.execute_script(script) == "run"


def test_too_large_a_photo_is_not_even_sent(page: Any, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "large.bmp"
    Image.new("RGB", (600, 600)).save(path)
    browser.events(page, "")
    page.get(tiny)
    browser.choose(page, [path])
    (card,) = browser.settled(page, 1)
    assert card["remark"] == f"expected at most 1,000,000 bytes, found {path.stat().st_size:,}"
    asked = [event["request"]["url"] for event in browser.events(page, "Network.requestWillBeSent")]
    assert f"{tiny}/model.json" in asked
    assert f"{tiny}/predict" not in asked


def test_a_server_that_goes_away_and_comes_back(chromium: Any, tiny: str, tmp_path: Path) -> None:
    chromium.get(tiny)
    chromium.execute_script("window.real = window.fetch; window.fetch = () => Promise.reject(new TypeError('away'))")
    browser.choose(chromium, [grey(tmp_path, 160)])
    (card,) = browser.settled(chromium, 1)
    assert (card["verdict"], card["remark"]) == (
        ["Not judged"],
        "The server does not answer, or the file cannot be read.",
    )
    chromium.execute_script("window.fetch = window.real")
    chromium.find_element("css selector", "figcaption button").click()
    browser.eventually(lambda: chromium.find_element("id", "status").text == "1 photo: 1 dogs", "a verdict")
    assert chromium.find_elements("css selector", "figcaption button") == []


def test_many_photos_come_in_their_order_and_the_newest_first(page: Any, tiny: str, tmp_path: Path) -> None:
    page.get(tiny)
    first = [grey(tmp_path, level) for level in range(60, 200, 4)]
    browser.choose(page, first)
    browser.choose(page, [grey(tmp_path, 250)])
    cards = browser.settled(page, len(first) + 1)
    assert [card["name"] for card in cards] == ["250.png", *(path.name for path in first)]
    assert page.find_element("id", "status").text.startswith("36 photos: ")


def test_below_a_path_with_and_without_a_slash_at_its_end(page: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(tiny_model().SerializeToString())
    with started(model, "--root-path", "/here/cats/") as address:
        for end in ("", "/"):
            browser.events(page, "")
            page.get(f"{address}/here/cats{end}")
            browser.choose(page, [grey(tmp_path, 160)])
            (card,) = browser.settled(page, 1)
            assert card["verdict"][0] == "dogs"
            asked = {event["request"]["url"] for event in browser.events(page, "Network.requestWillBeSent")}
            below = {f"{address}/here/cats/{name}" for name in ("page.js", "backend.js", "model.json", "predict")}
            assert below <= asked
            assert all(url.startswith((f"{address}/here/cats", "blob:", "data:")) for url in asked)
