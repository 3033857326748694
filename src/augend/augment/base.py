"""What all augmentations share: a stable description, checked options, finite choices, boxes of random size."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["Coin", "Operation", "boxes", "checked", "describe", "dictated", "pair", "span", "spread"]

ATTEMPTS = 10  # candidates for a box, as in torchvision


@dataclass(eq=False)
class Operation:
    """Base of the built-in augmentations; third parties need not inherit anything.

    Attributes:
        word: what a recipe calls it.
        moves: True: pixels only change places, so `apply` takes uint8 pictures as well.
        cuts: True: a part of the picture is cut out, so `apply` takes larger pictures than come out, and that size.
        mirrors: True: what is in the middle stays there, so larger pictures may be given.
        variants: number of outcomes when finite, None when infinite. Variant 0 is the identity where there is one.
    """

    word: ClassVar[str] = ""
    moves: ClassVar[bool] = False
    cuts: ClassVar[bool] = False
    mirrors: ClassVar[bool] = False
    variants: int | None = field(default=None, init=False, repr=False)

    def sources(self, progress: float) -> int:
        """Pictures a row: 1."""
        return 1

    def describe(self) -> str:
        """The word and every option as JSON, equal for equal augmentations: part of the keys of caches."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return json.dumps({self.word: options}, sort_keys=True)


def describe(op: Any) -> str:
    """`op.describe()`, or for a foreign augmentation its class and public attributes as JSON."""
    if hasattr(op, "describe"):
        return str(op.describe())
    public = {name: value for name, value in vars(op).items() if not name.startswith("_")}
    return json.dumps({f"{type(op).__module__}:{type(op).__qualname__}": public}, sort_keys=True, default=repr)


def checked(word: str, option: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value` as a number in low .. high, else a clear error."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"from {low:g} to {high:g}" if high < math.inf else "" if low == -math.inf else f"of at least {low:g}"
        raise AugendError(f"{word}: {option} must be a number {bounds}".rstrip() + f", found {value!r}")
    return float(value)


def pair(word: str, option: str, value: Any, low: float, high: float = math.inf) -> tuple[float, float]:
    """`value` as two numbers in low .. high."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise AugendError(f"{word}: {option} must be two numbers, found {value!r}")
    return checked(word, option, value[0], low, high), checked(word, option, value[1], low, high)


def span(word: str, option: str, value: Any, low: float, high: float = math.inf) -> tuple[float, float]:
    """Two numbers in ascending order."""
    first, last = pair(word, option, value, low, high)
    if first > last:
        raise AugendError(f"{word}: {option} must be [lowest, highest], found {value!r}")
    return first, last


def spread(word: str, option: str, value: Any) -> tuple[float, float]:
    """A number v as (-v, v), or [lowest, highest] as it is."""
    if isinstance(value, int | float):
        half = checked(word, option, value, 0)
        return 0.0 - half, half
    return span(word, option, value, -math.inf)


def dictated(copy: Tensor, variants: int, rows: int, word: str) -> Tensor:
    """`copy` as the one column of a finite augmentation, float32 ``(rows, 1)``."""
    if copy.shape != (rows,) or (rows and (int(copy.min()) < 0 or int(copy.max()) >= variants)):
        raise AugendError(f"{word}: copy must be {rows} variant numbers from 0 to {variants - 1}")
    return copy.detach().to("cpu", torch.float32).view(-1, 1)


@dataclass(eq=False)
class Coin(Operation):
    """Something that is done to a row with probability p, or left: variant 1 or variant 0.

    With p = 1 (always) or p = 0 (never) there is one outcome, so one variant.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        self.p = checked(self.word, "p", self.p, 0, 1)
        self.variants = 1 if self.p in (0, 1) else 2

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1)``: the variant, 1 with probability p; `copy` dictates it."""
        rows = len(draws.keys)
        if copy is not None:
            return dictated(copy, self.variants or 1, rows, self.word)
        return draws.bernoulli(self.p).float() if self.variants == 2 else torch.zeros(rows, 1)

    def hits(self, params: Tensor) -> Tensor:
        """bool ``(rows,)``: the rows that something is done to."""
        return torch.ones_like(params[:, 0], dtype=torch.bool) if self.p == 1 else params[:, 0] > 0.5


def boxes(
    params: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Boxes of random area and shape, by torchvision's rule: the first of ten candidates that fits.

    Args:
        params: uniform numbers ``(rows, 22)``: ten areas, ten shapes, vertical and horizontal place; so what is drawn
            does not depend on the pictures' size.
        height: of the picture.
        width: of the picture.
        scale: smallest and largest area, as part of the picture's.
        ratio: smallest and largest width / height; drawn evenly in its logarithm.

    Returns:
        int64 ``(rows, 4)`` top, left, height, width, and bool ``(rows,)`` whether any candidate fits.
    """
    u = params.double()
    area = (u[:, :ATTEMPTS] * (scale[1] - scale[0]) + scale[0]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = (u[:, ATTEMPTS : 2 * ATTEMPTS] * (high - low) + low).exp()
    wide, tall = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (wide > 0) & (tall > 0) & (wide <= width) & (tall <= height)
    first = fits.long().argmax(1, keepdim=True)
    wide, tall = wide.gather(1, first)[:, 0], tall.gather(1, first)[:, 0]
    top = (u[:, -2] * (height - tall + 1)).long()
    left = (u[:, -1] * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide], 1), fits.any(1)
