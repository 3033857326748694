"""MobileNetV2 for pictures of 32 pixels."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from augend.models.small import classifier, pictures, pooling

__all__ = ["mobilenetv2_cifar"]

# expansion, width, blocks, stride of the first: the stem and the second stage keep the size, which 224 pixels halve
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _normed(before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width)]


class Inverted(nn.Module):
    """1x1, depthwise 3x3 and linear 1x1 convolution; a shortcut where the size stays, projected where the width changes."""

    def __init__(self, before: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inside = expansion * before
        self.convs = nn.Sequential(
            *_normed(before, inside, 1),
            nn.ReLU(inplace=True),
            *_normed(inside, inside, 3, stride, inside),
            nn.ReLU(inplace=True),
            *_normed(inside, width, 1),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if before == width else nn.Sequential(*_normed(before, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, before, H, W)`` -> ``(rows, width, H / stride, W / stride)``."""
        out: Tensor = self.convs(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def mobilenetv2_cifar(dropout: float = 0.0, *, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """MobileNetV2 (Sandler et al. 2018) for pictures of 32 pixels; 2,412,212 parameters for 100 classes.

    As in the invariance authors' code: the stem and the second stage have stride 1, and a shortcut is projected where only
    the width changes (the original has none there). Stages: stem, block1 … block7, last, pool, classify; `features` are
    ``(rows, 1280)``.

    Args:
        dropout: probability, in training, on the features.
    """
    channels, _, _ = pictures("mobilenetv2-cifar", shape)
    stages: list[tuple[str, nn.Module]] = [("stem", nn.Sequential(*_normed(channels, 32, 3), nn.ReLU(inplace=True)))]
    before = 32
    for number, (expansion, width, blocks, stride) in enumerate(STAGES, 1):
        strides = [stride, *[1] * (blocks - 1)]
        widths = [before, *[width] * (blocks - 1)]
        made = [Inverted(a, width, expansion, s) for a, s in zip(widths, strides, strict=True)]
        stages.append((f"block{number}", nn.Sequential(*made)))
        before = width
    stages.append(("last", nn.Sequential(*_normed(before, 1280, 1), nn.ReLU(inplace=True))))
    stages += [("pool", pooling()), ("classify", classifier(1280, classes, dropout))]
    return nn.Sequential(OrderedDict(stages))
