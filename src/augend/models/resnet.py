"""Residual networks for pictures of 32 pixels: the 6n + 2 family, its pre-activation and wide forms, and ResNet-18."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from augend.contract import AugendError
from augend.models.small import classifier, pictures, pooling

__all__ = ["preresnet", "resnet", "resnet18_cifar", "wide_resnet"]


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
        dropout: probability, in training, before the last convolution.
        shared: a projected shortcut takes what the first batch norm and ReLU give, instead of what enters the block.
    """

    def __init__(
        self, before: int, width: int, stride: int, bottleneck: bool, dropout: float = 0.0, shared: bool = False
    ) -> None:
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
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.shared = shared and projected

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, before, H, W)`` -> ``(rows, after, H / stride, W / stride)``."""
        y = first = self.relu(self.norms[0](x))
        for number, conv in enumerate(self.convs):
            y = y if number == 0 else self.relu(self.norms[number](y))
            y = conv(self.dropout(y) if number == len(self.convs) - 1 else y)
        out: Tensor = y + self.shortcut(first if self.shared else x)
        return out


def _depth(word: str, depth: int, convs: int, others: int = 2) -> int:
    blocks, rest = divmod(depth - others, 3 * convs)
    if rest or blocks < 1:
        near = [str(3 * convs * n + others) for n in (max(1, blocks), max(1, blocks) + 1)]
        raise AugendError(f"model {word!r}: depth {depth} is not {3 * convs}n + {others}; choose {' or '.join(near)}")
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


def wide_resnet(
    depth: int = 28, widen: int = 10, dropout: float = 0.0, *, shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """Wide residual network (Zagoruyko and Komodakis 2016), WRN-depth-widen: pre-activation blocks of two 3x3 convolutions,
    widths 16, then 16-32-64 times `widen`. 36,536,884 parameters for 28, 10 and 100 classes; 8,972,340 for 40, 4.
    Stages: stem, layer1, layer2, layer3, pool, classify.

    Args:
        depth: 6n + 4: 16, 22, 28, 40 …
        dropout: between the convolutions of a block.
    """
    channels, _, _ = pictures("wide-resnet", shape)
    n = _depth("wide-resnet", depth, 2, 4)
    stages: list[tuple[str, nn.Module]] = [("stem", _conv3(channels, 16))]
    before = 16
    for number, width in enumerate((16 * widen, 32 * widen, 64 * widen), 1):
        layer = _layer(
            lambda a, b, stride: PreActivation(a, b, stride, False, dropout, shared=True),
            before,
            width,
            width,
            n,
            min(number, 2),
        )
        stages.append((f"layer{number}", layer))
        before = width
    end = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(before), relu=nn.ReLU(inplace=True), pool=pooling()))
    model = nn.Sequential(OrderedDict([*stages, ("pool", end), ("classify", classifier(before, classes))]))
    _he(model)
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
