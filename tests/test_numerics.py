"""What JAX computes, against float64 NumPy: what `catdog doctor` looks at, and the convolutions on a photo of the real size."""

import numpy as np
import pytest

from catdog_jax import numerics
from catdog_jax.backbone import weights
from catdog_jax.features import extractor as features_extractor
from catdog_jax.numerics import BFLOAT16, CHECKS, FLOAT32, LABELS, Check

pytestmark = pytest.mark.lenient_types


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_numbers_are_right(check):
    assert numerics.fault(check) == ""


def test_label_errors_of_many_rows_are_right():
    assert numerics.fault(Check("label errors", lambda: numerics.label_errors(numerics.ROWS), LABELS)) == ""


@pytest.fixture(scope="module")
def photo():
    """Weights, a photo, and its features in float64."""
    pretrained = weights.random()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = numerics.convolutions(pretrained.params, numerics.vgg16_pixels(pixels, pretrained.mode))
    return pretrained, pixels, expected.reshape(1, -1)


@pytest.mark.parametrize(
    ("precision", "conv", "tolerance"),
    [
        ("float32", "native", FLOAT32),
        ("float32", "winograd", FLOAT32),
        ("float32", "direct", FLOAT32),
        ("bfloat16", "direct", BFLOAT16),
        ("bfloat16", "amx", BFLOAT16),
    ],
)
def test_extraction_is_right(photo, precision, conv, tolerance):
    pretrained, pixels, expected = photo
    if lacking := features_extractor.ALGORITHMS[conv].lacks():
        pytest.skip(lacking)
    extractor = features_extractor.Extractor(pretrained, pool="none", precision=precision, conv=conv, batch_size=1)
    assert numerics.fault(Check(conv, lambda: (extractor(pixels), expected), tolerance)) == ""


@pytest.mark.parametrize("value", [2.5, np.nan, np.inf, 1e38])
def test_a_wrong_value_is_told(value):
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = np.array([[1.0, value], [3.0, 4.0]], np.float32)
    told = numerics.fault(Check("sums", lambda: (found, expected), FLOAT32))
    assert told == f"sums: expected 2, found {value:.6g}; 1 of 4 values are wrong"


def test_rounding_is_no_fault():
    expected = np.linspace(-1, 1, 7)
    assert numerics.fault(Check("sums", lambda: (expected * (1 + 5e-5), expected), FLOAT32)) == ""


def test_the_extractor_comes_first(monkeypatch):
    """The extractor that photos go through, with the tolerance of its precision."""
    expected = np.full((1, 512), 2.0)
    monkeypatch.setattr(numerics, "CHECKS", ())
    monkeypatch.setattr(numerics, "convolutions", lambda *_: np.full((1, 7, 7, 512), 2.0))

    class Off:
        conv, precision = "direct", "float32"

        def __call__(self, photos):
            return expected * 1.01

    pretrained = weights.Weights({}, "torch", "0" * 64, "stand-in")
    assert numerics.wrong(Off(), pretrained) == [
        "extraction (direct, float32): expected 2, found 2.02; 512 of 512 values are wrong"
    ]
    Off.precision = "bfloat16"
    assert numerics.wrong(Off(), pretrained) == []
