"""The ablation: its paired test against a hand-made count, its rows from a tiny cache, its order and its plot."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import ablate

from catdog_jax import data, demo, images

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)


def judged(wrong: list[int], seeds: int = 1) -> dict[str, np.ndarray]:
    """Probabilities of 0.9 for the right class, and for the wrong one of some photos."""
    right = np.where(LABELS > 0.5, 0.9, 0.1)
    right[wrong] = 1 - right[wrong]
    return {"probabilities": np.stack([right] * seeds), "labels": LABELS, "train_rows": np.array(100)}


def test_a_row_counts_what_only_one_of_two_gets_right():
    variant = ablate.variants(False)[4]
    found = ablate.row(variant, judged([0, 1, 2, 5], seeds=3), judged([0, 7]))
    assert (found.only_right, found.only_baseline_right) == (1, 3)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 4, 0.5))
    assert (found.accuracy, found.accuracy_low, found.accuracy_high, found.seeds) == (0.5, 0.5, 0.5, 3)
    assert found.train_rows == 100
    assert found.interval_low < 0.5 < found.interval_high


def test_heads_that_decide_alike_do_not_differ():
    found = ablate.row(ablate.variants(False)[0], judged([3]), judged([3]))
    assert (found.only_right, found.only_baseline_right, found.p_value) == (0, 0, 1.0)


def test_every_row_has_its_baseline_before_it_and_a_name_of_its_own():
    for subset in (False, True):
        rows = ablate.variants(subset)
        names = [one.name for one in rows]
        assert len(set(names)) == len(names)
        assert all(one.baseline in names[: place + 1] for place, one in enumerate(rows))
        assert any(one.subset for one in rows) == subset


def test_the_plot_has_a_line_a_row():
    rows = [ablate.row(one, judged([0]), judged([1])) for one in ablate.variants(True)]
    with Image.open(io.BytesIO(ablate.plot(rows))) as picture:
        assert picture.height > 20 * len(rows)
    assert ablate.table(rows).count("\n") == len(rows) + 1


def test_cells_are_pooled_as_float64_pools_them():
    cells = np.random.default_rng(0).uniform(0, 3, (2, 7, 7, 512)).astype(np.float16)
    exact = cells.astype(np.float64)
    found = {kind: ablate._pooled(cells.reshape(2, -1), kind) for kind in ("gem", "quadrants")}
    assert np.allclose(found["gem"], ((exact**3).sum((1, 2)) / 49) ** (1 / 3), rtol=1e-5)
    assert np.allclose(found["quadrants"][:, 512:1024], exact[:, :4, :4].mean((1, 2)), rtol=1e-5)
    assert np.allclose(found["quadrants"][:, -512:], exact[:, 3:, 3:].mean((1, 2)), rtol=1e-5)
    assert found["quadrants"].shape == (2, 5 * 512)


def test_photos_are_resized_by_the_nearest_pixel_or_smoothly():
    checks = np.indices((448, 448)).sum(0) % 2 * np.uint8(255)
    file = io.BytesIO()
    Image.fromarray(checks.astype(np.uint8)).convert("RGB").save(file, "PNG")
    nearest, smooth = (np.asarray(Image.open(io.BytesIO(ablate._resized(file.getvalue(), one)))) for one in (True, False))
    assert nearest.shape == smooth.shape == (224, 224, 3)
    assert set(np.unique(nearest)) <= {0, 255}
    assert np.abs(smooth[8:-8, 8:-8].astype(int) - 127).max() <= 2


def test_larger_squares_are_of_the_same_photos_in_the_same_order(tmp_path):
    config = ablate.AblateConfig(data=demo.draw_once(), photos=(4, 2, 2), work=tmp_path)
    folder, records = ablate._placed(config, nearest=False)
    placed = data.load(str(folder))
    for split, count in zip(data.SPLITS, config.photos, strict=True):
        assert [f"{one.id}.png" for one in records[split]] == [one.id for one in placed.split(split)]
        assert len(records[split]) == count
        pairs = zip(records[split], placed.split(split), strict=True)
        assert all((images.decode(one.read()) == images.decode(other.read())).all() for one, other in pairs)
