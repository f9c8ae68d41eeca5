"""The table of VGG16's thirteen convolutions, without JAX: whoever only reads files wants to know the shapes too.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014
(configuration D). The table drives everything else that must agree with it: `vgg16`, `weights`,
`winograd` and `deployment.graph`.
"""

from typing import NamedTuple


class Conv(NamedTuple):
    """One 3x3 convolution with ReLU; `pool` says whether a 2x2 max-pool follows."""

    name: str
    inputs: int
    outputs: int
    pool: bool


LAYERS = (
    Conv("block1_conv1", 3, 64, False),
    Conv("block1_conv2", 64, 64, True),
    Conv("block2_conv1", 64, 128, False),
    Conv("block2_conv2", 128, 128, True),
    Conv("block3_conv1", 128, 256, False),
    Conv("block3_conv2", 256, 256, False),
    Conv("block3_conv3", 256, 256, True),
    Conv("block4_conv1", 256, 512, False),
    Conv("block4_conv2", 512, 512, False),
    Conv("block4_conv3", 512, 512, True),
    Conv("block5_conv1", 512, 512, False),
    Conv("block5_conv2", 512, 512, False),
    Conv("block5_conv3", 512, 512, True),
)
CHANNELS = 512
GRID = 7  # a 224x224 photo becomes 7x7 cells
