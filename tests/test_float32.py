"""float32 is float32 everywhere: lowered programs ask for the highest precision, or GPUs take TF32 and TPUs bfloat16."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from catdog_jax.auditing import out_of_fold
from catdog_jax.backbone import weights
from catdog_jax.features import extractor as features_extractor
from catdog_jax.heads import head, rows, steps
from catdog_jax.heads.rows import Chunk
from catdog_jax.heads.steps import Hyper, Shape

pytestmark = pytest.mark.lenient_types

X, Y = np.zeros((10, 6), np.float32), np.zeros(10, np.float32)
HYPER = Hyper(*(np.zeros(2, np.float32) for _ in Hyper._fields))
KEY = jax.random.key(0)


def products(lowered: jax.stages.Lowered) -> list[str]:
    """The lines of StableHLO that multiply: convolutions and products of matrices."""
    found = [
        line
        for line in lowered.as_text().splitlines()
        if re.search(r"stablehlo\.(convolution|dot_general|dot)\b", line)
    ]
    assert found
    return found


def extraction(precision: str, conv: str) -> list[str]:
    extractor = features_extractor.Extractor(weights.random(), precision=precision, conv=conv, batch_size=1)
    photos = jax.ShapeDtypeStruct((extractor.batch_size, 224, 224, 3), jnp.uint8)
    return products(extractor._compute.lower(extractor._params, photos))


def training(hidden: tuple[int, ...]) -> list[str]:
    shape = Shape(hidden, 5, 1)
    state = steps.initial(KEY, X.shape[1], shape, 2)
    return products(steps.run_chunk.lower(state, Chunk(X, Y), KEY, rows.UNSCALED, HYPER, shape))


def validation() -> list[str]:
    return products(steps.losses.lower(steps.initial(KEY, 6, Shape((4,), 5, 1), 2).params, Chunk(X, Y), rows.UNSCALED))


def logits() -> list[str]:
    params = head.Head((4,)).init(KEY, X)["params"]
    return products(head._jitted_logits.lower(params, X)) + products(
        steps.logits.lower(params, Chunk(X, Y), rows.UNSCALED)
    )


def label_errors() -> list[str]:
    return products(
        out_of_fold._fit_all.lower(X, Y, np.ones((2, 10), np.float32), np.ones(2, np.float32), rows.UNSCALED)
    )


@pytest.mark.parametrize(
    "lower",
    [
        lambda: extraction("float32", "winograd"),
        lambda: extraction("float32", "direct"),
        lambda: extraction("float32", "direct-gpu"),
        lambda: extraction("float32", "direct-tpu"),
        lambda: training(()),
        lambda: training((4,)),
        validation,
        logits,
        label_errors,
    ],
    ids=[
        "winograd",
        "direct",
        "direct-gpu",
        "direct-tpu",
        "linear head",
        "hidden layer",
        "validation",
        "logits",
        "label errors",
    ],
)
def test_every_product_asks_for_the_highest_precision(lower):
    lacking = [line for line in lower() if line.count("HIGHEST") != 2]  # of both sides
    assert not lacking


@pytest.mark.parametrize("conv", ["direct", "direct-gpu", "direct-tpu"])
def test_bfloat16_asks_for_nothing(conv):
    assert all("bf16" in line and "HIGHEST" not in line for line in extraction("bfloat16", conv))
