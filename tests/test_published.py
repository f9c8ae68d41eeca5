"""What artifacts/ publishes: it can be read, it says what the model card says, and retraining on it reaches its figure."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from helpers.networks import exactly, is_exact, kernels, on_an_old_cpu, probabilities

from catdog_jax.backbone import vgg16
from catdog_jax.commands import train
from catdog_jax.config import PRESETS, TrainConfig
from catdog_jax.deployment import precisions
from catdog_jax.features.cache import FeatureCache
from catdog_jax.heads import head
from catdog_jax.photos.demo import drawing
from catdog_jax.reporting.metrics import PERCENT, Measured, shown
from scripts.experiments import reproduce

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
MAX_BYTES = 45_000_000
MACHINES = {"EPYC": "AMD-EPYC-AVX512F", "Xeon": "Intel-R-Xeon-R-Processor-AVX512F"}  # in the order of the page
CONTESTS = {"convolutions": "forward", "from JPEG files": "extract", "fit of the default head": "fit"}


def published(name: str) -> dict[str, float]:
    found = json.loads((ARTIFACTS / name / "metrics.json").read_text())
    assert (found["split"], found["n"]) == ("test", 2000)
    return {metric: one["value"] for metric, one in found["metrics"].items()}


@pytest.mark.lenient_types
def test_retraining_on_the_published_features_reaches_the_published_figure(tmp_path):
    cache = FeatureCache.open(ARTIFACTS / "features")
    assert [cache.rows(split) for split in ("train", "validation", "test")] == [15_000, 2_000, 2_000]
    fitted = train.train(TrainConfig(features=cache.path, out=tmp_path))
    probabilities = head.probabilities(fitted.params, cache.load("test", "avg")[:, 0])
    accuracy = sklearn.metrics.accuracy_score(cache.labels("test"), probabilities >= 0.5)
    assert accuracy == pytest.approx(published("retrained")["accuracy"], abs=0.002)


def test_the_published_head_is_the_one_that_was_judged():
    fitted = head.load(ARTIFACTS / "default" / "head.safetensors")
    metrics = json.loads((ARTIFACTS / "default" / "metrics.json").read_text())
    assert metrics["head_sha256"] == head.digest(fitted.params)
    assert published("default")["accuracy"] > 0.98


def test_the_published_file_answers_alike_on_every_cpu():
    model = (ARTIFACTS / "default" / "model-int8.onnx").read_bytes()
    assert precisions.saturating(model) == []
    assert len(kernels(model)) == len(vgg16.LAYERS)
    assert all(is_exact(kernel) for kernel in kernels(model).values())
    photos = drawings()  # on a CPU without VNNI the two sessions compute differently
    np.testing.assert_allclose(probabilities(model, photos), exactly(model, photos), atol=1e-4)


@pytest.mark.long
def test_the_published_file_answers_alike_on_an_emulated_old_cpu(tmp_path):
    model, photos = (ARTIFACTS / "default" / "model-int8.onnx").read_bytes(), drawings()[:1]
    np.testing.assert_allclose(on_an_old_cpu(model, photos, tmp_path), exactly(model, photos), atol=1e-4)


def drawings() -> np.ndarray:
    return np.stack([np.asarray(drawing.draw(kind, np.random.default_rng(4))) for kind in ("cat", "dog")])


def test_the_default_preset_is_the_best_head_of_the_sweep():
    with open(ARTIFACTS / "sweep" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    best = min(rows, key=lambda row: float(row["validation_log_loss"]))
    default = PRESETS["default"]
    assert (best["pool"], best["hidden"]) == (default.pool, "x".join(map(str, default.hidden)))
    for name in ("dropout", "l2", "learning_rate", "decay_rate", "label_smoothing"):
        assert float(best[name]) == getattr(default, name)


def test_features_and_head_are_of_the_same_weights():
    fitted = head.load(ARTIFACTS / "default" / "head.safetensors")
    cache = FeatureCache.open(ARTIFACTS / "features")
    for key in ("weights_sha256", "preprocessing", "image", "classes"):
        assert getattr(fitted.fingerprint, key) == getattr(cache.fingerprint, key)
    assert np.isfinite(cache.load("validation", "avg")).all()


def test_one_command_publishes_everything_that_is_of_photos():
    """But for what is of a machine, of drawings, or written by hand."""
    others = {"MODEL_CARD.md", "demo.jpg", "page.jpg", "engines.json", "faults.json"}
    named = {
        f"{folder}/{'report.html' if name == reproduce.PUBLISHED_REPORT else name}"
        for folder, names in (reproduce.MODELS | reproduce.STUDIES).items()
        for name in names
    }
    files = {path.relative_to(ARTIFACTS).as_posix() for path in ARTIFACTS.rglob("*") if path.is_file()}
    found = {name for name in files if name.split("/")[0] not in ("benchmarks", "features")} - others
    assert found <= named


def test_nothing_published_is_a_photo_and_all_of_it_is_small():
    files = [path for path in ARTIFACTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    pictures = {path.name for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".bmp")}
    assert pictures <= {"demo.jpg", "page.jpg"}  # both drawn by the program


def test_readme_shows_the_same_table_of_results():
    """Its rows are rows of the page; a row may have fewer columns there."""
    readme = (ARTIFACTS.parent / "README.md").read_text().splitlines()
    rows = (ARTIFACTS.parent / "docs" / "results.md").read_text().splitlines()
    for title in ("accuracy", "F1", "calibration error"):
        (short,) = [cells(row) for row in readme if row.startswith(f"| {title}")]
        (full,) = [cells(row) for row in rows if row.startswith(f"| {title}")][:1]
        assert [cell for cell in full if cell in short] == short


def medians(machine: str, contest: str) -> dict[str, float]:
    """The rates that were measured, by the name of each side without commas."""
    (path,) = (ARTIFACTS / "benchmarks").glob(f"{MACHINES[machine]}-2-cores.json")
    sides = json.loads(path.read_text())["results"][contest]["sides"]
    return {name.replace(",", ""): side["median"] for name, side in sides.items() if "median" in side}


def test_readme_tells_the_speeds_that_were_measured():
    """Each ratio against the fastest way of each other program, in the same type."""
    readme = (ARTIFACTS.parent / "README.md").read_text()
    _, _, table = readme.partition("| ours / theirs |")
    heading, _, *rows = table.partition("\n\n")[0].splitlines()
    assert len(rows) == 5
    for row in rows:
        title, *ratios = [cell.strip() for cell in row.strip("|").split("|")]
        contest = next(name for start, name in CONTESTS.items() if title.startswith(start))
        rates = medians(next(machine for machine in MACHINES if machine in title), contest)
        ours = rates["catdog_jax" + " bfloat16" * ("bfloat16" in title)]
        assert float(title.split(", ")[-1].split()[0]) == pytest.approx(ours, rel=0.03)
        for peer, ratio in zip(heading.strip(" |").split("|"), ratios, strict=True):
            alike = [
                rate
                for name, rate in rates.items()
                if name.startswith(peer.strip()) and ("bfloat16" in name) == ("bfloat16" in title)
            ]
            assert ratio == (f"{ours / max(alike):.2f}" if alike else "")


def test_the_page_of_speed_tells_what_was_measured():
    page = (ARTIFACTS.parent / "docs" / "speed.md").read_text()
    tables = page.split("| | photos/s | lowest and highest | ours / theirs |\n")[1:]
    assert len(tables) == 2
    for machine, table in zip(MACHINES, tables, strict=True):
        rates = medians(machine, "forward")
        for row in table.partition("\n\n")[0].splitlines()[1:]:
            title, rate, _, ratio = [cell.strip() for cell in row.strip("|").split("|")]
            plain = re.sub(r" [\d.]+\b|[*,]| float32| a C\+\+", "", title).replace("without", "without a")
            assert float(rate) == pytest.approx(rates[plain], abs=0.051)
            ours = rates["catdog_jax" + " bfloat16" * ("bfloat16" in plain and "catdog_jax bfloat16" in rates)]
            assert ratio in (f"{ours / rates[plain]:.2f}", "")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|") if cell.strip()]


def test_the_model_card_says_what_was_measured():
    metrics = json.loads((ARTIFACTS / "default" / "metrics.json").read_text())
    card = (ARTIFACTS / "MODEL_CARD.md").read_text()
    results = (ARTIFACTS.parent / "docs" / "results.md").read_text()
    for name, title in {
        "accuracy": "accuracy",
        "f1": "F1",
        "roc_auc": "ROC AUC",
        "log_loss": "log loss",
        "ece": "calibration error",
    }.items():
        row = "| {} | {} ({}) |".format(title, *shown(name, Measured.from_json(metrics["metrics"][name]))).replace(
            PERCENT, " %"
        )
        assert row in card
        assert row in results
    sure = metrics["abstention"]
    covered = f"{sure['accuracy']:.2%} of {sure['coverage']:.1%}".replace("%", " %")
    assert f"confidence is {sure['abstain_below']:.3f} or more | {covered} of the photos |" in card
