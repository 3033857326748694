"""Small networks: the one of Figure 1, a three-block net, linear and multi-layer heads, and Omega.

Builders are called ``build(*options, shape, classes)`` with the shape of one input, ``(C, H, W)`` or ``(D,)``, and return a
network whose children are its stages.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from augend.contract import AugendError
from augend.models.stages import Stages, as_stages

__all__ = ["figure1", "figure1_authors", "figure1_wide", "linear", "mlp", "omega", "small"]


class FlatLinear(nn.Linear):
    """A linear layer on inputs of any shape, flattened to ``(rows, in_features)``."""

    def forward(self, input: Tensor) -> Tensor:
        """``(rows, ...)`` -> ``(rows, out_features)``."""
        return super().forward(input.flatten(1))


def pictures(word: str, shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """The shape as (C, H, W), or what a network cannot take: no pictures, or a side below `smallest` pixels."""
    if len(shape) != 3:
        raise AugendError(
            f"model {word!r} takes pictures (C, H, W), not inputs of shape {tuple(shape)}; try 'mlp' or 'linear'"
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise AugendError(
            f"model {word!r} takes pictures of {smallest}x{smallest} pixels or more, not {height}x{width}; "
            "try 'small' or 'linear', or resize them"
        )
    return channels, height, width


def classifier(width: int, classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Dropout (when not 0) and a linear layer: the stage "classify"."""
    layers: list[tuple[str, nn.Module]] = [("dropout", nn.Dropout(dropout))] if dropout else []
    return nn.Sequential(OrderedDict([*layers, ("fc", nn.Linear(width, classes))]))


def _figure1_blocks(widths: Sequence[int], channels: int) -> list[tuple[str, nn.Module]]:
    stages: list[tuple[str, nn.Module]] = []
    for number, width in enumerate(widths, 1):
        layers: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(channels, width, 3, padding=1)),
            ("pool", nn.MaxPool2d(2, ceil_mode=True)),
            ("relu", nn.ReLU(inplace=True)),  # the paper's order gives the same numbers at four times the work
        ]
        if number == len(widths):
            layers.append(("flatten", nn.Flatten()))
        stages.append((f"conv{number}", nn.Sequential(OrderedDict(layers))))
        channels = width
    return stages


def _figure1_features(widths: Sequence[int], height: int, width: int) -> int:
    shrunk = [-(-side // (1 << len(widths))) for side in (height, width)]  # each pooling rounds up
    return widths[-1] * shrunk[0] * shrunk[1]


def _initialise(model: nn.Module, init: str) -> None:
    if init not in ("standard", "authors"):
        raise AugendError(f"init {init!r}: choose 'standard' (torch's own) or 'authors' (normal of deviation 0.01)")
    if init == "authors":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
                assert module.bias is not None
                nn.init.constant_(module.bias, 0.01)


def figure1(
    widths: Sequence[int] = (4, 8, 16),
    dropout: float = 0.5,
    init: str = "standard",
    *,
    shape: tuple[int, ...],
    classes: int,
) -> nn.Sequential:
    """The network of Figure 1 of the factoring paper; 4,074 parameters for 28x28 grey pictures and 10 classes.

    Three stages of a 3x3 convolution, ReLU and 2x2 pooling that rounds up, then dropout and a linear layer. `features` are
    the flattened maps before dropout (256 wide for 28x28), as in the paper's embedding.

    Args:
        widths: channels of the convolutions.
        dropout: probability, in training, on the features; inside the stage "classify".
        init: "standard" (torch's own) or "authors" (weights from a normal of deviation 0.01 cut off at two deviations,
            biases 0.01, which leaves the loss flat for the first 150 steps).
    """
    channels, height, width = pictures("figure1", shape)
    last = classifier(_figure1_features(widths, height, width), classes, dropout)
    model = nn.Sequential(OrderedDict([*_figure1_blocks(widths, channels), ("classify", last)]))
    _initialise(model, init)
    return model


def figure1_authors(*, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """`figure1` as the factoring paper's code has it: its initialisation, and pictures in [0, 1] that are not normalised."""
    model = figure1(init="authors", shape=shape, classes=classes)
    model.raw_pixels = True  # type: ignore[assignment]
    return model


def figure1_wide(
    widths: Sequence[int] = (40, 80, 160),
    features: int = 256,
    dropout: float = 0.5,
    init: str = "standard",
    *,
    shape: tuple[int, ...],
    classes: int,
) -> nn.Sequential:
    """The student of the factoring paper's appendix on distillation: ten times the filters and two more linear layers.

    The paper does not say how wide the linear layers are; here 2,560 -> 256 -> ReLU -> 256, as wide as the teacher's
    features, so that they can be compared. Stages: conv1, conv2, conv3, embed, classify.

    Args:
        features: width of both linear layers.
        widths, dropout, init: as in `figure1`.
    """
    channels, height, width = pictures("figure1-wide", shape)
    embed = nn.Sequential(
        nn.Linear(_figure1_features(widths, height, width), features), nn.ReLU(), nn.Linear(features, features)
    )
    last = classifier(features, classes, dropout)
    model = nn.Sequential(OrderedDict([*_figure1_blocks(widths, channels), ("embed", embed), ("classify", last)]))
    _initialise(model, init)
    return model


def small(
    widths: Sequence[int] = (16, 32, 64), dropout: float = 0.0, *, shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """Blocks of a 3x3 convolution, batch norm, ReLU and 2x2 pooling, then global average pooling: for pictures of 32 to 64
    pixels on a CPU. Stages: conv1, conv2, conv3, pool, classify; `features` are ``(rows, widths[-1])``.

    Args:
        widths: channels of the blocks.
        dropout: probability, in training, on the features.
    """
    channels, _, _ = pictures("small", shape)
    stages: list[tuple[str, nn.Module]] = []
    for number, width in enumerate(widths, 1):
        block = [
            ("conv", nn.Conv2d(channels, width, 3, padding=1, bias=False)),
            ("norm", nn.BatchNorm2d(width)),
            ("pool", nn.MaxPool2d(2, ceil_mode=True)),
            ("relu", nn.ReLU(inplace=True)),  # the paper's order gives the same numbers at four times the work
        ]
        stages.append((f"conv{number}", nn.Sequential(OrderedDict(block))))
        channels = width
    stages += [("pool", pooling()), ("classify", classifier(channels, classes, dropout))]
    return nn.Sequential(OrderedDict(stages))


def pooling() -> nn.Sequential:
    """Global average pooling: ``(rows, C, H, W)`` -> ``(rows, C)``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def linear(*, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """One linear layer on the flattened input; its one stage is "classify"."""
    return nn.Sequential(OrderedDict(classify=FlatLinear(math.prod(shape), classes)))


def mlp(widths: Sequence[int] = (256,), dropout: float = 0.0, *, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Linear layers with ReLU between them, on the flattened input. Stages: hidden1, hidden2, …, classify.

    ``mlp: [1024, 128]`` is the head of the paper on augmentation in embedding space.

    Args:
        widths: of the hidden layers.
        dropout: probability, in training, before the last layer.
    """
    before = math.prod(shape)
    stages: list[tuple[str, nn.Module]] = []
    for number, width in enumerate(widths, 1):
        layers = OrderedDict([("fc", FlatLinear(before, width)), ("relu", nn.ReLU())])
        stages.append((f"hidden{number}", nn.Sequential(layers)))
        before = width
    last = classifier(before, classes, dropout) if widths else FlatLinear(before, classes)
    return nn.Sequential(OrderedDict([*stages, ("classify", last)]))


class Omega(nn.Sequential):
    """An augmentation of embeddings ``(rows, d)`` -> ``(rows, d)``: linear, ReLU, linear; or one linear layer."""

    def __init__(self, width: int, hidden: float, standardise: bool) -> None:
        inside = round(hidden * width)
        layers = OrderedDict[str, nn.Module](up=nn.Linear(width, inside or width))
        if inside:
            layers |= {"relu": nn.ReLU(), "down": nn.Linear(inside, width)}
        super().__init__(layers)
        self.width, self.hidden, self.standardise = width, hidden, standardise


def omega(hidden: float = 2, standardise: bool = True, *, shape: tuple[int, ...], classes: int = 0) -> Stages:
    """Omega of the embedding paper (section III): d -> hidden x d -> ReLU -> d, learned to do to an embedding what a pixel
    augmentation does to its picture. Stages: up, relu, down; the result is the augmented embedding.

    Args:
        hidden: width of the hidden layer as a multiple of d; 0 for a linear map alone, the stage up, which
            ``fit: ridge`` solves for.
        standardise: a phase whose objective is to match its input under another view trains it on standardised pairs, as
            `augend.EmbeddingAugmenter` does, and works the scales into its weights at its end; such pairs are cached.
        shape: ``(d,)`` of the embedding.
        classes: not used.
    """
    if len(shape) != 1:
        raise AugendError(
            f"model 'omega' takes embeddings (d,), not inputs of shape {tuple(shape)}; wire it to `features`"
        )
    if round(hidden * shape[0]) < 1 and hidden:
        raise AugendError(
            f"model 'omega': hidden {hidden} times {shape[0]} is no width; give a multiple such as 2, or 0"
        )
    return as_stages(Omega(shape[0], hidden, standardise), classifier=False)
