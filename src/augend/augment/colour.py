"""What colour the pixels of a picture have: brightness, contrast, saturation, hue, grey, erased boxes, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augend import pixels
from augend.augment.base import ATTEMPTS, Coin, Operation, boxes, checked, span
from augend.randomness import Draws

__all__ = ["Brightness", "Contrast", "Erase", "Grayscale", "Hue", "Jitter", "Noise", "Saturation", "normal_like"]


def _factors(draws: Draws, strengths: tuple[float, ...]) -> Tensor:
    """float32 (rows, n): uniform in [max(0, 1 - s), 1 + s) for each strength s, as torchvision's ColorJitter draws."""
    low = torch.tensor([max(0.0, 1 - s) for s in strengths])
    high = torch.tensor([1 + s for s in strengths])
    return low + (high - low) * draws.uniform(len(strengths))


@dataclass(eq=False)
class _Factor(Operation):
    strength: float = 0.4

    def __post_init__(self) -> None:
        self.strength = checked(self.word, "strength", self.strength, 0)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1)``, the factor."""
        return _factors(draws, (self.strength,))


@dataclass(eq=False)
class Brightness(_Factor):
    """Multiplied by a factor uniform in 1 +- strength (not below 0). Parameters: the factor."""

    word: ClassVar[str] = "brightness"

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        return pixels.brightness(x, params[:, 0])


@dataclass(eq=False)
class Contrast(_Factor):
    """Contrast times a factor uniform in 1 +- strength (not below 0). Parameters: the factor."""

    word: ClassVar[str] = "contrast"

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        return pixels.contrast(x, params[:, 0])


@dataclass(eq=False)
class Saturation(_Factor):
    """Saturation times a factor uniform in 1 +- strength (not below 0); grey pictures stay. Parameters: the factor."""

    word: ClassVar[str] = "saturation"

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        return pixels.saturation(x, params[:, 0])


@dataclass(eq=False)
class Hue(Operation):
    """Colour circle turned by a part of a turn uniform in +- strength; grey pictures stay. Parameters: that part."""

    word: ClassVar[str] = "hue"
    strength: float = 0.1

    def __post_init__(self) -> None:
        self.strength = checked(self.word, "strength", self.strength, 0, 0.5)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1)``, parts of a turn."""
        return draws.uniform(1, -self.strength, self.strength)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        return pixels.hue(x, params[:, 0])


@dataclass(eq=False)
class Jitter(Operation):
    """Brightness, contrast, saturation and hue, each by its own random amount, always in this order.

    torchvision's ColorJitter shuffles the order anew for every call; here it is fixed, so that all rows of a batch go
    through the same four operations. Parameters: three factors and the turn of the hue.
    """

    word: ClassVar[str] = "jitter"
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __post_init__(self) -> None:
        self.brightness = checked(self.word, "brightness", self.brightness, 0)
        self.contrast = checked(self.word, "contrast", self.contrast, 0)
        self.saturation = checked(self.word, "saturation", self.saturation, 0)
        self.hue = checked(self.word, "hue", self.hue, 0, 0.5)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 4)``."""
        u = draws.uniform(4)
        low = torch.tensor([max(0.0, 1 - s) for s in (self.brightness, self.contrast, self.saturation)] + [-self.hue])
        high = torch.tensor([1 + s for s in (self.brightness, self.contrast, self.saturation)] + [self.hue])
        return low + (high - low) * u

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]; what has strength 0 is left out."""
        x = pixels.brightness(x, params[:, 0]) if self.brightness else x
        x = pixels.contrast(x, params[:, 1]) if self.contrast else x
        x = pixels.saturation(x, params[:, 2]) if self.saturation else x
        return pixels.hue(x, params[:, 3]) if self.hue else x


@dataclass(eq=False)
class Grayscale(Coin):
    """Grey, in as many channels, with probability p; two variants. Grey pictures stay."""

    word: ClassVar[str] = "grayscale"
    p: float = 0.1

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        return pixels.grayscale(x, self.hits(params))


@dataclass(eq=False)
class Erase(Operation):
    """A box set to 0 with probability p (Random Erasing, Zhong et al. 2017, with torchvision's defaults for the box).

    Parameters: a uniform number (erased below p) and the 22 of the box (`augend.augment.base.boxes`); a row whose ten
    candidates all exceed the picture is left.

    Args:
        p: probability.
        scale: smallest and largest area, as part of the picture's.
        ratio: smallest and largest width / height.
    """

    word: ClassVar[str] = "erase"
    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        self.p = checked(self.word, "p", self.p, 0, 1)
        self.scale = span(self.word, "scale", self.scale, 0, 1)
        self.ratio = span(self.word, "ratio", self.ratio, 1e-3)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 23)`` in [0, 1)."""
        return draws.uniform(2 * ATTEMPTS + 3)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Floats ``(rows, C, H, W)``."""
        found, fits = boxes(params[:, 1:], x.shape[-2], x.shape[-1], self.scale, self.ratio)
        return pixels.erase(x, found * ((params[:, 0] < self.p) & fits)[:, None])


def _mix32(z: Tensor) -> Tensor:
    """Scrambles 32-bit numbers held in int64; both multipliers are below 2^31, so no product leaves 63 bits."""
    z = (z ^ (z >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    z = (z ^ (z >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    return z ^ (z >> 15)


def normal_like(x: Tensor, seeds: Tensor) -> Tensor:
    """Standard normal numbers in the shape of `x`, row i a function of ``seeds[i]`` and the place in the row alone.

    Every pair of places gets two 32-bit words by hashing its number with the row's seed (in integers, so they are the
    same on every device), which Box and Muller's transform turns into two normal numbers (at most 5.9 in size).

    Args:
        x: ``(rows, ...)``.
        seeds: ``(rows, 2)``, whole numbers from 0 to 2^24 - 1.
    """
    size = math.prod(x.shape[1:])
    half = (size + 1) // 2
    first, second = seeds.to(x.device, torch.int64).unsqueeze(-1).unbind(1)  # (rows, 1) each
    key = _mix32(first | (second & 0xFF) << 24)
    other = _mix32(second ^ 0x5BD1E995)
    words = _mix32(_mix32(torch.arange(2 * half, device=x.device) ^ key) + other & 0xFFFFFFFF)
    u = ((words >> 8).float() + 0.5) * 2.0**-24
    radius, angle = (-2 * u[:, :half].log()).sqrt(), u[:, half:] * (2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :size].view(x.shape).to(x.dtype)


@dataclass(eq=False)
class Noise(Operation):
    """Normal noise of standard deviation `sigma` added to every pixel and channel, or entry of an embedding.

    Parameters: a seed of 48 bits for each row, in two columns of whole numbers; the noise is a function of it and of
        the pixel's place alone (`normal_like`), so it does not depend on the other rows, the rank or the batch size. With
        `p` below 1 a third column, 1 for the rows that get noise.

    Args:
        sigma: standard deviation, in the units of the pixels.
        clip: keep the result in [0, 1]; never done with `residual_of`.
        residual_of: in a recipe, a network that learned in an earlier phase to augment an embedding (`match`): `sigma` is
            then the root mean square of what it got wrong on held-out pictures. The control of the embedding family: noise
            as large as the network's mistakes.
        p: probability for a row to get noise.
    """

    word: ClassVar[str] = "noise"
    sigma: float = 0.1
    clip: bool = True
    residual_of: str = ""
    p: float = 1.0

    def __post_init__(self) -> None:
        self.sigma, self.p = checked(self.word, "sigma", self.sigma, 0), checked(self.word, "p", self.p, 0, 1)
        self.clip = self.clip and not self.residual_of

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 2)``, whole numbers below 2^24, or ``(rows, 3)``."""
        seeds = draws.integers(2**24, 2).float()
        return seeds if self.p == 1 else torch.cat([seeds, draws.child("p").bernoulli(self.p).float()], 1)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Floats ``(rows, ...)``."""
        noisy = x + self.sigma * normal_like(x, params[:, :2])
        noisy = noisy.clamp_(0, 1) if self.clip else noisy
        if self.p == 1:
            return noisy
        return torch.where((params[:, 2] > 0.5).to(x.device).view(-1, *[1] * (x.dim() - 1)), noisy, x)
