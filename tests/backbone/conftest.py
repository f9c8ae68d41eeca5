"""A network small enough for a test."""

import pytest
from helpers.weight_files import Arrays, random_params

from catdog_jax.backbone import weights


@pytest.fixture
def params(monkeypatch) -> dict[str, Arrays]:
    """Weights of a network with a sixteenth of the channels, which is for the test what is expected: files are small."""
    first, second, *rest = weights.LAYERS
    narrow = [layer._replace(inputs=layer.inputs // 16, outputs=layer.outputs // 16) for layer in rest]
    monkeypatch.setattr(weights, "LAYERS", (first, second._replace(outputs=4), *narrow))
    return random_params(16)
