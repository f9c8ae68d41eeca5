"""Which photos of a folder a model is evaluated on."""

from pathlib import Path

import pytest

from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.evaluation.unseen import unseen
from catdog_jax.photos import sources
from catdog_jax.photos.dataset import Dataset

CLASSES = ("cats", "dogs")


def folder(root: Path, places: list[str], count: int) -> Dataset:
    """A data set of so many files a place; what is in them is never decoded here."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / place / f"{i}.jpg").write_bytes(f"{place}{i}".encode())
    return sources.load(str(root), ())


def test_all_photos_of_a_folder_without_splits_are_evaluated(tmp_path):
    by_hash = folder(tmp_path, list(CLASSES), 40)
    assert 0 < len(by_hash.split("test")) < 20
    chosen = unseen(by_hash, "test")
    assert {record.id for record in chosen.split("test")} == {record.id for record in by_hash.records}
    assert "all photos of" in chosen.notes[-1]


def test_a_folder_of_the_test_split_alone_is_enough(tmp_path):
    only = folder(tmp_path, [f"test/{name}" for name in CLASSES], 3)
    assert len(unseen(only, "test").split("test")) == 6
    with pytest.raises(CatdogError, match=r"in the validation split, found none\. Found test\. Choose with --split"):
        unseen(only, "validation")


def test_of_a_folder_with_splits_the_one_that_is_asked_for_counts(tmp_path):
    whole = folder(tmp_path, [f"{split}/{name}" for split in sources.SPLITS for name in CLASSES], 2)
    assert {record.id.split("/")[0] for record in unseen(whole, "validation").records} == {"validation"}
    with pytest.raises(UsageError, match=r"--split: expected train, validation, test or folds, found dev"):
        unseen(whole, "dev")


def test_photos_that_a_model_was_trained_on_are_left_out(tmp_path):
    trained_on = folder(tmp_path, list(CLASSES), 100)
    chosen = unseen(trained_on, "test", (None, trained_on.inputs_sha256))
    assert [record.id for record in chosen.records] == [record.id for record in trained_on.split("test")]
    assert "because the model was trained on this folder" in chosen.notes[-1]


def test_of_a_drawn_test_split_it_is_told_that_a_model_may_know_it(tmp_path):
    whole = folder(tmp_path, [f"{split}/{name}" for split in ("train", "validation") for name in CLASSES], 20)
    assert "by their hashes" in unseen(whole, "test", (whole.inputs_sha256,)).notes[-1]
    assert (
        unseen(whole, "test").notes[-1].endswith("drawn from its train; a model may have been trained on some of them")
    )
    assert unseen(whole, "validation").notes[-1] == f"judged: the validation split of {tmp_path}"
