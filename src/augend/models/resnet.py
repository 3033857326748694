"""Residual networks for pictures of 32 pixels: the 6n + 2 family, its pre-activation form, and ResNet-18."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from augend.contract import AugendError
from augend.models.small import classifier, pictures, pooling

__all__ = ["preresnet", "resnet", "resnet18_cifar"]


def _conv3(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, stride, 1, bias=False)


def _conv1(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, 1, stride, bias=False)


class Basic(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is projected (1x1 convolution, batch norm) where shapes change."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv3(before, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = _conv3(width, width), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        projected = stride != 1 or before != width
        self.shortcut = (
            nn.Sequential(OrderedDict(conv=_conv1(before, width, stride), norm=nn.BatchNorm2d(width)))
            if projected
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, before, H, W)`` -> ``(rows, width, H / stride, W / stride)``."""
        y = self.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return out


class PreActivation(nn.Module):
    """Batch norm and ReLU before each convolution; a plain 1x1 convolution as the shortcut where shapes change.

    Args:
        bottleneck: 1x1, 3x3, 1x1 convolutions, the last four times as wide, instead of two 3x3.
    """

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width
        convs = (
            [_conv1(before, width), _conv3(width, width, stride), _conv1(width, after)]
            if bottleneck
            else [_conv3(before, width, stride), _conv3(width, width)]
        )
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.in_channels) for conv in convs)
        self.relu = nn.ReLU(inplace=True)
        projected = stride != 1 or before != after
        self.shortcut = _conv1(before, after, stride) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, before, H, W)`` -> ``(rows, after, H / stride, W / stride)``."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(self.relu(norm(y)))
        out: Tensor = y + self.shortcut(x)
        return out


def _depth(word: str, depth: int, convs: int) -> int:
    blocks, rest = divmod(depth - 2, 3 * convs)
    if rest or blocks < 1:
        near = [str(3 * convs * n + 2) for n in (max(1, blocks), max(1, blocks) + 1)]
        raise AugendError(f"model {word!r}: depth {depth} is not {3 * convs}n + 2; choose {' or '.join(near)}")
    return blocks


def _he(model: nn.Module) -> None:
    """He's normal initialisation, fan-out, of every convolution."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _layer(
    make: Callable[[int, int, int], nn.Module], before: int, width: int, after: int, n: int, stride: int
) -> nn.Module:
    return nn.Sequential(make(before, width, stride), *(make(after, width, 1) for _ in range(n - 1)))


def _stem(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(conv=_conv3(channels, width), norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))
    )


def resnet(depth: int = 32, *, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """The residual network for CIFAR of He et al. (2016), depth 6n + 2, widths 16-32-64.

    Shortcuts are projected where shapes change, as in the invariance authors' code (472,756 parameters at depth 32 and 100
    classes), not padded with zeros as in He et al. Stages: stem, layer1, layer2, layer3, pool, classify; `features`
    are ``(rows, 64)``.

    Args:
        depth: 20, 32, 44, 56, 110 …
    """
    channels, _, _ = pictures("resnet", shape)
    n = _depth("resnet", depth, 2)
    stages: list[tuple[str, nn.Module]] = [("stem", _stem(channels, 16))]
    for number, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
        stages.append((f"layer{number}", _layer(Basic, before, width, width, n, 1 if number == 1 else 2)))
    model = nn.Sequential(OrderedDict([*stages, ("pool", pooling()), ("classify", classifier(64, classes))]))
    _he(model)
    return model


def preresnet(
    depth: int = 20, bottleneck: bool | None = None, gamma: float = 1.0, *, shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """The pre-activation residual network for CIFAR of He et al. (2016b), widths 16-32-64.

    As in the procedures authors' code: global average pooling after a last batch norm and ReLU; shortcuts are plain 1x1
    convolutions. Stages: stem, layer1, layer2, layer3, pool, classify.

    Args:
        depth: 6n + 2 with basic blocks (20, 32), 9n + 2 with bottlenecks (56, 101, 110).
        bottleneck: None: from depth 44 on, as in that code.
        gamma: initial scale of batch norm (0.5 in the authors' runs of orderings).
    """
    channels, _, _ = pictures("preresnet", shape)
    narrow = depth >= 44 if bottleneck is None else bottleneck
    n = _depth("preresnet", depth, 3 if narrow else 2)
    grow = 4 if narrow else 1
    stages: list[tuple[str, nn.Module]] = [("stem", _conv3(channels, 16))]
    before = 16
    for number, width in enumerate((16, 32, 64), 1):
        layer = _layer(
            lambda a, b, stride: PreActivation(a, b, stride, narrow), before, width, grow * width, n, min(number, 2)
        )
        stages.append((f"layer{number}", layer))
        before = grow * width
    end = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(before), relu=nn.ReLU(inplace=True), pool=pooling()))
    model = nn.Sequential(OrderedDict([*stages, ("pool", end), ("classify", classifier(before, classes))]))
    _he(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, gamma)
    return model


def resnet18_cifar(*, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """ResNet-18 for pictures of 32 pixels: a 3x3 stem of stride 1 and no pooling after it; 11,220,132 parameters for 100
    classes. Stages: stem, layer1 … layer4, pool, classify; `features` are ``(rows, 512)``."""
    channels, _, _ = pictures("resnet18-cifar", shape)
    stages: list[tuple[str, nn.Module]] = [("stem", _stem(channels, 64))]
    for number, (before, width) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), 1):
        stages.append((f"layer{number}", _layer(Basic, before, width, width, 2, 1 if number == 1 else 2)))
    model = nn.Sequential(OrderedDict([*stages, ("pool", pooling()), ("classify", classifier(512, classes))]))
    _he(model)
    return model
