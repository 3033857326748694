"""Where the pixels of a picture go: flips, crops, rotations, affine maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from augend import pixels
from augend.augment.base import ATTEMPTS, Coin, Operation, boxes, checked, dictated, pair, span, spread
from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["Affine", "HFlip", "PaddedCrop", "ResizedCrop", "Rotate", "Rotations", "VFlip"]

Mode = Literal["bilinear", "nearest"]


def _mode(word: str, mode: str) -> None:
    if mode not in ("bilinear", "nearest"):
        raise AugendError(f"{word}: mode must be 'bilinear' or 'nearest', found {mode!r}")


@dataclass(eq=False)
class HFlip(Coin):
    """Left and right exchanged with probability p; two variants.

    >>> flip, x = HFlip(), torch.arange(4.0).view(2, 1, 1, 2)
    >>> flip.apply(x, flip.draw(Draws(0, "example", keys=2), 0.0, copy=torch.tensor([0, 1]))).flatten().tolist()
    [0.0, 1.0, 3.0, 2.0]
    """

    word: ClassVar[str] = "hflip"
    mirrors: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Any dtype ``(rows, C, H, W)``."""
        return pixels.hflip(x, self.hits(params))


@dataclass(eq=False)
class VFlip(Coin):
    """Top and bottom exchanged with probability p; two variants."""

    word: ClassVar[str] = "vflip"
    mirrors: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Any dtype ``(rows, C, H, W)``."""
        return pixels.vflip(x, self.hits(params))


@dataclass(eq=False)
class PaddedCrop(Operation):
    """Padded with zeros, then a window of the old size anywhere: the picture moves by up to `padding` pixels.

    Parameters: top and left of the window, 0 .. 2 padding.
    """

    word: ClassVar[str] = "crop"
    moves: ClassVar[bool] = True
    padding: int = 4

    def __post_init__(self) -> None:
        if checked(self.word, "padding", self.padding, 0) % 1:
            raise AugendError(f"crop: padding must be whole pixels, found {self.padding!r}")
        self.padding = int(self.padding)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 2)``, whole numbers."""
        return draws.integers(2 * self.padding + 1, 2).float()

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Any dtype ``(rows, C, H, W)``."""
        return pixels.padded_crop(x, params, self.padding)


@dataclass(eq=False)
class ResizedCrop(Operation):
    """A box of random area and shape, enlarged to the picture's size (bilinear, no antialiasing).

    Parameters: 22 uniform numbers (`augend.augment.base.boxes`). When none of ten candidates fits, the largest box in
    the middle whose shape is allowed, as in torchvision.

    Args:
        scale: smallest and largest area, as part of the picture's.
        ratio: smallest and largest width / height.
    """

    word: ClassVar[str] = "resized-crop"
    cuts: ClassVar[bool] = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        self.scale = span(self.word, "scale", self.scale, 1e-6, 1)
        self.ratio = span(self.word, "ratio", self.ratio, 1e-3)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 22)`` in [0, 1)."""
        return draws.uniform(2 * ATTEMPTS + 2)

    def apply(self, x: Tensor, params: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """float32 ``(rows, C, H, W)``; `size`: height and width of the result, the input's by default."""
        return pixels.resized_crop(x, self.boxes(params, *x.shape[-2:]), size)

    def boxes(self, params: Tensor, height: int, width: int) -> Tensor:
        """int64 ``(rows, 4)``: top, left, height, width."""
        found, fits = boxes(params, height, width, self.scale, self.ratio)
        tall = min(height, max(1, round(width / self.ratio[0])))
        wide = min(width, max(1, round(height * self.ratio[1])))
        middle = torch.tensor([(height - tall) // 2, (width - wide) // 2, tall, wide], device=params.device)
        return torch.where(fits[:, None], found, middle)


@dataclass(eq=False)
class Rotate(Operation):
    """Turned by an angle uniform in +- `degrees`; outside is 0.

    Parameters: the angle in degrees, counter-clockwise.

    Args:
        degrees: largest angle, or [lowest, highest].
        mode: "bilinear" or "nearest".
        expand: on a growing canvas that is shrunk back, to the nearest pixel (`augend.pixels.rotate`).
    """

    word: ClassVar[str] = "rotate"
    degrees: float | Sequence[float] = 30.0
    mode: Mode = "bilinear"
    expand: bool = False

    def __post_init__(self) -> None:
        self.degrees = spread(self.word, "degrees", self.degrees)
        _mode(self.word, self.mode)
        self._span = self.degrees

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1)``."""
        return draws.uniform(1, *self._span)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)``."""
        return pixels.rotate(x, params[:, 0], self.mode, expand=self.expand)


@dataclass(eq=False)
class Rotations(Operation):
    """Turned by one of a few angles: a finite augmentation (factoring, section 5: tilt+).

    Parameters: the variant number. Variant 0 is the angle 0 when that is among the angles, the others follow in the
    order given: with the default angles 0, -30, -15, 15, 30.

    Args:
        angles: degrees, counter-clockwise, all different; drawn with equal chances.
        mode: "bilinear" or "nearest".
        expand: on a growing canvas that is shrunk back, to the nearest pixel (`augend.pixels.rotate`).
    """

    word: ClassVar[str] = "rotations"
    angles: Sequence[float] = (-30.0, -15.0, 0.0, 15.0, 30.0)
    mode: Mode = "bilinear"
    expand: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.angles, str) or not isinstance(self.angles, Sequence) or not self.angles:
            raise AugendError(f"rotations: angles must be a list of degrees, found {self.angles!r}")
        angles = [checked(self.word, "angles", angle, -360, 360) for angle in self.angles]
        if len(set(angles)) < len(angles):
            raise AugendError(f"rotations: angles must be different from each other, found {self.angles!r}")
        _mode(self.word, self.mode)
        self.angles = tuple(sorted(angles, key=lambda angle: angle != 0))  # stable: only 0 moves, to the front
        self.variants = len(angles)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1)``: the variant; `copy` dictates it."""
        if copy is not None:
            return dictated(copy, len(self.angles), len(draws.keys), self.word)
        return draws.integers(len(self.angles)).float()

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)``."""
        degrees = torch.tensor(self.angles, device=params.device)[params[:, 0].long()]
        return pixels.rotate(x, degrees, self.mode, expand=self.expand)


@dataclass(eq=False)
class Affine(Operation):
    """Sheared, scaled, turned about the middle and moved; outside is 0.

    Parameters: angle, move right and down as parts of width and height, scale, shear along x and y in degrees. Moves
    are rounded to whole pixels, as torchvision's are.

    Args:
        degrees: largest angle, or [lowest, highest]; counter-clockwise.
        translate: largest move right and down, as parts of width and height.
        scale: smallest and largest scale.
        shear: largest shear along x in degrees, or [lowest, highest] along x, or both along x then both along y.
        mode: "bilinear" or "nearest".
    """

    word: ClassVar[str] = "affine"
    degrees: float | Sequence[float]
    translate: Sequence[float] = (0.0, 0.0)
    scale: Sequence[float] = (1.0, 1.0)
    shear: float | Sequence[float] = 0.0
    mode: Mode = "bilinear"

    def __post_init__(self) -> None:
        self.degrees = angle = spread(self.word, "degrees", self.degrees)
        self.translate = right, down = pair(self.word, "translate", self.translate, 0, 1)
        self.scale = size = span(self.word, "scale", self.scale, 1e-3)
        shear = self.shear
        if not isinstance(shear, int | float) and len(shear) == 4:
            along_x, along_y = spread(self.word, "shear", shear[:2]), spread(self.word, "shear", shear[2:])
        else:
            along_x, along_y = spread(self.word, "shear", shear), (0.0, 0.0)
        self.shear = (*along_x, *along_y)
        if max(map(abs, self.shear)) >= 90:
            raise AugendError(f"affine: shear must stay below 90 degrees, found {shear!r}")
        _mode(self.word, self.mode)
        self._spans = torch.tensor([angle, (-right, right), (-down, down), size, along_x, along_y])

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 6)``."""
        low, high = self._spans.unbind(1)
        return torch.lerp(low, high, draws.uniform(6))

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)``."""
        side = torch.tensor([x.shape[-1], x.shape[-2]], device=params.device)
        moves = (params[:, 1:3] * side).round()
        matrices = pixels.affine_matrices(params[:, 0], moves, params[:, 3], params[:, 4:6])
        return pixels.warp(x, matrices, self.mode)
