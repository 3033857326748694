"""VGG-16 with batch norm, for pictures of 32 pixels."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from augend.contract import AugendError
from augend.models.small import pictures, pooling

__all__ = ["vgg16_cifar"]

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALLEST = 1 << len(BLOCKS)  # each block halves the picture


def _block(before: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = []
    for number, width in enumerate(widths, 1):
        layers += [(f"conv{number}", nn.Conv2d(before, width, 3, padding=1)), (f"norm{number}", nn.BatchNorm2d(width))]
        if number == len(widths):
            layers.append(("pool", nn.MaxPool2d(2)))  # before ReLU: the same numbers at a quarter of the work
        layers.append((f"relu{number}", nn.ReLU(inplace=True)))
        before = width
    return nn.Sequential(OrderedDict(layers))


def _classifier(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = []
    for number in (1, 2):
        layers += [(f"fc{number}", nn.Linear(width, hidden)), (f"relu{number}", nn.ReLU())]
        layers += [(f"dropout{number}", nn.Dropout(dropout))] if dropout else []
        width = hidden
    return nn.Sequential(OrderedDict([*layers, ("fc", nn.Linear(hidden, classes))]))


def vgg16_cifar(dropout: float = 0.5, hidden: int = 4096, *, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015, Table 1, column D) with batch norm, for pictures of 32 pixels; 34,015,396
    parameters for 100 classes, 14,723,136 of them in the convolutions.

    One of the three networks of the embedding paper (d = 512), which does not say whether batch norm is in it: without, 13
    convolutions hardly train at a learning rate of 0.1. Thirteen 3x3 convolutions, each with batch norm and ReLU, in five
    blocks that end in 2x2 max pooling: ``(rows, C, 32, 32)`` becomes ``(rows, 512, 1, 1)``. Larger pictures are averaged over
    what is left, which at 32 to 63 pixels is one place and changes nothing. Then three linear layers, all of them in the
    stage "classify": 512 -> hidden -> hidden -> classes, each of the first two with ReLU and dropout. Stages: block1 …
    block5, pool, classify; `features` are ``(rows, 512)``.

    Deviations from Simonyan and Zisserman: batch norm, whose convolutions keep their biases, as in torchvision's
    `vgg16_bn`; 512 and not 25,088 inputs of the first linear layer, as is usual for CIFAR; torch's default initialisation.

    Args:
        dropout: probability, in training, after each of the two hidden layers.
        hidden: their width.

    Raises:
        AugendError: pictures of fewer than 32 pixels a side.
    """
    channels, _, _ = pictures("vgg16-cifar", shape, SMALLEST)
    if hidden < 1:
        raise AugendError(f"model 'vgg16-cifar': hidden {hidden} is no width; give 1 or more, such as 4096")
    stages: list[tuple[str, nn.Module]] = []
    for number, widths in enumerate(BLOCKS, 1):
        stages.append((f"block{number}", _block(channels, widths)))
        channels = widths[-1]
    stages += [("pool", pooling()), ("classify", _classifier(channels, hidden, classes, dropout))]
    return nn.Sequential(OrderedDict(stages))
