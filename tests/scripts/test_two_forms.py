"""Photos in two forms: both in one split, those of the test at original size left out, and averages of the squashed alone."""

import numpy as np
import pytest
from PIL import Image

from catdog_jax.commands import extract
from catdog_jax.config import ExtractConfig
from catdog_jax.errors import CatdogError
from catdog_jax.features.cache import FeatureCache
from catdog_jax.photos import sources
from scripts.experiments import reproduce, two_forms

SPLITS = ("train", "validation", "test")


@pytest.fixture
def forms(tmp_path):
    rng = np.random.default_rng(0)
    for folder, count in (("squashed", 3), ("originals", 1)):
        for split in SPLITS:
            for kind in ("cats", "dogs"):
                for number in range(count):
                    path = tmp_path / folder / split / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 256, (20, 20 + 10 * count, 3), np.uint8)).save(path)
    return tmp_path


def test_both_forms_lie_in_one_split_and_the_test_is_squashed(forms):
    out = two_forms.link(forms / "squashed", forms / "originals", forms / "photos")
    assert two_forms.link(forms / "squashed", forms / "originals", out) == out  # again
    dataset = sources.load(str(out))
    for split, originals in zip(SPLITS, (2, 2, 0), strict=True):
        found = [record.id for record in dataset.split(split)]
        assert len(found) == 6 + originals
        assert sum(map(two_forms.is_original, found)) == originals
    for record in dataset.records:
        form = "originals" if two_forms.is_original(record.id) else "squashed"
        assert record.read() == (forms / form / record.id.replace(f"{two_forms.FOLDER}/", "")).read_bytes()


def test_an_original_without_its_photo_is_an_error(forms):
    (forms / "squashed" / "train" / "cats" / "0.png").unlink()
    with pytest.raises(CatdogError, match=r"^train/cats/0\.png: expected the same photo in .*squashed, found none\."):
        two_forms.link(forms / "squashed", forms / "originals", forms / "photos")


def test_averages_of_the_squashed_are_those_of_a_cache_of_them_alone(forms, real_weights):
    photos = two_forms.link(forms / "squashed", forms / "originals", forms / "photos")
    whole = extract.extract(
        ExtractConfig(data=str(photos), out=forms / "whole", pool="none", views=("original", "mirror"), shard_size=4)
    )
    alone = extract.extract(ExtractConfig(data=str(forms / "squashed"), out=forms / "alone"))
    reproduce.average(whole, sources.load(str(forms / "squashed")), forms / "average")
    average = FeatureCache.open(forms / "average")
    assert average.fingerprint.inputs_sha256 == alone.fingerprint.inputs_sha256
    for split in SPLITS:
        assert average.ids(split) == alone.ids(split)
        assert (average.labels(split) == alone.labels(split)).all()
        assert [average.sidecar(shard)["source_sha256"] for shard in average.shard_names(split)] == [
            alone.sidecar(shard)["source_sha256"] for shard in alone.shard_names(split)
        ]
        # averages of cells in float16 beside averages that became float16: two roundings
        np.testing.assert_allclose(average.load(split, "avg"), alone.load(split, "avg"), rtol=2e-3, atol=1e-3)
