"""The network's shapes, written down once more, and files of weights in every layout."""

from collections.abc import Callable

import numpy as np

from catdog_jax.backbone import pixels

# The network once more, written down independently of the package's table.
WIDTHS = {1: (3, 64, 64), 2: (64, 128, 128), 3: (128, 256, 256, 256), 4: (256, 512, 512, 512), 5: (512, 512, 512, 512)}


SHAPES = {
    f"block{block}_conv{conv}": (3, 3, widths[conv - 1], widths[conv])
    for block, widths in WIDTHS.items()
    for conv in range(1, len(widths))
}


TORCHVISION = dict(zip(SHAPES, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))


Arrays = dict[str, np.ndarray]


def random_params(shrink: int) -> dict[str, Arrays]:
    """Random weights that keep the activations' size from layer to layer, with 1 / shrink of the channels.

    The first kernel keeps all of its 64 filters, which tell whose the weights are: torchvision's.
    """
    generator = np.random.default_rng(0)
    shapes = {name: (3, 3, max(3, i // shrink), o // shrink) for name, (_, _, i, o) in SHAPES.items()}
    shapes |= {"block1_conv1": (3, 3, 3, 64), "block1_conv2": (3, 3, 64, 64 // shrink)}
    params = {
        name: {
            "kernel": generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / (9 * shape[2]))),
            "bias": generator.standard_normal(shape[3], np.float32) * np.float32(0.1),
        }
        for name, shape in shapes.items()
    }
    return stamped(params, "torch")


def stamped(params: dict[str, Arrays], mode: str) -> dict[str, Arrays]:
    """The same weights with a first kernel that tells the preprocessing: blue against red as torchvision or Caffe has it."""
    kernel = params["block1_conv1"]["kernel"].copy()
    (told,) = (training.opponency for training in pixels._TRAININGS if training.mode == mode)
    wanted = np.float32(told) * (-1 if mode == "caffe" else 1)  # the first channel less the last
    lacking = (wanted - (kernel[:, :, 0] - kernel[:, :, 2]).sum(axis=(0, 1))[:16]) / 18
    kernel[:, :, 0, :16] += lacking[None, None]
    kernel[:, :, 2, :16] -= lacking[None, None]
    return with_first(params, kernel)


def unknown(params: dict[str, Arrays]) -> dict[str, Arrays]:
    """The same weights with a first kernel of no known training."""
    return with_first(params, np.random.default_rng(1).normal(0, 0.2, (3, 3, 3, 64)).astype(np.float32))


def with_first(params: dict[str, Arrays], kernel: np.ndarray) -> dict[str, Arrays]:
    return {**params, "block1_conv1": {**params["block1_conv1"], "kernel": kernel}}


def named(params: dict[str, Arrays], name: Callable[[int, str], str], kernel: str, bias: str) -> Arrays:
    """Renames tensors to what `name` gives for a layer's position and name, followed by the part."""
    return {
        name(index, layer) + part: arrays[key]
        for index, (layer, arrays) in enumerate(params.items())
        for key, part in (("kernel", kernel), ("bias", bias))
    }


def torchvision_names(params: dict[str, Arrays]) -> Arrays:
    tensors = named(params, lambda _, layer: f"features.{TORCHVISION[layer]}.", "weight", "bias")
    tensors = {
        name: array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array for name, array in tensors.items()
    }
    return tensors | {
        f"classifier.{i}.{part}": np.zeros(4, np.float32) for i in (0, 3, 6) for part in ("weight", "bias")
    }
