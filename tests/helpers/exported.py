"""Heads of random weights and what they answer, in float64."""

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
from PIL import Image

from catdog_jax.backbone.pooling import Pool
from catdog_jax.heads import head
from catdog_jax.photos.fingerprint import Fingerprint

POOLS = ("avg", "max", "avg+max", "none")


COLUMNS = {"avg": 512, "max": 512, "avg+max": 1024, "none": 7 * 7 * 512}


CELLS = "block5_conv3_pool"  # the tensor between the convolutions and the head, NCHW


def photo(seed: int) -> np.ndarray:
    """A picture with coarse and fine structure and some red, so that neither channels nor axes can be confused."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).resize((224, 224), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse, np.int32) + rng.integers(-20, 20, (224, 224, 3)) + [40, 0, -40], 0, 255).astype(
        np.uint8
    )


def fitted_head(
    pool: str, hidden: tuple[int, ...] = (), fingerprint: Fingerprint | None = None, feature_size: float = 1
) -> head.FittedHead:
    """A random head whose probabilities are neither 0 nor 1 for features of about `feature_size`."""
    rng = np.random.default_rng(1)
    widths = [COLUMNS[pool], *hidden, 1]
    names = [*(f"dense_{i}" for i in range(len(hidden))), "output"]
    layers = {
        name: {
            "kernel": rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(np.float32),
            "bias": rng.normal(0, 0.5, outputs).astype(np.float32),
        }
        for name, inputs, outputs in zip(names, widths[:-1], widths[1:], strict=True)
    }
    layers[names[0]]["kernel"] /= np.float32(feature_size)
    return head.FittedHead(Pool(pool), layers, ("cats", "dogs"), fingerprint or Fingerprint(), {"pool": pool})


def reference_logit(fitted: head.FittedHead, cells: np.ndarray) -> np.ndarray:
    """The head in float64, from cells [N, 7, 7, 512], as the layout of features is specified."""
    pooled = {
        "avg": lambda x: x.mean(axis=(1, 2)),
        "max": lambda x: x.max(axis=(1, 2)),
        "avg+max": lambda x: np.hstack([x.mean(axis=(1, 2)), x.max(axis=(1, 2))]),
        "none": lambda x: np.stack([one[y, x_, :] for one in x for y in range(7) for x_ in range(7)]).reshape(
            len(x), -1
        ),
    }
    x = pooled[fitted.pool](cells.astype(np.float64))
    for layer in list(fitted.params.values())[:-1]:
        x = np.maximum(x @ layer["kernel"].astype(np.float64) + layer["bias"], 0)
    last = list(fitted.params.values())[-1]
    return (x @ last["kernel"].astype(np.float64) + last["bias"])[:, 0]


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
