"""What robustness.py and corruptions.py do: strengths that spoil more and more, rows that a hand counts, a run that goes on."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from catdog_jax.photos import decoding
from catdog_jax.photos.recipe import FIRST
from catdog_jax.runtime.decision import Rule
from scripts.experiments import corruptions, robustness, tables


def photo() -> bytes:
    """Waves of every frequency and colour, so that each way to spoil a photo shows."""
    y, x = np.mgrid[:160, :200] / 20
    waves = np.stack([np.sin(x * x), np.sin(y * y), np.sin(x * y)], axis=-1)
    file = io.BytesIO()
    Image.fromarray((128 + 100 * waves).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_stronger_corruption_leaves_less_of_the_photo(name):
    whole = decoding.decode(photo(), FIRST).astype(float)
    strengths = corruptions.CORRUPTIONS[name].strengths
    weakest, strongest = (
        np.abs(corruptions.corrupt(photo(), name, strength, np.random.default_rng(0), FIRST) - whole).mean()
        for strength in (strengths[0], strengths[-1])
    )
    assert weakest > 0
    assert weakest < strongest or name == "rotation"  # half a turn is as far as any


@pytest.mark.parametrize("name", corruptions.STRANGERS)
def test_pictures_of_neither_class_are_drawn_by_their_seed(name):
    one, same, other = (
        corruptions.decoded(corruptions.STRANGERS[name](np.random.default_rng(seed)), FIRST) for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


def says(pictures: np.ndarray) -> np.ndarray:
    """In the place of a model: the second class by as much as the first pixel is red."""
    second = pictures[:, 0, 0, 0].astype(np.float64) / 255
    return np.stack([1 - second, second], axis=1)


def red(*levels: int) -> list[np.ndarray]:
    return [np.full((224, 224, 3), level, np.uint8) for level in levels]


def test_a_row_is_what_a_hand_counts():
    labels = np.array([1, 1, 0, 0])
    model = SimpleNamespace(probabilities=says, rule=Rule(("cats", "dogs")))
    row = robustness.judge(model, red(255, 51, 0, 102), labels, 0.7, ("model", "photos", ""))
    assert (row.count, row.accuracy, row.second_class, row.sure, row.abstained) == (4, 0.75, 0.25, 0.5, 0.25)
    assert row.mean_confidence == pytest.approx((1 + 0.8 + 1 + 0.6) / 4)
    assert row.log_loss == pytest.approx(-(np.log(0.2) + np.log(0.6)) / 4, abs=1e-6)
    assert row.low == pytest.approx(0.3006, abs=1e-4)  # Wilson's interval of 3 in 4, from a table
    assert row.high == pytest.approx(0.9544, abs=1e-4)
    stranger = robustness.judge(model, red(255, 0), None, None, ("model", "text", ""))
    assert (stranger.accuracy, stranger.abstained, stranger.second_class) == ("", "", 0.5)
    text = tables.as_csv(robustness.Row._fields, [row, stranger], digits=5).decode()
    assert robustness.read_table(text) == [
        row._replace(log_loss=float(f"{row.log_loss:.5g}"), low=float(f"{row.low:.5g}"), high=float(f"{row.high:.5g}")),
        stranger,
    ]


def test_the_model_decides_by_its_own_threshold():
    model = SimpleNamespace(probabilities=says, rule=Rule(("cats", "dogs"), threshold=0.2))
    row = robustness.judge(model, red(255, 60, 0, 102), np.array([1, 1, 0, 0]), 0.7, ("model", "photos", ""))
    assert (row.accuracy, row.second_class) == (0.75, 0.75)
    assert row.abstained == 0.5  # sure of 100 % of dogs and of cats, of 24 and 40 % of dogs not


def test_rows_of_another_layout_are_not_read():
    assert robustness.read_table("model,pictures\n1,2\n") == []
    heading = ",".join(robustness.Row._fields)
    assert robustness.read_table(f"{heading}\nm,photos,,many,1,1,1,1,1,1,1,1\n") == []
    assert robustness.read_table("") == []


def test_the_published_figures_are_whole():
    folder = Path(__file__).parents[2] / "artifacts" / "robustness"
    rows = robustness.read_table((folder / "robustness.csv").read_text())
    expected = sum(len(one.strengths) for one in corruptions.CORRUPTIONS.values()) + len(corruptions.STRANGERS)
    assert len({(row.pictures, row.strength) for row in rows}) == len(rows) == expected + 3
    with Image.open(io.BytesIO(robustness.plot(rows))) as drawn:
        assert drawn.height > 200 * -(-len(corruptions.CORRUPTIONS) // 3)


def test_wrong_usage_is_one_line(tmp_path, capsys):
    assert robustness.run(["--photos", "1"]) == 2
    assert "--photos and --seed: expected 2 and 0 or more, found 1 and 0." in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text("{}")
    model = str(Path(__file__).parents[2] / "artifacts" / "default" / "model-int8.onnx")
    assert robustness.run(["--run", str(tmp_path), "--model", model]) == 1
    assert "expected 'abstain_below' under 'abstention', found none" in capsys.readouterr().err
