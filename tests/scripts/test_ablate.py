"""The ablation: its paired test against a hand-made count, its rows from a tiny cache, its order and its plot."""

import dataclasses
import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

from catdog_jax.backbone import vgg16
from catdog_jax.backbone.pooling import Pool
from catdog_jax.errors import UsageError
from catdog_jax.heads.rows import Chunk
from catdog_jax.photos import decoding, sources
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.recipe import DEFAULT, FIRST, DecodingRecipe
from scripts.experiments import ablate, ablation_rows, tables

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)


def judged(wrong: list[int], seeds: int = 1) -> dict[str, np.ndarray]:
    """Probabilities of 0.9 for the right class, and for the wrong one of some photos."""
    right = np.where(LABELS > 0.5, 0.9, 0.1)
    right[wrong] = 1 - right[wrong]
    return {
        "probabilities": np.stack([right] * seeds),
        "labels": LABELS,
        "train_rows": np.array(100),
        "validated": np.stack([right] * seeds),
        "validation_labels": LABELS,
        "validation_originals": LABELS > 0.5,
    }


def test_a_row_counts_what_only_one_of_two_gets_right():
    variant = ablate.variants(False, False)[4]
    found = ablate.row(variant, judged([0, 1, 2, 5], seeds=3), judged([0, 7]))
    assert (found.only_right, found.only_baseline_right) == (1, 3)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 4, 0.5))
    assert (found.accuracy, found.accuracy_low, found.accuracy_high, found.seeds) == (0.5, 0.5, 0.5, 3)
    assert found.train_rows == 100
    assert found.interval_low < 0.5 < found.interval_high
    assert (found.validation_mistakes, found.original_mistakes) == (3, 1)
    assert found.validation_log_loss == pytest.approx(-np.log([0.9, 0.1]).mean())


def test_heads_that_decide_alike_do_not_differ():
    found = ablate.row(ablate.variants(False, False)[0], judged([3]), judged([3]))
    assert (found.only_right, found.only_baseline_right, found.p_value) == (0, 0, 1.0)


def test_every_row_has_its_baseline_before_it_and_a_name_of_its_own():
    for subset in (False, True):
        rows = ablate.variants(subset, keras=True, sizes=subset)
        names = [one.name for one in rows]
        assert len(set(names)) == len(names)
        assert all(one.baseline in names[: place + 1] for place, one in enumerate(rows))
        assert any(one.subset for one in rows) == subset
        assert any(one.both_sizes for one in rows) == subset
        assert all(DecodingRecipe(size=one.size).size == one.size for one in rows)  # which refuses others


def test_the_plot_has_a_line_a_row():
    rows = [ablate.row(one, judged([0]), judged([1])) for one in ablate.variants(True, True)]
    with Image.open(io.BytesIO(ablate.plot(rows))) as picture:
        assert picture.height > 20 * len(rows)


def test_cells_are_pooled_as_float64_pools_them():
    cells = np.random.default_rng(0).uniform(0, 3, (2, 7, 7, 512)).astype(np.float16)
    exact = cells.astype(np.float64)
    found = {
        kind: ablation_rows._pooled(cells.reshape(2, -1), kind)
        for kind in ("gem", "quadrants", "all three", "second order")
    }
    assert np.allclose(found["gem"], ((exact**3).sum((1, 2)) / 49) ** (1 / 3), rtol=1e-5)
    assert np.allclose(found["quadrants"][:, 512:1024], exact[:, :4, :4].mean((1, 2)), rtol=1e-5)
    assert np.allclose(found["quadrants"][:, -512:], exact[:, 3:, 3:].mean((1, 2)), rtol=1e-5)
    assert found["quadrants"].shape == (2, 5 * 512)
    for kind in ("all three", "second order"):
        assert np.allclose(found[kind][:, :512], exact.mean((1, 2)), rtol=1e-5)
        assert np.allclose(found[kind][:, 512:1024], exact.max((1, 2)))
    assert np.array_equal(found["all three"][:, 1024:], found["gem"])
    drawn = np.random.default_rng(0).normal(0, 512**-0.5, (512, 64)).astype(np.float32).astype(np.float64)
    flat = exact.reshape(2, 49, 512) @ drawn
    products = np.einsum("nca,ncb->nab", flat, flat) / 49
    rows, columns = np.triu_indices(64)
    expected = np.sign(products) * np.sqrt(np.abs(products))
    assert np.allclose(found["second order"][:, 1024:], expected[:, rows, columns], atol=1e-3)


def test_block_4_stands_beside_block_5_as_flax_computes_them(real_weights):
    photos = np.stack([decoding.decode(record.read(), DEFAULT) for record in sources.load("demo").split("test")[:2]])
    _, state = vgg16.VGG16().apply(
        {"params": real_weights.params},
        vgg16.normalise(jnp.asarray(photos), real_weights.mode),
        capture_intermediates=lambda module, _: module.name in ("block4_conv3", "block5_conv3"),
    )
    found = np.asarray(ablation_rows._both_blocks(real_weights)(photos))
    assert found.shape == (2, 2048)
    for place, name in enumerate(("block5_conv3", "block4_conv3")):
        cells = vgg16.max_pool(jnp.maximum(state["intermediates"][name]["__call__"][0], 0))
        part = found[:, 1024 * place : 1024 * (place + 1)]
        assert np.allclose(part, Pool.AVG_MAX.apply(cells), rtol=1e-3, atol=1e-3 * part.max())


def test_mixup_mixes_rows_and_labels_alike_and_again():
    x = np.eye(64, dtype=np.float32)
    (load,) = ablation_rows.mixed([lambda: Chunk(x, np.arange(64, dtype=np.float32))], 0.2)
    first, second = load(), load()
    assert not np.array_equal(first.x, second.x)
    assert np.allclose(np.sum(first.x, axis=1), 1)
    assert ((first.x > 0).sum(axis=1) <= 2).all()
    assert np.allclose(first.x @ np.arange(64), first.y, atol=1e-4)  # a row's shares tell its label


class Stored:
    """A cache of one shard, whose averages tell the photo and the view."""

    def __init__(self, scale: float):
        self.scale = scale

    def ids(self, split):
        return [f"{split}/{i}.jpg" for i in range(4)]

    def rows(self, split):
        return 4

    def shard_names(self, split):
        return [split]

    def shard_labels(self, name):
        return np.array([0, 1, 0, 1], np.int8)

    def load_shard(self, name, pool):
        photo, view = np.indices((4, 2))
        return np.repeat((self.scale * (10 * photo + view))[..., None], 3, axis=-1)


@pytest.mark.parametrize(("mirror", "rows"), [(True, 8), (False, 4)])
def test_two_sizes_stand_side_by_side(mirror, rows):
    variant = dataclasses.replace(ablate.variants(True, False, True)[0], mirror=mirror)
    caches = [Stored(1.0), Stored(-1.0)]
    (training,) = ablation_rows._loaders(caches, "train", variant, 0)
    (test,) = ablation_rows._loaders(caches, "test", variant, 1)
    views = [0, 1] if mirror else [0]
    expected = np.array([10 * photo + view for photo in range(4) for view in views])
    assert len(training().y) == rows
    np.testing.assert_array_equal(training().x, np.column_stack([expected] * 3 + [-expected] * 3))
    np.testing.assert_array_equal(training().y, np.repeat([0, 1, 0, 1], len(views)))
    np.testing.assert_array_equal(test().x[:, 0], [1, 11, 21, 31])


def test_swapped_labels_are_of_the_share_that_was_asked_for():
    labels = np.arange(2000, dtype=np.int8) % 2
    swapped = ablation_rows._swapped(labels, 0.05)
    assert binom.ppf(1e-6, 2000, 0.05) <= (swapped != labels).sum() <= binom.isf(1e-6, 2000, 0.05)
    assert set(swapped) == {0, 1}
    assert np.array_equal(ablation_rows._swapped(labels, 0), labels)


def test_rows_computed_alone_leave_the_others_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate.jax_environment, "prepare", lambda: None)
    monkeypatch.setattr(ablate, "fit", lambda variant, _: judged([1] if variant.name == "linear head" else []))
    config = ablate.AblateConfig(work=tmp_path / "work", out=tmp_path)
    old = [ablate.row(one, judged([0, 1, 2]), judged([3])) for one in ablate.variants(True, True)]
    (tmp_path / "ablation.csv").write_bytes(tables.as_csv(ablate.Row._fields, old, digits=5))
    found = ablate.main(dataclasses.replace(config, only=("linear head",)))
    changed = {"default": (1.0, 0, 0), "linear head": (0.875, 0, 1)}
    for before, after in zip(tables.read(tmp_path / "ablation.csv", ablate.Row), found, strict=True):
        figures = (after.accuracy, after.only_right, after.only_baseline_right)
        assert figures == changed[after.variant] if after.variant in changed else after == before
    with pytest.raises(UsageError, match=r"--only: expected names of rows, found 'none such'\. They are: default; "):
        ablate.main(dataclasses.replace(config, only=("none such",)))


def test_photos_are_resized_by_the_nearest_pixel_or_smoothly():
    checks = np.indices((448, 448)).sum(0) % 2 * np.uint8(255)
    file = io.BytesIO()
    Image.fromarray(checks.astype(np.uint8)).convert("RGB").save(file, "PNG")
    nearest, smooth = (
        np.asarray(Image.open(io.BytesIO(ablation_rows._resized(file.getvalue(), one)))) for one in (True, False)
    )
    assert nearest.shape == smooth.shape == (224, 224, 3)
    assert set(np.unique(nearest)) <= {0, 255}
    assert np.abs(smooth[8:-8, 8:-8].astype(int) - 127).max() <= 2


def test_larger_squares_are_of_the_same_photos_in_the_same_order(tmp_path):
    config = ablate.AblateConfig(data=drawing.draw_once(), photos=(4, 2, 2), work=tmp_path)
    folder, records = ablation_rows._placed(config, nearest=False)
    placed = sources.load(str(folder))
    for split, count in zip(sources.SPLITS, config.photos, strict=True):
        assert [f"{one.id}.png" for one in records[split]] == [one.id for one in placed.split(split)]
        assert len(records[split]) == count
        pairs = zip(records[split], placed.split(split), strict=True)
        assert all(
            (decoding.decode(one.read(), FIRST) == decoding.decode(other.read(), FIRST)).all() for one, other in pairs
        )
