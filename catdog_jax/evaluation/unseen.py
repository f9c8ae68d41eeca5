"""Which photos of a data set a model is evaluated on: none that it was trained on."""

import dataclasses
from collections.abc import Collection

from catdog_jax.config import EvaluateConfig
from catdog_jax.photos.dataset import SPLITS, Dataset, collect
from catdog_jax.photos.walk import told
from catdog_jax.ranges import check_arguments


def unseen(dataset: Dataset, split: str, trained_on: Collection[str | None] = ()) -> Dataset:
    """The photos of a data set to evaluate a model on, all in the split `split`; the last note says which they are.

    They are those of that split, or all of a folder without splits. Where a folder without splits
    is what the model was trained on, the split that was drawn keeps the training photos out.

    The data set may lack the other splits; `trained_on` has the `Dataset.inputs_sha256` of what
    the models were trained on.

    Raises:
      CatdogError: a class has no photos there.
      UsageError: there is no such split.
    """
    check_arguments(EvaluateConfig, split=split)
    source = dataset.source
    same = dataset.inputs_sha256 in trained_on
    if len(dataset.drawn) > 1 and not same:
        records = tuple(dataclasses.replace(record, split=split) for record in dataset.records)
        which = f"all photos of {source}, which has no folders of splits; a model may have been trained on some of them"
    else:
        records = dataset.split(split)
        which = f"the {split} split of {source}"
        if split in dataset.drawn:
            which += (
                ", by their hashes, because the model was trained on this folder"
                if same
                else ", drawn from its train; a model may have been trained on some of them"
            )
    filled = ", ".join(name for name in SPLITS if dataset.split(name))
    known = "; ".join(filter(None, (filled, told(dataset.left_out))))
    advice = f"Found {known}. Choose with --split, or check the folder names."
    chosen = collect(source, source, dataset.classes, records, advice, (split,))
    notes = (*dataset.notes, f"judged: {which}")
    return dataclasses.replace(chosen, drawn=dataset.drawn, notes=notes, left_out=dataset.left_out)
