"""The experiment on squares: each original is judged by a head that has seen it in neither form."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from catdog_jax.config import EXACT_L2
from catdog_jax.errors import CatdogError
from catdog_jax.photos.dataset import Record
from scripts.experiments.squares import Photos, Row, SquaresConfig, end, judged, logits, main


@pytest.fixture(scope="module")
def squashed() -> Photos:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    return Photos((rng.normal(size=(60, 5)) + y[:, None]).astype(np.float32), y, [f"train/{i}.jpg" for i in range(60)])


def test_each_original_is_judged_by_heads_of_the_other_photos(squashed):
    """Against scikit-learn, which fits each head alone to the photos of the other folds."""
    rng = np.random.default_rng(1)
    picked = rng.permutation(60)[:20]
    originals = Photos(
        squashed.x[picked] + rng.normal(0, 0.1, (20, 5)).astype(np.float32),
        squashed.y[picked],
        [squashed.ids[i] for i in picked],
    )
    found = logits(squashed, [originals], 4, seed=3)
    parts = np.random.default_rng(3).permutation(20) % 4
    centre = squashed.x.mean(axis=0)
    length = np.sqrt(((squashed.x - centre) ** 2).sum(axis=1).mean())
    for part in range(4):
        seen = ~np.isin(np.arange(60), picked[parts == part])
        n = int(seen.sum())
        alone = LogisticRegression(C=1 / (2 * n * (EXACT_L2 / n)), tol=1e-10, max_iter=1000)
        alone.fit(((squashed.x[seen] - centre) / length).astype(np.float64), squashed.y[seen])
        expected = alone.decision_function(((originals.x[parts == part] - centre) / length).astype(np.float64))
        np.testing.assert_allclose(found[parts == part], expected, atol=1e-4)


def test_a_photo_in_both_forms_is_seen_in_neither(squashed):
    """What a head says of a photo does not depend on that photo's own rows; views are averaged."""
    views = [squashed, squashed._replace(x=-squashed.x)]
    both = Photos(np.concatenate([squashed.x] * 2), np.concatenate([squashed.y] * 2), squashed.ids * 2)
    found = logits(both, views[:1], 60, seed=0)
    spoiled = both._replace(y=both.y.copy())
    spoiled.y[[7, 67]] ^= 1
    assert logits(spoiled, views[:1], 60, seed=0)[7] == pytest.approx(found[7], abs=1e-6)
    assert logits(spoiled, views[:1], 60, seed=0)[8] != pytest.approx(found[8], abs=1e-6)
    other = logits(both, views[1:], 60, seed=0)
    np.testing.assert_allclose(logits(both, views, 60, seed=0), (found + other) / 2)


def test_the_squares_at_both_ends_are_those_of_the_longer_side():
    ramp = np.broadcast_to(np.arange(90, dtype=np.uint8)[None, :, None], (40, 90, 3))
    for turned in (False, True):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(ramp.transpose(1, 0, 2) if turned else ramp)).save(file, "PNG")
        record = Record("a.png", 0, "train", 1, file.getvalue)
        start, last = (np.asarray(Image.open(io.BytesIO(end(record, which)))) for which in ("start", "end"))
        assert start.shape == last.shape == (40, 40, 3)
        along = (slice(None), 0) if turned else (0, slice(None))
        assert (start[along][:, 0] == np.arange(40)).all()
        assert (last[along][:, 0] == np.arange(50, 90)).all()


def test_a_row_counts_mistakes_of_both_classes():
    named = Row("crop", "224", "original", 40.0, "both", 0, 0, 0, 0, 0, 0, 0)
    row = judged(named, np.array([0, 0, 1, 1]), np.array([-1.0, 2.0, 3.0, -4.0]))
    assert row[:5] == named[:5]
    assert (row.photos, row.mistakes, row.accuracy, row.of_second) == (4, 2, 0.5, 1)
    assert row.log_loss == pytest.approx(np.log1p(np.exp([-1.0, 2.0, -3.0, 4.0])).mean())


def test_an_original_of_other_photos_is_an_error(tmp_path):
    for name in ("a", "b"):
        for place in itertools.product(("train", "validation", "test"), ("cats", "dogs")):
            path = tmp_path.joinpath(*place, f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    config = SquaresConfig(originals=tmp_path, work=tmp_path, out=tmp_path)
    with pytest.raises(CatdogError, match=r"\.png: expected a photo that --features holds too, found none\."):
        main(config)
