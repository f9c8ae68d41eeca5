"""The page: well-formed, self-contained, safe with any name, legible in both modes. Its look is for eyes to judge."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog_jax.backbone.pooling import Pool
from catdog_jax.evaluation import page as evaluation_page
from catdog_jax.evaluation import result
from catdog_jax.evaluation.result import Evaluation, Predicted
from catdog_jax.heads.calibration import abstention
from catdog_jax.heads.head import FittedHead
from catdog_jax.photos.decoding import ImageError
from catdog_jax.photos.fingerprint import Fingerprint
from catdog_jax.photos.recipe import DEFAULT
from catdog_jax.reporting import plots
from catdog_jax.reporting.calibration_error import calibration_bins
from catdog_jax.reporting.metrics import METRICS

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>&$\\frac'
VOID = {"meta", "img", "br", "wbr"}
HISTORY = {
    "epoch": [1.0, 2.0, 3.0],
    "train_loss": [0.7, 0.5, 0.4],
    "validation_loss": [0.6, 0.4, 0.5],
    "validation_accuracy": [0.7, 0.9, 0.8],
}


def predicted(mistakes: int = 3, n: int = 60, views: int = 1, names: str = "photo") -> Predicted:
    """Rows of both classes with that many mistakes, the first of them the worst."""
    labels = np.arange(n) % 2
    sure = np.linspace(0.99, 0.6, n)
    right = np.arange(n) >= mistakes
    probabilities = np.where(right == (labels == 1), sure, 1 - sure)
    ids = [f"{names}/{index}.jpg" for index in range(n)]
    return Predicted("photos", ids, labels, np.stack([probabilities] * views, axis=1), [])


def render(rows: Predicted, classes: tuple[str, str] = ("cats", "dogs"), split: str = "test", **changes) -> str:
    summary = Evaluation(head=fitted(classes), predicted=rows, split=split, bootstrap=20).to_json()
    return evaluation_page.render(summary, rows.labels, rows.probabilities[:, 0], **changes)


def fitted(classes: tuple[str, str]) -> FittedHead:
    layer = {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    return FittedHead(Pool.AVG, {"output": layer}, classes, Fingerprint(), {})


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at the plots: drawing them takes a second."""
    monkeypatch.setattr(plots, "_svg", lambda *_: "")


class Page(HTMLParser):
    """A strict reader: every element is closed in order. Keeps tags with their attributes, and the text by enclosing tag."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.text.append((self._open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self, tag: str) -> list[str]:
        return [text for name, text in self.text if name == tag]


@pytest.fixture(scope="module")
def full() -> str:
    """A page with everything on it."""
    rows = predicted(views=2)
    return render(
        rows, history=HISTORY, photos={rows.ids[0]: jpeg(), rows.ids[1]: jpeg()}, configuration={"Recipe": {"l2": 0.5}}
    )


def test_page_is_well_formed_and_its_ids_are_unique(full: str):
    page = Page(full)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', full)
    assert used
    assert {first or second for first, second in used} <= set(ids)


def test_page_loads_nothing_and_admits_no_script(full: str):
    page = Page(full)
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\((?!#)", full)


def test_every_part_is_there(full: str):
    page = Page(full)
    titles = ["Metrics", "Confusion matrix", "ROC curve", "Calibration", "Training"]
    assert page.words("h2") == [*titles, "Worst mistakes", "Photos left out", "Configuration"]
    labels = [attributes["aria-label"] for attributes in page.all("svg")]
    assert [label.split()[0] for label in labels] == ["ROC", "Reliability", "Loss", "Accuracy"]
    assert page.words("h1") == ["cats or dogs"]
    assert "3 mistakes in 60 test photos." in page.words("p")
    assert "95.00\u202f%" in page.words("dd")  # 57 of 60
    assert "Mean of 2 views" in page.words("th")
    assert {metric.titled(("cats", "dogs")) for metric in METRICS.values()} <= set(page.words("th"))
    assert "Always answering “cats” would be right for 50.00\u202f% of them." in page.words("p")
    assert page.words("summary").count("What this says") == 5
    # Mistakes 0 and 2 are cats, 1 a dog
    assert [text for text in page.words("td") if text.isdigit()] == ["28", "2", "1", "29"]


def test_gallery_shows_each_mistake_with_its_photo(full: str):
    page = Page(full)
    assert len(page.all("li")) == 3
    assert [photo["alt"] for photo in page.all("img")] == ["Photo labelled cats", "Photo labelled dogs"]
    assert "no photo" in page.words("span")
    assert "".join(page.words("code")).startswith("photo/0.jpgphoto/1.jpgphoto/2.jpg")
    assert " 99.00\u202f%" in page.words("figcaption")  # the first mistake's, sure of the wrong class


@pytest.mark.usefixtures("no_plots")
def test_gallery_is_limited_and_may_be_empty():
    rows = predicted(mistakes=40)
    page = Page(render(rows, photos=dict.fromkeys(rows.ids, jpeg()), photos_note="Why <b>not</b>."))
    assert len(page.all("img")) == result.WORST
    assert "Why <b>not</b>." in page.words("p")
    many = "24 of 40, the most confident mistakes first, as the model sees them, with the probability of the class it chose."
    assert many in Page(render(predicted(mistakes=40))).words("p")
    assert "There is none: every photo is predicted right." in Page(render(predicted(mistakes=0))).words("p")


def test_names_from_strangers_are_text():
    rows = predicted(names=EVIL)
    skipped = [{"id": EVIL, "reason": EVIL}]
    rows = Predicted(EVIL, rows.ids, rows.labels, rows.probabilities, skipped)
    configuration = {EVIL: {EVIL: EVIL, "nested": {EVIL: [EVIL]}}}
    page = render(
        rows,
        classes=(EVIL, f"z{EVIL}"),
        photos={rows.ids[0]: jpeg()},
        photos_note=EVIL,
        history=HISTORY,
        configuration=configuration,
    )
    tree = Page(page)
    assert "<script" not in page
    assert len(tree.all("img")) == 1
    assert tree.words("h1") == [f"{EVIL} or z{EVIL}"]
    assert tree.all("img")[0]["alt"] == f"Photo labelled {EVIL}"
    assert EVIL in tree.words("summary")
    # Three mistakes, a skipped photo, a setting; the nested one is in JSON
    assert "".join(tree.words("code")).count(EVIL) == 5


@pytest.mark.usefixtures("no_plots")
def test_skipped_photos_are_listed_with_their_reasons():
    rows = predicted()
    rows = Predicted("photos", rows.ids, rows.labels, rows.probabilities, [{"id": "a.jpg", "reason": "damaged"}])
    page = Page(render(rows))
    assert "a.jpg" in page.words("code")
    assert "damaged" in page.words("td")
    assert "1 could not be decoded and count nowhere." in page.words("p")


@pytest.mark.usefixtures("no_plots")
def test_missing_history_is_said():
    assert "The run directory holds no history.csv." in Page(render(predicted())).words("p")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("split", "notes"), [("test", 0), ("validation", 1), ("train", 1)])
def test_only_the_test_split_goes_without_a_warning(split: str, notes: int):
    assert render(predicted(n=1000), split=split).count('class="note"') == notes


@pytest.mark.usefixtures("no_plots")
def test_few_photos_are_said_to_be_few_at_the_top():
    page = Page(render(predicted(mistakes=0, n=14)))
    assert "14 test photos: with no mistake among them, the share of mistakes may still be up to 22 %." in page.words(
        "p"
    )
    assert "78.47 – 100.00\u202f%" in page.words("dd")


@pytest.mark.usefixtures("no_plots")
def test_the_footnote_says_how_each_interval_is_made(full: str):
    caption = "".join(Page(full).words("caption"))
    assert "Accuracy, Precision, Recall: Wilson’s interval of a share." in caption
    for metric in METRICS.values():
        assert metric.title in caption
    assert "few mistakes" in Page(full).words("small")  # the log loss's, of three


@pytest.mark.usefixtures("no_plots")
def test_metrics_that_were_written_before_are_shown_with_their_own_intervals():
    old = json.loads((Path(__file__).parents[2] / "artifacts" / "default" / "metrics.json").read_text())
    for one in old["metrics"].values():
        for new in ("method", "by_chance"):
            one.pop(new, None)
    old.pop("warnings", None)
    old["metrics"]["ece"] |= {"low": 0.0041, "high": 0.0113}
    old["metrics"]["log_loss"] |= {"low": 0.0263, "high": 0.0448}
    old["abstention"] = {"abstain_below": 0.583, "coverage": 0.991, "accuracy": 0.9884}
    rows = predicted()
    page = Page(evaluation_page.render(old, rows.labels, rows.probabilities[:, 0]))
    assert "Intervals: percentiles over 2,000 resamples of the photos." in "".join(page.words("caption"))
    assert "0.0041 – 0.0113" in page.words("small")
    assert "Confidence 0.583 or more: 99.10\u202f% of them, 98.84\u202f% right." in page.words("p")


def test_a_single_epoch_and_confidences_in_one_bin_can_be_drawn():
    rows = Predicted("photos", ["a", "b"], np.array([0, 1]), np.array([[0.01], [0.99]]), [])
    page = render(rows, history={name: column[:1] for name, column in HISTORY.items()})
    assert page.count("<svg") == 2  # the ROC curve and the calibration; one epoch makes no curve
    assert "There is one epoch, and so no curve: a linear head is fitted exactly, at once." in Page(page).words("p")


def test_same_input_gives_the_same_bytes(full: str):
    rows = predicted(views=2)
    photos = {rows.ids[0]: jpeg(), rows.ids[1]: jpeg()}
    assert render(rows, history=HISTORY, photos=photos, configuration={"Recipe": {"l2": 0.5}}) == full


# ----------------------------------------------------------------------------------------------------
# plots and colours


def test_plots_take_every_colour_from_the_page(full: str):
    plots = re.findall(r"<svg.*?</svg>", full, re.DOTALL)
    assert len(plots) == 4
    for plot in plots:
        assert not re.findall(r"#[0-9a-fA-F]{3,6}\b(?=[;\"])", plot)
        for text in re.findall(r"<text[^>]*>", plot):  # without a fill it would be black, in the dark too
            assert "fill: var(--" in text
        assert {"ink", "muted", "line", "accent"} <= set(re.findall(r"var\(--(\w+)\)", plot))
    variables = set(re.findall(r"var\(--(\w+)\)", full)) - {"share", "tint"}
    root, dark = re.findall(r":root\{([^}]*)\}", full)
    assert variables <= set(re.findall(r"--(\w+):", root)) == set(re.findall(r"--(\w+):", dark))


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("behind", ["paper", "card"])
@pytest.mark.parametrize("front", ["ink", "muted", "accent", "error"])
def test_text_has_the_contrast_that_wcag_asks_for(full: str, front: str, behind: str, mode: int):
    palette = re.findall(r":root\{([^}]*)\}", full)[mode]
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6});", palette))
    low, high = sorted((luminance(colours[front]), luminance(colours[behind])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_roc_of_a_good_model_is_enlarged_and_of_a_poor_one_is_not():
    labels = np.arange(100) % 2
    good = np.where(labels == 1, 0.9, 0.1)
    assert "enlarged" in plots.roc(labels, good)
    assert "enlarged" not in plots.roc(labels, np.roll(good, 1))


def test_reliability_draws_an_interval_for_each_filled_bin():
    labels, probabilities = np.array([0, 1, 1, 1]), np.array([0.1, 0.55, 0.75, 0.99])
    plot = plots.reliability(calibration_bins(labels, probabilities))
    intervals = re.search(r'id="reliability-LineCollection_1">(.*?)</g>', plot, re.DOTALL)
    assert intervals is not None
    assert intervals[1].count("<path") == 4


def test_pyplot_and_its_global_state_stay_out():
    program = """
import sys, matplotlib
from catdog_jax.reporting import plots
before = dict(matplotlib.rcParams)
import numpy as np
plots.roc(np.array([0, 1]), np.array([0.1, 0.9]))
assert dict(matplotlib.rcParams) == before
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ----------------------------------------------------------------------------------------------------
# small things


def test_thumbnail_is_a_small_jpeg():
    buffer = io.BytesIO()
    Image.new("RGBA", (900, 300), (255, 0, 0, 255)).save(buffer, "PNG")
    image = Image.open(io.BytesIO(evaluation_page.thumbnail(buffer.getvalue(), DEFAULT)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (160, 160))
    with pytest.raises(ImageError):
        evaluation_page.thumbnail(b"no photo", DEFAULT)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.5, "50.00\u202f%"), (0.99989, "99.99\u202f%"), (0.99999, "over 99.99\u202f%"), (1.0, "over 99.99\u202f%")],
)
def test_a_mistake_is_never_fully_sure(share: float, text: str):
    assert evaluation_page.confidence(share) == text


def test_the_line_on_abstention_has_intervals():
    told = evaluation_page.abstention(abstention(np.arange(20) % 2, np.linspace(0.05, 0.95, 20), 0.6))
    assert re.fullmatch(
        r"confidence 0.600 or more: 80.00\u202f% \(58.40 – 91.93\u202f%\) of them, 50.00\u202f% \(.*\) right", told
    )
