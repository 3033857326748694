"""Autoencoders of pictures: the denoising VAE of the learned-augmentation paper, and principal components in its place.

Both are `Stages` that are no chain: what they give is asked for by name (`vae.mean`, `vae.logits`, `vae.picture`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend.contract import AugendError
from augend.models.small import FlatLinear, classifier, pictures
from augend.models.stages import RESULT, Stages

__all__ = ["DenoisingVAE", "PrincipalComponents", "latent_head"]

WIDTHS = (32, 64, 128, 256, 512)


class DenoisingVAE(Stages):
    """A variational autoencoder of pictures: five blocks down to a normal distribution over `latent` numbers, and up again.

    Encoder: blocks of [3x3 convolution of stride 2, batch norm, ReLU], then two linear heads: the mean, and the *logarithm*
    of the variance. Decoder: a linear layer, a transposed block for each block, a last 3x3 convolution that gives logits;
    their sigmoid is the picture. Trained to give back the clean picture of an augmented one it undoes the augmentation; of
    the same one it is a plain VAE.

    Stages: encode, mean, logvar, decode; and norms, the encoder's batch norms without their weights, for a phase that lets
    their statistics move alone. Tensors: mean, logvar, sample, logits, picture. The result is the picture of the mean.

    Args:
        latent: numbers of the latent.
        widths: of the encoder's blocks; each halves the sides.
        authors: adds a tensor ``slipped``, what the published classifier learned from: a sample whose mean comes from the
            head of the log-variance, and whose log-variance comes from a head that was never trained.
        shape: ``(C, H, W)`` of the pictures, floats in [0, 1], taken as they are.
        classes: not used.

    Cost:
        At 64x64, 0.020 billion multiply-adds a picture to encode, 0.032 to decode; 3.9 million weights.

    Example:
        >>> vae = DenoisingVAE(latent=8, shape=(3, 32, 32)).eval()
        >>> mean, logvar = vae.encode(torch.rand(5, 3, 32, 32))
        >>> vae.sample(mean, logvar).shape, vae.decode(mean).shape
        (torch.Size([5, 8]), torch.Size([5, 3, 32, 32]))
        >>> float(vae.reconstruct(torch.rand(2, 3, 32, 32)).detach().max()) <= 1
        True

    Source: learned data augmentation, section III: widths from the text; strides, heads and decoder from the authors' code.
    Deviation: sides need not be 64; each transposed convolution gives back the sides that its mirror took.
    """

    unused_weight: Tensor
    unused_bias: Tensor
    raw_pixels = True
    random = frozenset({"sample", "slipped"})

    def __init__(
        self,
        latent: int = 128,
        widths: Sequence[int] = WIDTHS,
        authors: bool = False,
        *,
        shape: tuple[int, ...],
        classes: int = 0,
    ) -> None:
        channels, height, width = pictures("denoising-vae", shape)
        if latent < 1 or not widths or min(widths) < 1:
            raise AugendError(f"model 'denoising-vae': latent {latent}, widths {list(widths)}; allowed: 1 or more each")
        owned = {
            "encode": ("encoder",),
            "mean": ("mean_head",),
            "logvar": ("logvar_head",),
            "decode": ("widen", "decoder"),
            "norms": tuple(f"encoder.block{n}.norm" for n in range(1, len(widths) + 1)),
        }
        outputs = {"mean", "logvar", "sample", "logits", "picture", *(["slipped"] if authors else [])}
        super().__init__(tuple(owned), outputs, modules=owned)
        self.latent, self.authors = latent, authors
        sides = [(height, width)]
        for _ in widths:
            sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
        down, up = OrderedDict[str, nn.Module](), OrderedDict[str, nn.Module]()
        before = channels
        for number, after in enumerate(widths, 1):
            down[f"block{number}"] = _block(_Down(before, after, 3, 2, 1, bias=False), after)
            before = after
        self.encoder = nn.Sequential(down)
        self._smallest = (widths[-1], *sides[-1])
        flat = math.prod(self._smallest)
        self.mean_head, self.logvar_head = nn.Linear(flat, latent), nn.Linear(flat, latent)
        if authors:  # it never learns, so its numbers are no weights
            never = nn.Linear(flat, latent)
            self.register_buffer("unused_weight", never.weight.detach())
            self.register_buffer("unused_bias", never.bias.detach())
        self.widen = nn.Linear(latent, flat)
        for number in reversed(range(len(widths))):
            after = widths[max(number - 1, 0)]
            more = [sides[number][axis] - (2 * sides[number + 1][axis] - 1) for axis in (0, 1)]
            turned = _Up(before, after, 3, 2, 1, output_padding=(more[0], more[1]), bias=False)
            up[f"block{number + 1}"] = _block(turned, after)
            before = after
        up["last"] = nn.Conv2d(before, channels, 3, padding=1)
        self.decoder = nn.Sequential(up)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Floats ``(rows, C, H, W)`` in [0, 1] -> mean and log-variance, ``(rows, latent)`` each."""
        deep = self._deep(pictures)
        return self.mean_head(deep), self.logvar_head(deep)

    def sample(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """A draw of the latent, ``(rows, latent)``, from torch's default generator; gradients reach both arguments."""
        return mean + torch.randn_like(mean) * (0.5 * logvar).exp()

    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(rows, latent)`` -> pictures ``(rows, C, H, W)`` in [0, 1]."""
        return self._logits(latent).sigmoid()

    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Pictures -> what the decoder makes of their means."""
        return self.decode(self.encode(pictures)[0])

    def forward(self, x: Tensor, want: Iterable[str] = RESULT, start: str | None = None) -> dict[str, Tensor]:
        """The tensors wanted, by name; see `Stages.forward`. Nothing is computed that nobody wants.

        ``logits`` are of a sample in training mode, as the bound wants it, and of the mean in evaluation mode; ``sample`` and
        ``slipped`` are drawn in both.
        """
        wanted = set(want)
        for key in (*wanted, *([] if start is None else [f":{start}"])):
            self.position(key)
        deep = self._deep(x)
        out: dict[str, Tensor] = {"mean": self.mean_head(deep)}
        drawn = self.decoder.training and bool(wanted & {"", "logits", "picture"})
        if drawn or wanted & {"logvar", "sample", "slipped"}:
            out["logvar"] = self.logvar_head(deep)
        if drawn or "sample" in wanted:
            out["sample"] = self.sample(out["mean"], out["logvar"])
        if "slipped" in wanted:
            out["slipped"] = self.sample(out["logvar"], functional.linear(deep, self.unused_weight, self.unused_bias))
        if wanted & {"", "logits", "picture"}:
            out["logits"] = self._logits(out["sample"] if drawn else out["mean"])
            if wanted & {"", "picture"}:
                out["picture"] = out[""] = out["logits"].sigmoid()
        return {key: out[key] for key in wanted}

    def _deep(self, x: Tensor) -> Tensor:
        deep: Tensor = self.encoder(self.normalised(x))
        return deep.flatten(1)

    def _logits(self, latent: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.widen(latent).view(-1, *self._smallest))
        return logits


class _Down(nn.Conv2d):
    """A 3x3 convolution of stride 2 and padding 1. What ends in one pixel is one matrix product with the taps that meet
    pixels and not padding: faster, and fewer FLOPs. What ends in up to 2x2 is, on a CPU in full precision, one of the
    windows: up to three times as fast (bench/vae.py)."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        last = input.permute(0, 2, 3, 1)
        if max(height, width) <= 2:
            return functional.linear(last.flatten(1), _taps(self.weight, height, width))[:, :, None, None]
        if max(height, width) > 4 or not _full(input):
            return super().forward(input)
        padded = functional.pad(last.flatten(1, 2), (0, 0, 0, 1))  # a last row of zeros, for what lies outside
        windows = padded.index_select(1, torch.tensor(_windows(height, width))).view(-1, 9 * self.in_channels)
        found = functional.linear(windows, _taps(self.weight))
        return found.view(-1, -(-height // 2), -(-width // 2), self.out_channels).permute(0, 3, 1, 2)


class _Up(nn.ConvTranspose2d):
    """Its transpose: what begins at one pixel, or at up to 2x2, is one matrix product, as there."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        before = input.shape[2:]
        height, width = (2 * side - 1 + more for side, more in zip(before, self.output_padding, strict=True))
        last = input.permute(0, 2, 3, 1)
        if output_size is None and before == (1, 1):
            spread = last.flatten(1) @ _taps(self.weight, height, width)
        elif output_size is None and max(before) <= 2 and _full(input):
            parts = (last.flatten(0, 2) @ _taps(self.weight)).view(len(input), -1, self.out_channels)
            padded = parts.new_zeros(len(input), height * width + 1, self.out_channels)
            spread = padded.index_add(1, torch.tensor(_windows(height, width)), parts)[:, :-1].contiguous()
        else:
            return super().forward(input, output_size)
        return spread.view(-1, height, width, self.out_channels).permute(0, 3, 1, 2)


def _full(x: Tensor) -> bool:
    """Whether to compute on a CPU, in full precision."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


@functools.cache
def _windows(height: int, width: int) -> tuple[int, ...]:
    """The number of the pixel that each tap of each window meets; ``height * width`` is that of all that lies outside."""
    tops, lefts = ([2 * at - 1 for at in range(-(-side // 2))] for side in (height, width))
    return tuple(
        row * width + column if 0 <= row < height and 0 <= column < width else height * width
        for top, left in itertools.product(tops, lefts)
        for row, column in itertools.product(range(top, top + 3), range(left, left + 3))
    )


def _taps(weight: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
    """Of weights ``(a, b, 3, 3)`` what lies on ``height x width`` pixels around which all is padding, ``(a, height * width *
    b)``, or without sides all taps: in the order in which convolutions' weights lie when they are channels last."""
    last = weight.permute(0, 2, 3, 1)
    return last.flatten(1) if height is None or width is None else last[:, 1 : 1 + height, 1 : 1 + width].flatten(1)


def _block(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))


class PrincipalComponents(Stages):
    """The `latent` principal components of pictures, in a VAE's place: a linear map, which ``fit: pca`` solves for.

    Stage and first tensor: mean. The tensor picture, also the result, is what the components say of the pixels, in [0, 1].
    The buffer ``middle``, ``(D,)``, is the mean picture.

    Args:
        latent: components; there cannot be more than pixels.
        shape: ``(C, H, W)`` of the pictures, or ``(D,)``.
        classes: not used.

    Example:
        >>> net = PrincipalComponents(latent=4, shape=(1, 8, 8))
        >>> net(torch.rand(3, 1, 8, 8), {"mean"})["mean"].shape
        torch.Size([3, 4])
    """

    raw_pixels = True

    middle: Tensor

    def __init__(self, latent: int = 128, *, shape: tuple[int, ...], classes: int = 0) -> None:
        super().__init__(("mean",), {"mean", "picture"}, modules={"mean": ("components",)})
        if not 1 <= latent <= math.prod(shape):
            raise AugendError(
                f"model 'pca': latent {latent}; allowed: 1 to {math.prod(shape)}, the numbers of a picture"
            )
        self._shape = tuple(shape)
        self.components = FlatLinear(math.prod(shape), latent)
        self.register_buffer("middle", torch.zeros(math.prod(shape)))

    def _position(self, key: str) -> int:
        return 0 if key == ":mean" else super()._position(key)

    def forward(self, x: Tensor, want: Iterable[str] = RESULT, start: str | None = None) -> dict[str, Tensor]:
        """The tensors wanted, by name; see `Stages.forward`."""
        wanted = set(want)
        for key in (*wanted, *([] if start is None else [f":{start}"])):
            self.position(key)
        out = {":mean": x}
        if wanted - {":mean"}:
            out["mean"] = self.components(x)
        if wanted & {"", "picture"}:
            flat = out["mean"] @ self.components.weight + self.middle
            out["picture"] = out[""] = flat.view(-1, *self._shape).clamp(0, 1)
        return {key: out[key] for key in wanted}


class _Standardised(nn.BatchNorm1d):
    """Inputs of any shape, flattened to ``(rows, d)``, every number with mean 0 and deviation 1: of the batch in training
    mode, of all batches so far otherwise. No weights.

    Numbers are divided by their deviation however small it is, where batch norm adds 1e-5 to its square; means over all
    batches, so that a few steps are enough, which is right for numbers that come from a frozen network.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-12, momentum=None, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        """``(rows, ...)`` -> ``(rows, d)``."""
        return super().forward(input.flatten(1))


def latent_head(
    hidden: int = 32, authors: bool = False, standardise: bool = False, *, shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """The learned-augmentation paper's head on a latent: linear, batch norm, tanh, linear. Stages: hidden, classify.

    Args:
        hidden: width of the first layer.
        authors: logits pass batch norm and ReLU, as in the published code.
        standardise: each number of the latent is brought to mean 0 and deviation 1 first (batch norm without weights, its
            statistics means over all batches). For a frozen encoder that learned nothing, whose latents hardly differ from
            picture to picture: the head's own batch norm would take their deviations, 1e-4 to 1e-3, for nothing.
        shape: ``(d,)`` of the latent.

    Example:
        >>> head = latent_head(standardise=True, shape=(3,), classes=2)
        >>> z = 5 + 1e-4 * torch.randn(500, 3)
        >>> bool(head.hidden.standard(z).std(0).sub(1).abs().max() < 0.1)
        True
    """
    width = math.prod(shape)
    first = OrderedDict[str, nn.Module](standard=_Standardised(width)) if standardise else OrderedDict[str, nn.Module]()
    first.update(fc=FlatLinear(width, hidden), norm=nn.BatchNorm1d(hidden), tanh=nn.Tanh())
    last: nn.Sequential = classifier(hidden, classes)
    if authors:
        last.append(nn.BatchNorm1d(classes))
        last.append(nn.ReLU())
    return nn.Sequential(OrderedDict(hidden=nn.Sequential(first), classify=last))
