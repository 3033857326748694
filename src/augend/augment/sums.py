"""Sums: several pictures become one row, targets alike; and SamplePairing, the sum that keeps one label.

How many pictures a row has is a number, or falls with a phase's progress (`gradual_coefficients`). Coefficients sum to 1
exactly. Sums work on pictures and on any tensor inside a network.

Exactness: with equal coefficients, uint8 pictures are added as integers and divided once, so the mean is rounded once and
the order of the pictures does not matter. In a recipe that is so where all that stands before the sum in its view only moves
pixels (padded crops, flips); other augmentations make floats, and then floats are added. Other coefficients are whole
multiples of 2^-24: float32 holds them and all of their sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from augend.augment.base import Operation, checked
from augend.augment.mix import Paired, checked_batch, label_table
from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["SamplePairing", "SumAugmentation", "gradual_coefficients"]

_UNIT = 2**24  # coefficients are whole multiples of 1 / _UNIT
_NEAR = 1e-9  # progress is a quotient of two whole numbers, so nothing else lies so close to the border of an interval
_INT16 = 32767 // 255  # pictures whose sum int16 holds


def _left(start: int, progress: float) -> tuple[int, float]:
    """How many pictures are left, and how far (0 .. 1) the next one to go has gone."""
    if not 0 <= progress <= 1:
        raise AugendError(f"sum: progress must be a number from 0 to 1, found {progress!r}")
    gone = progress * (start - 1)
    whole = math.floor(gone + _NEAR)
    return start - whole, max(0.0, gone - whole)


def gradual_coefficients(start: int, progress: float) -> Tensor:
    """The coefficients of `start` pictures, which become one picture as `progress` goes from 0 to 1.

    Progress is divided into start - 1 equal intervals. In each, one more coefficient falls to 0, the last of those that are
    left, and the others rise equally. So they sum to 1, none is negative, they change continuously, m are equal where an
    interval with m pictures begins, and at 1 the first is 1.

    Args:
        start: pictures at progress 0.
        progress: 0 .. 1.

    Returns:
        float32 ``(start,)``, whole multiples of 2^-24, so that the sum is 1 exactly.

    Example:
        >>> gradual_coefficients(4, 0.5)
        tensor([0.4167, 0.4167, 0.1667, 0.0000])

    Source: procedures, equations 3.1 to 3.6. Deviation: their epsilon is left out, which has all stated properties and is
    what the published code computes but for a factor (at most 0.014 away at start 4, 0.125 at start 2).
    """
    if isinstance(start, bool) or not isinstance(start, int) or start < 1:
        raise AugendError(f"gradual_coefficients: start must be a whole number from 1, found {start!r}")
    left, gone = _left(start, progress)
    found = torch.zeros(start)
    if left > 1:
        share = math.floor((1 / left + gone / (left * (left - 1))) * _UNIT)
        last = math.floor((1 - gone) / left * _UNIT)
        found[1 : left - 1] = share / _UNIT
        found[left - 1] = last / _UNIT
        found[0] = (_UNIT - (left - 2) * share - last) / _UNIT  # with what rounding leaves
    else:
        found[0] = 1.0
    return found


@dataclass(eq=False)
class SumAugmentation(Operation):
    """Sum augmentation: each row is the weighted mean of k pictures, its target that of their targets.

    In a recipe the order picks k pictures for each row, so a step sees k times as many pictures as rows. In a loop,
    ``SumAugmentation(k, num_classes=C)(images, labels)`` makes B // k rows of a batch of B.

    Args:
        k: pictures a row.
        gradual: instead of k: pictures a row at the beginning; they fall to one with the phase's progress, and coefficients
            follow `gradual_coefficients`.
        coefficients: "equal", or "beta": drawn for each row from Dirichlet(alpha, …, alpha), which for two pictures is
            Beta(alpha, alpha). Targets have the coefficients of the pictures.
        alpha: of "beta".
        num_classes: needed to call it with class numbers; in a recipe the data say it.

    Example:
        >>> images, targets = SumAugmentation(2, num_classes=3)(torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1]))
        >>> images.shape, targets.sum(1)
        (torch.Size([2, 1, 8, 8]), tensor([1., 1.]))

    Source: procedures, chapter 3 (SA, GCSA). Deviation: the paper's beta coefficients are drawn for each pixel, beside
    targets of one half; here they are a row's, and its targets have them too.
    """

    word: ClassVar[str] = "sum"
    integers: ClassVar[bool] = True  # `mix` takes uint8 pictures, too

    k: int | None = None
    gradual: int | None = None
    coefficients: str = "equal"
    alpha: float = 1.0
    num_classes: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.k is None) == (self.gradual is None):
            raise AugendError(
                "sum: k (pictures a row) or gradual (pictures a row at the beginning) must be given, one of them"
            )
        for option, value, least in (("k", self.k, 1), ("gradual", self.gradual, 2)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise AugendError(f"sum: {option} must be a whole number from {least}, found {value!r}")
        if self.coefficients not in ("equal", "beta"):
            raise AugendError(f"sum: coefficients must be 'equal' or 'beta', found {self.coefficients!r}")
        if self.gradual is not None and self.coefficients == "beta":
            raise AugendError(
                "sum: gradual has coefficients of its own; leave coefficients out, or give k instead of gradual"
            )
        self.alpha = checked(self.word, "alpha", self.alpha, 1e-3)

    def sources(self, progress: float) -> int:
        """Pictures a row; with `gradual`, those whose coefficient is not 0."""
        if self.k is not None:
            return self.k
        assert self.gradual is not None
        return _left(self.gradual, progress)[0]

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, k)``: the coefficients; nothing, ``(rows, 0)``, where they are equal."""
        rows = len(draws.keys)
        if self.gradual is not None:
            return gradual_coefficients(self.gradual, progress)[: self.sources(progress)].repeat(rows, 1)
        if self.coefficients == "equal":
            return torch.zeros(rows, 0)
        assert self.k is not None
        rest, found = torch.full((rows, 1), _UNIT), []  # each takes its part of what the earlier ones leave
        for place in range(self.k - 1):
            part = draws.child(f"part {place}").beta(self.alpha, self.alpha * (self.k - 1 - place))
            found.append((part.double() * rest).round().long())
            rest = rest - found[-1]
        return torch.cat([*found, rest], 1) / _UNIT

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        """k pictures of each row -> rows.

        Args:
            x: k tensors ``(rows, ...)``: uint8 pictures, or floats of any kind.
            targets: k floats ``(rows, classes)``.
            params: what `draw` returned, on any device.

        Returns:
            ``(rows, ...)``, floats of the dtype of `x`, or float32 in [0, 1] of uint8 pictures; and ``(rows, classes)``.
        """
        if not params.shape[1]:
            return _mean(x), _mean(targets)
        params = params if self.gradual is None else params[:1]  # all rows have the same
        return _weighted(x, params), _weighted(targets, params)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws | None = None,
        *,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum the pictures of a batch in a loop of your own, in a random permutation.

        Args:
            images: ``(B, ...)``, uint8 pictures or floats; they are left as they are.
            labels: int64 ``(B,)``, or float ``(B, classes)``.
            draws: of this step; the numbers are functions of it alone.
            progress: of the training, 0 .. 1, which `gradual` follows.
            generator: without `draws`, where the numbers come from; None: torch's default generator.

        Returns:
            B // k rows, no picture in two of them (B mod k are left out), float32 in [0, 1] where `images` are uint8; and
            their float targets ``(B // k, classes)``.
        """
        checked_batch(self.word, images, labels)
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise AugendError(f"sum: images must be uint8 or floats, found {str(images.dtype).removeprefix('torch.')}")
        count = self.sources(progress)
        rows = len(images) // count
        if not rows:
            raise AugendError(f"sum: a row is made of {count} images, and there are {len(images)}")
        if draws is not None and generator is not None:
            raise AugendError("sum: draws and generator both say where numbers come from; give one of them")
        if draws is None:
            device = "cpu" if generator is None else generator.device
            draws = Draws(int(torch.randint(1 << 62, (), generator=generator, device=device)), self.word)
        order = torch.randperm(len(images), generator=draws.child("order").generator())[: rows * count].view(
            count, rows
        )
        sides = [
            [part.index_select(0, some) for some in order.to(part.device)]
            for part in (images, label_table(self.word, labels, self.num_classes))
        ]
        return self.mix(sides[0], sides[1], self.draw(draws.rows(torch.arange(rows)), progress))


@dataclass(eq=False)
class SamplePairing(Paired):
    """SamplePairing: each row is the mean of its picture and that of the row before, under its own label (Inoue 2018).

    Rows of a batch are paired, so a step sees as many pictures as rows.

    Args:
        label: "first": the row's own; "both": the mean of the two, which makes it a sum of two.
        num_classes: needed to call it with class numbers; in a recipe the data say it.

    Example:
        >>> images, targets = SamplePairing(num_classes=2)(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> targets.argmax(1)
        tensor([0, 1, 1, 0])
    """

    word: ClassVar[str] = "pair"
    integers: ClassVar[bool] = True

    label: str = "first"

    def __post_init__(self) -> None:
        if self.label not in ("first", "both"):
            raise AugendError(f"pair: label must be 'first' or 'both', found {self.label!r}")

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """Nothing is drawn: ``(rows, 0)``."""
        return torch.zeros(len(draws.keys), 0)

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and their partners -> mixed rows; uint8 pictures become float32 in [0, 1]."""
        return _mean(x), targets[0] if self.label == "first" else _mean(targets)


def _mean(x: Sequence[Tensor]) -> Tensor:
    """The mean: of uint8 pictures the integers' sum, divided once; of floats in float32 at least."""
    if x[0].dtype == torch.uint8:
        whole = x[0].to(torch.int16 if len(x) <= _INT16 else torch.int32)
        for part in x[1:]:
            whole += part
        return whole.float().div_(255 * len(x))
    total = x[0].to(torch.promote_types(x[0].dtype, torch.float32))
    for number, part in enumerate(x[1:]):
        total = total.add_(part) if number else total + part  # the first may be the caller's own
    return (total / len(x)).to(x[0].dtype)


def _weighted(x: Sequence[Tensor], coefficients: Tensor) -> Tensor:
    """The sum of x times the coefficients ``(rows, k)``, or ``(1, k)`` for all rows, in float32 at least."""
    kind = x[0].dtype
    wide = torch.promote_types(kind, torch.float32)
    shares = coefficients.to(x[0].device, wide).view(*coefficients.shape, *[1] * (x[0].ndim - 1)).unbind(1)
    total = x[0].to(wide) * shares[0]
    for part, share in zip(x[1:], shares[1:], strict=True):
        total = total.addcmul_(part.to(wide), share)
    return total.clamp_max_(255).div_(255) if kind == torch.uint8 else total.to(kind)
