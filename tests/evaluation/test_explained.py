"""What the report says of its figures: sentences with the numbers of the photos at hand."""

import json
from pathlib import Path

import pytest

from catdog_jax.evaluation import explained
from catdog_jax.reporting import metrics

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


def summary(counts: list[list[int]], **more) -> dict:
    return {"classes": ["cats", "dogs"], "split": "test", "confusion": counts, **more}


def measured(counts: list[list[int]]) -> dict[str, metrics.Measured]:
    """The figures of decisions of which each is 90 % sure."""
    (a, b), (c, d) = counts
    labels = [0] * (a + b) + [1] * (c + d)
    return metrics.measure(labels, [0.1] * a + [0.9] * b + [0.1] * c + [0.9] * d, resamples=20)


def test_the_figures_are_those_of_the_photos():
    counts = [[8, 2], [5, 85]]
    told = explained.figures(summary(counts), measured(counts))
    accuracy, guess, balanced, second, auc, losses = told
    assert accuracy.startswith("Accuracy: 93 of 100 test photos are judged right, 93.00\u202f%.")
    assert "from 86.25 to 96.57\u202f%" in accuracy
    assert "answers “dogs” each time, without looking, is right for 90.00\u202f%" in guess
    assert "makes 10 mistakes; the model makes 7." in guess
    assert "8 of 10 photos of cats are right and 85 of 90 of dogs; the mean of both shares is 87.22\u202f%" in balanced
    assert "85 of 87 photos that are called dogs are of dogs" in second
    assert "85 of 90 photos of dogs are found" in second
    assert auc.startswith("ROC AUC: of one photo of cats and one of dogs")
    assert "says 90.00\u202f% dogs of every photo, has a log loss of 0.3251 and a Brier score of 0.0900" in losses


@pytest.mark.parametrize(
    ("threshold", "said"), [(0.5, ""), (0.2, "more photos of dogs are found"), (0.8, "more photos of cats are found")]
)
def test_mistakes_are_named_and_another_threshold_too(threshold: float, said: str):
    told = explained.confusion(summary([[8, 2], [5, 85]], threshold=threshold))
    assert "2 photos of cats are taken for dogs (upper right), 5 of dogs for cats (lower left)" in told[0]
    assert len(told) == (2 if said else 1)
    assert said in told[-1]
    (curve,) = explained.roc(summary([[8, 2], [5, 85]], threshold=threshold))
    assert f"in use, {threshold}: 2 of 10 photos of cats are called dogs wrongly" in curve


def test_the_course_of_a_training():
    history = {"epoch": [1.0, 2.0, 3.0], "validation_loss": [0.6, 0.4, 0.5]}
    (told,) = explained.training(history)
    assert "was 0.6000 after the first epoch and lowest, 0.4000, after epoch 2 of 3" in told
    assert explained.training(None) == explained.training({"epoch": [1.0], "validation_loss": [0.1]}) == []


@pytest.mark.parametrize("path", sorted(ARTIFACTS.glob("*/metrics*.json")), ids=lambda path: path.parent.name)
def test_figures_that_were_written_before_are_explained_too(path: Path):
    written = json.loads(path.read_text())
    found = {name: metrics.Measured.from_json(one) for name, one in written["metrics"].items()}
    right = written["confusion"][0][0] + written["confusion"][1][1]
    assert f"{right:,} of {written['n']:,}" in explained.figures(written, found)[0]
    assert "Chance alone makes it up to" in explained.calibration(written, found)[0] or found["ece"].by_chance is None
    assert explained.confusion(written)
    assert explained.roc(written)
