"""Convolutions from their definition, in float64, and random layers for them."""

import numpy as np


def direct(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3 cross-correlation with zero padding, bias and ReLU, from the definition, in float64."""
    n, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, height, width, kernel.shape[3]))
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
    return np.maximum(y + bias, 0)


def pooled(y: np.ndarray) -> np.ndarray:
    n, height, width, channels = y.shape
    cut = y[:, : height // 2 * 2, : width // 2 * 2]
    return cut.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


def random_layer(rng, inputs: int, outputs: int):
    kernel = (rng.standard_normal((3, 3, inputs, outputs)) * np.sqrt(2 / 9 / inputs)).astype(np.float32)
    return kernel, (rng.standard_normal(outputs) * 0.1).astype(np.float32)
