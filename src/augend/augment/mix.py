"""Mixing rows of a batch with one another, pictures and targets alike: mixup and cutmix.

Both work on pictures and on any tensor inside a network. A row's partner is the row before it: the batch was shuffled, so
that is as good a partner as any, no row is mixed with itself, and a rank of several needs one row more than its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from augend.augment.base import Operation, checked
from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["CutMix", "MixUp", "Paired", "checked_batch", "label_table", "places", "soft_targets", "with_partners"]


def soft_targets(labels: Tensor, classes: int) -> Tensor:
    """float32 ``(..., classes)``: 1 at the class of each int64 label, 0 elsewhere. No value is looked at on the host.

    >>> soft_targets(torch.tensor([1, 0]), 3)
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    empty = torch.zeros(*labels.shape, classes, device=labels.device)
    return empty.scatter_(-1, labels[..., None], 1.0)


def with_partners(rows: Tensor, partners: Iterable[Tensor]) -> Tensor:
    """int64 ``(n,)``: some rows of a batch, then the partners that are not among them.

    >>> with_partners(torch.tensor([4, 5]), [torch.tensor([3, 4])])
    tensor([4, 5, 3])
    """
    wanted = {number for some in partners for number in some.tolist()} - set(rows.tolist())
    return torch.cat([rows, torch.tensor(sorted(wanted), dtype=torch.int64)])


def places(rows: Tensor, wanted: Tensor) -> Tensor:
    """int64 ``(n,)``: where each of the wanted numbers stands in `rows`, which hold each number once, in any order.

    >>> places(torch.tensor([4, 5, 3]), torch.tensor([3, 4]))
    tensor([2, 0])
    """
    ordered, place = rows.sort()
    return place[torch.searchsorted(ordered, wanted)]


def checked_batch(word: str, images: Tensor, labels: Tensor) -> None:
    """Refuses what is no batch: labels are ``(rows,)`` or ``(rows, classes)``, one for each image."""
    if len(images) == 0 or labels.shape[:1] != images.shape[:1] or labels.ndim > 2:
        raise AugendError(
            f"{word}: {len(images)} images need labels ({len(images)},) or ({len(images)}, classes), found "
            f"{tuple(labels.shape)}"
        )


def label_table(word: str, labels: Tensor, classes: int | None) -> Tensor:
    """Labels of a loop as float ``(rows, classes)``: integers ``(rows,)`` by class number, soft ones as they are."""
    if labels.ndim == 2:
        if classes is not None and labels.shape[1] != classes:
            raise AugendError(f"{word}: labels have {labels.shape[1]} classes, num_classes says {classes}")
        return labels if labels.is_floating_point() else labels.float()
    if classes is None:
        raise AugendError(f"{word}: labels are class numbers, so num_classes is needed")
    if labels.is_floating_point():
        raise AugendError(f"{word}: labels ({len(labels)},) must be whole class numbers; soft ones are (rows, classes)")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise AugendError(f"{word}: a label lies outside 0 .. {classes - 1} (num_classes)")
    return soft_targets(labels.long(), classes)


@dataclass(eq=False)
class Paired(Operation, ABC):
    """What mixings of rows of one batch share: the partner, and the way they are called in a loop."""

    num_classes: int | None = field(default=None, kw_only=True)

    def partners(self, keys: Tensor, rows: int) -> Tensor:
        """int64 ``(n,)``: the partner of each of the rows `keys`, in a batch of `rows`."""
        return (keys - 1) % rows

    @abstractmethod
    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, p)``."""

    @abstractmethod
    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and their partners -> mixed rows.

        Args:
            x: two floats ``(rows, ...)``: each row, and its partner.
            targets: two floats ``(rows, classes)``.
            params: what `draw` returned, on any device.

        Returns:
            ``(rows, ...)`` of the dtype of `x`, and ``(rows, classes)``.
        """

    def __call__(self, images: Tensor, labels: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """Mix a batch in a loop of your own.

        Args:
            images: float ``(rows, ...)``; they are left as they are.
            labels: int64 ``(rows,)``, or float ``(rows, classes)``.
            draws: of this step, one row of numbers for each row of the batch. None: from a seed that torch's default
                generator gives, so that `torch.manual_seed` decides.

        Returns:
            Mixed images, and float targets ``(rows, classes)`` that sum to 1 a row where the labels do.
        """
        rows = len(images)
        if draws is None:
            draws = Draws(int(torch.randint(1 << 62, ())), self.word, keys=rows)
        if not images.is_floating_point():
            kind = str(images.dtype).removeprefix("torch.")
            raise AugendError(f"{self.word}: images must be floats, found {kind}; divide by 255 first")
        checked_batch(self.word, images, labels)
        if len(draws.keys) != rows:
            raise AugendError(f"{self.word}: {rows} images need as many rows of draws, found {len(draws.keys)}")
        partners = self.partners(torch.arange(rows), rows)
        table = label_table(self.word, labels, self.num_classes)
        both = [(own, own.index_select(0, partners.to(own.device))) for own in (images, table)]
        return self.mix(both[0], both[1], self.draw(draws, 0.0))


@dataclass(eq=False)
class _Pairs(Paired, ABC):
    """What mixup and cutmix share: a number lambda."""

    alpha: float = 1.0
    p: float = 1.0
    per: str = "batch"

    def __post_init__(self) -> None:
        self.alpha = checked(self.word, "alpha", self.alpha, 1e-3)
        self.p = checked(self.word, "p", self.p, 0, 1)
        if self.per not in ("batch", "row"):
            raise AugendError(f"{self.word}: per must be 'batch' or 'row', found {self.per!r}")

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, p)``, lambda first; with ``per: batch`` every row has the numbers of row 0."""
        if self.per == "row":
            return self._numbers(draws)
        return self._numbers(draws.rows(torch.zeros(1, dtype=torch.int64))).repeat(len(draws.keys), 1)

    def told(self, params: Tensor) -> Tensor:
        """The numbers of every row, or of one where all have the same."""
        return params[:1] if self.per == "batch" else params

    def _numbers(self, draws: Draws) -> Tensor:
        share = draws.child("lambda").beta(self.alpha, self.alpha)
        if self.p < 1:  # lambda 1: the row as it is
            share = torch.where(draws.child("coin").bernoulli(self.p), share, 1.0)
        return share


def _blend(pair: Sequence[Tensor], share: Tensor) -> Tensor:
    """share x the first + (1 - share) x the second, in float32 at least; `share` holds a number for all rows or each."""
    own, other = pair
    wide = torch.promote_types(own.dtype, torch.float32)
    shares = torch.stack([share.double(), 1 - share.double()]).to(own.device, wide)
    shares = shares.view(2, -1, *[1] * (own.ndim - 1)) if len(share) > 1 else shares.view(2)
    return (other.to(wide) * shares[1]).add_(own.to(wide) * shares[0]).to(own.dtype)


@dataclass(eq=False)
class MixUp(_Pairs):
    """Mixup: each row becomes lambda of itself and 1 - lambda of its partner, target alike (Zhang et al. 2018).

    One lambda a batch, as in the authors' code and torchvision's `MixUp`, whose numbers these are for equal lambda; or
    one a row. On an embedding it is manifold mixup at one layer (Verma et al. 2019).

    Args:
        alpha: lambda is drawn from Beta(alpha, alpha); 1 for data of 32 pixels (the authors), 0.1 to 0.4 for ImageNet.
        p: probability that a batch (or row) is mixed at all.
        per: "batch" or "row": what has a lambda of its own.
        num_classes: needed to call it with class numbers; in a recipe the data say it.

    Deviation: the authors draw a permutation anew each step; here, as in torchvision, a partner is the row before.

    Example:
        >>> mixup = MixUp(0.2, num_classes=3)
        >>> images, targets = mixup(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
        >>> images.shape, targets.sum(1).allclose(torch.ones(4))
        (torch.Size([4, 1, 8, 8]), True)
    """

    word: ClassVar[str] = "mixup"

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        """Any tensors ``(rows, ...)``."""
        share = self.told(params)[:, 0]
        return _blend(x, share), _blend(targets, share)


@dataclass(eq=False)
class CutMix(_Pairs):
    """Cutmix: a box of each row is its partner's, and the target is mixed by the box's area (Yun et al. 2019).

    The box has (1 - lambda) of the area before it is cut at the edges, by the rule of the authors and of torchvision's
    `CutMix`, whose numbers these are for equal lambda and centre; lambda is then corrected to what the box covers.

    Args:
        alpha, per, num_classes: as in `MixUp`; with ``per: row`` every row has a box of its own.
        p: probability that a batch (or row) is mixed at all; the authors take 0.5 on CIFAR and 1 on ImageNet.

    Example:
        >>> images, targets = CutMix(num_classes=2)(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 1, 8, 8]), torch.Size([4, 2]))
    """

    word: ClassVar[str] = "cutmix"

    def _numbers(self, draws: Draws) -> Tensor:
        return torch.cat([super()._numbers(draws), draws.child("centre").uniform(2)], 1)

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures or maps ``(rows, channels, height, width)``."""
        own, other = x
        if own.ndim != 4:
            raise AugendError(
                f"cutmix: it cuts boxes out of maps (rows, channels, height, width), not out of {tuple(own.shape)}; "
                "use mixup there"
            )
        height, width = own.shape[-2:]
        top, bottom, left, right = self.boxes(self.told(params), height, width)
        share = 1 - ((bottom - top) * (right - left)).double() / (height * width)
        edges = torch.stack([top, bottom, left, right]).to(own.device)[:, :, None]
        y, z = torch.arange(height, device=own.device), torch.arange(width, device=own.device)
        rows, columns = (y >= edges[0]) & (y < edges[1]), (z >= edges[2]) & (z < edges[3])
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(inside, other, own), _blend(targets, share)

    def boxes(self, params: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """int64 ``(rows,)`` each: top, bottom, left, right of the boxes, cut at the edges."""
        half = 0.5 * (1 - params[:, 0].double()).sqrt()
        found = []
        for side, centre in ((height, params[:, 2]), (width, params[:, 1])):
            middle, reach = (centre.double() * side).long(), (half * side).long()
            found += [(middle - reach).clamp_min(0), (middle + reach).clamp_max(side)]
        return found[0], found[1], found[2], found[3]
