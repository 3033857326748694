"""Inception-v3 for pictures of 32 pixels."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from augend.models.small import classifier, pictures, pooling

__all__ = ["inception_v3_cifar"]

SMALLEST = 7  # the reductions, 3x3 of stride 2 without padding, leave 3 and then 1


class Conv(NamedTuple):
    """A convolution with batch norm and ReLU: how wide, its kernel (rows, columns), its stride."""

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


SQUARE, WIDE, TALL = (3, 3), (1, 7), (7, 1)


def _conv(before: int, conv: Conv) -> nn.Sequential:
    """At stride 1 padding keeps the size; at stride 2, in the reductions, there is none."""
    padding = (conv.kernel[0] // 2, conv.kernel[1] // 2) if conv.stride == 1 else 0
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(before, conv.width, conv.kernel, conv.stride, padding, bias=False),
        norm=nn.BatchNorm2d(conv.width, eps=1e-3),
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def _chain(before: int, *convs: Conv) -> nn.Sequential:
    befores = [before, *(conv.width for conv in convs)]
    return nn.Sequential(*(_conv(width, conv) for width, conv in zip(befores, convs, strict=False)))


class Branches(nn.ModuleDict):
    """Networks side by side: each takes the input, and their channels are put one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, before, H, W)`` -> ``(rows, sum of the branches' widths, H', W')``."""
        return torch.cat([branch(x) for branch in self.values()], 1)


def _pooled(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv(before, Conv(width)))


def _fork(before: int, *convs: Conv) -> nn.Sequential:
    """Convolutions, then 1x3 beside 3x1."""
    ends = {name: _conv(convs[-1].width, Conv(384, kernel)) for name, kernel in (("wide", (1, 3)), ("tall", (3, 1)))}
    return nn.Sequential(*_chain(before, *convs), Branches(ends))


def _block_a(before: int, pooled: int) -> Branches:
    return Branches(
        {
            "one": _chain(before, Conv(64)),
            "five": _chain(before, Conv(48), Conv(64, (5, 5))),
            "three": _chain(before, Conv(64), Conv(96, SQUARE), Conv(96, SQUARE)),
            "pool": _pooled(before, pooled),
        }
    )


def _block_b(before: int) -> Branches:
    return Branches(
        {
            "three": _chain(before, Conv(384, SQUARE, 2)),
            "deep": _chain(before, Conv(64), Conv(96, SQUARE), Conv(96, SQUARE, 2)),
            "pool": nn.MaxPool2d(3, 2),
        }
    )


def _block_c(before: int, n: int) -> Branches:
    return Branches(
        {
            "one": _chain(before, Conv(192)),
            "seven": _chain(before, Conv(n), Conv(n, WIDE), Conv(192, TALL)),
            "deep": _chain(before, Conv(n), Conv(n, TALL), Conv(n, WIDE), Conv(n, TALL), Conv(192, WIDE)),
            "pool": _pooled(before, 192),
        }
    )


def _block_d(before: int) -> Branches:
    return Branches(
        {
            "three": _chain(before, Conv(192), Conv(320, SQUARE, 2)),
            "seven": _chain(before, Conv(192), Conv(192, WIDE), Conv(192, TALL), Conv(192, SQUARE, 2)),
            "pool": nn.MaxPool2d(3, 2),
        }
    )


def _block_e(before: int) -> Branches:
    return Branches(
        {
            "one": _chain(before, Conv(320)),
            "three": _fork(before, Conv(384)),
            "deep": _fork(before, Conv(448), Conv(384, SQUARE)),
            "pool": _pooled(before, 192),
        }
    )


def inception_v3_cifar(dropout: float = 0.5, *, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Inception-v3 (Szegedy et al. 2016, Table 1) for pictures of 32 pixels; 21,990,468 parameters for 100 classes.

    One of the three networks of the embedding paper, which prints a width of 1028 for it; no Inception has that, and the
    pooled width of Inception-v3 is 2048. Convolutions have no bias, and batch norm and ReLU behind them. Stages:

    * stem: five convolutions of stride 1, ``(rows, C, 32, 32)`` -> ``(rows, 192, 32, 32)``;
    * block1: three blocks of 1x1, 5x5, twice 3x3 and pooling, side by side, -> ``(rows, 288, 32, 32)``;
    * reduce1: -> ``(rows, 768, 15, 15)``;
    * block2: four blocks with 7x7 as 1x7 and 7x1;
    * reduce2: -> ``(rows, 1280, 7, 7)``;
    * block3: two blocks with 1x3 beside 3x1, -> ``(rows, 2048, 7, 7)``;
    * pool: the average over all places; `features` are ``(rows, 2048)``;
    * classify: dropout, linear.

    Deviations from Szegedy et al.: the stem has no stride and no pooling, as is usual for CIFAR, and pads all of its 3x3
    convolutions (usual code for CIFAR leaves out the last padding: 30, 14 and 6 in place of 32, 15 and 7); no auxiliary
    classifier; torch's default initialisation. Widths, and batch norm's eps of 0.001, are those of torchvision's.

    Args:
        dropout: probability, in training, on the features.

    Raises:
        AugendError: pictures of fewer than 7 pixels a side.
    """
    channels, _, _ = pictures("inception-v3-cifar", shape, SMALLEST)
    stem = (Conv(32, SQUARE), Conv(32, SQUARE), Conv(64, SQUARE), Conv(80), Conv(192, SQUARE))
    stages = OrderedDict[str, nn.Module](
        stem=_chain(channels, *stem),
        block1=nn.Sequential(_block_a(192, 32), _block_a(256, 64), _block_a(288, 64)),
        reduce1=_block_b(288),
        block2=nn.Sequential(*(_block_c(768, n) for n in (128, 160, 160, 192))),
        reduce2=_block_d(768),
        block3=nn.Sequential(_block_e(1280), _block_e(2048)),
        pool=pooling(),
        classify=classifier(2048, classes, dropout),
    )
    return nn.Sequential(stages)
