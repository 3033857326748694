"""Triplet mining and losses of the factoring paper (section 3): augmented copies of one picture lie close together."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = [
    "BatchTriplet",
    "SoftMarginTriplet",
    "SoftmaxTriplet",
    "batch_hard",
    "batch_hardest",
    "distances",
    "random_triplets",
]

MININGS = ("relaxed", "strict", "random")

_Triplets = tuple[Tensor, Tensor, Tensor]


def distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances ``(N, N)`` of ``(N, D)``; sqrt(max(d^2, 1e-12)), so that the gradient is finite at 0."""
    squared = embeddings.square().sum(1)
    return (squared[:, None] + squared[None, :] - 2 * embeddings @ embeddings.T).clamp_min(1e-12).sqrt()


def mine(apart: Tensor, ids: Tensor, uniform: Tensor, mining: str, hardest: float) -> _Triplets:
    """Positives, negatives and validity ``(N,)`` for every anchor, from a distance matrix; no data-dependent shapes.

    `uniform` holds draws ``(N, 2)`` in [0, 1): the first for negatives, the second for random positives.
    """
    same = ids[:, None] == ids[None, :]
    others = ~same
    same = same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    found = (same.any(1)) & (others.any(1))
    if mining == "random":
        return _one_of(same, uniform[:, 1]), _one_of(others, uniform[:, 0]), found
    positive = apart.masked_fill(~same, -1.0).argmax(1)
    if mining == "strict":
        return positive, apart.masked_fill(~others, float("inf")).argmin(1), found
    pool = (hardest * others.sum(1)).floor().clamp_min(1.0)
    rank = torch.minimum((uniform[:, 0] * pool).floor(), pool - 1).long()
    nearest = apart.masked_fill(~others, float("inf")).argsort(dim=1)
    return positive, nearest.gather(1, rank[:, None]).squeeze(1), found


def _one_of(allowed: Tensor, uniform: Tensor) -> Tensor:
    """For each row one of the allowed columns, uniformly."""
    count = allowed.sum(1)
    rank = torch.minimum((uniform * count).floor().long(), (count - 1).clamp_min(0))
    # the allowed column that has exactly `rank` allowed ones before it
    return ((allowed.cumsum(1) == rank[:, None] + 1) & allowed).int().argmax(1)


def _mined(embeddings: Tensor, ids: Tensor, uniform: Tensor, mining: str, hardest: float) -> _Triplets:
    with torch.no_grad():
        positive, negative, valid = mine(distances(embeddings.float()), ids, uniform, mining, hardest)
        anchors = torch.arange(len(ids), device=ids.device)[valid]
        return anchors, positive[valid], negative[valid]


def _uniform(ids: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(2, len(ids), generator=generator).T.to(ids.device)


def batch_hard(
    embeddings: Tensor, ids: Tensor, hardest: float = 0.2, generator: torch.Generator | None = None
) -> _Triplets:
    """Relaxed batch-hard mining: farthest copy of the same picture, and one of the nearest copies of other pictures.

    For each anchor the positive is the farthest row with its id (never itself); the negative is drawn uniformly from the
    ``max(1, floor(hardest * negatives))`` nearest rows with another id. (Factoring, section 3.1.)

    Args:
        embeddings: ``(N, D)``.
        ids: int64 ``(N,)``, which picture each row shows.
        hardest: share of the negatives that is drawn from, in (0, 1].
        generator: source of the draws; None for torch's default.

    Returns:
        (anchors, positives, negatives), int64 row numbers; anchors without a positive or a negative are left out. It is
        an `indices_tuple` of pytorch-metric-learning. Cost: one N x N distance matrix and a sort of its rows.

    Example:
        >>> a, p, n = batch_hard(torch.tensor([[0.0], [1.0], [1.5], [9.0]]), torch.tensor([0, 0, 1, 1]), hardest=0.5)
        >>> a.tolist(), p.tolist(), n.tolist()
        ([0, 1, 2, 3], [1, 0, 3, 2], [2, 2, 1, 1])
    """
    if not 0.0 < hardest <= 1.0:
        raise AugendError(f"batch_hard: hardest is {hardest}; it lies in (0, 1]")
    return _mined(embeddings, ids, _uniform(ids, generator), "relaxed", hardest)


def batch_hardest(embeddings: Tensor, ids: Tensor) -> _Triplets:
    """Strict batch-hard mining (Hermans et al. 2017): farthest copy of the same picture, nearest row of another.

    The factoring paper found that it tended to diverge (section 3.1). Arguments and result as in `batch_hard`.

    Example:
        >>> a, p, n = batch_hardest(torch.tensor([[0.0], [1.0], [1.5], [9.0]]), torch.tensor([0, 0, 1, 1]))
        >>> a.tolist(), p.tolist(), n.tolist()
        ([0, 1, 2, 3], [1, 0, 3, 2], [2, 2, 1, 1])
    """
    return _mined(embeddings, ids, _uniform(ids, None), "strict", 1.0)


def random_triplets(ids: Tensor, generator: torch.Generator | None = None) -> _Triplets:
    """For each row a random other copy of its picture and a random row of another, both uniform.

    Arguments and result as in `batch_hard`; embeddings are not asked.

    Example:
        >>> a, p, n = random_triplets(torch.tensor([0, 0, 1, 1]))
        >>> a.tolist(), p.tolist(), [(x < 2) != (y < 2) for x, y in zip(a.tolist(), n.tolist())]
        ([0, 1, 2, 3], [1, 0, 3, 2], [True, True, True, True])
    """
    return _mined(torch.zeros(len(ids), 1, device=ids.device), ids, _uniform(ids, generator), "random", 1.0)


class _Triplet(RowTerm, ABC):
    """Mines triplets with every row an anchor; what a triplet loses is the subclass's."""

    coupled = True
    word = ""

    def __init__(self, hardest: float = 0.2, mining: str = "relaxed", reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0.0 < hardest <= 1.0:
            raise AugendError(f"{self.word}: hardest is {hardest}; it lies in (0, 1]")
        if mining not in MININGS:
            raise AugendError(f"{self.word}: found mining {mining!r}; allowed: {', '.join(MININGS)}")
        self.hardest, self.mining = hardest, mining

    def forward(
        self,
        embeddings: Tensor,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Embeddings ``(N, D)`` and ids ``(N,)`` -> one value a row (0 where no triplet exists), or their mean."""
        if ids is None:
            raise AugendError(f"{self.word}: ids are missing (which picture each row shows)")
        apart = distances(embeddings.float())
        uniform = torch.rand(len(ids), 2) if draws is None else draws.uniform(2)
        with torch.no_grad():
            positive, negative, valid = mine(apart, ids, uniform.to(apart.device), self.mining, self.hardest)
        to_positive = apart.gather(1, positive[:, None]).squeeze(1)
        to_negative = apart.gather(1, negative[:, None]).squeeze(1)
        return self.reduced(self.lost(to_positive, to_negative, valid) * valid)

    @abstractmethod
    def lost(self, positive: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
        """What each anchor loses, ``(N,)``, from its two distances ``(N,)``."""


class SoftMarginTriplet(_Triplet):
    """softplus(d(anchor, positive) - d(anchor, negative)), every row an anchor.

    Args:
        hardest: share of the nearest negatives that is drawn from, in (0, 1] (the paper's 20 %); of relaxed mining only.
        mining: "relaxed" (`batch_hard`), "strict" (`batch_hardest`) or "random" (`random_triplets`).
        reduction: "mean" or "none".

    Source: factoring, section 3.1, L_embed with the soft margin, a distance for each pair. (The authors' code used one
    distance for the whole batch: `BatchTriplet`.) Cost: an N x N distance matrix.

    Example:
        >>> loss = SoftMarginTriplet()(torch.randn(6, 4), ids=torch.tensor([0, 0, 1, 1, 2, 2]), draws=Draws(0, "s", 0, 6))
        >>> loss.shape
        torch.Size([])
    """

    word = "soft-margin-triplet"

    def lost(self, positive: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
        """log(1 + exp(d+ - d-))."""
        return functional.softplus(positive - negative)


class SoftmaxTriplet(_Triplet):
    """p^2 with p = e^d+ / (e^d+ + e^d-), every row an anchor: the softmax loss of Hoffer and Ailon up to a constant.

    Args:
        hardest, mining, reduction: as in `SoftMarginTriplet`.

    Source: factoring, section 3.1, L_softmax, which the paper tried first. Cost: an N x N distance matrix.

    Example:
        >>> z = torch.tensor([[0.0], [0.0], [50.0], [50.0]])
        >>> float(SoftmaxTriplet()(z, ids=torch.tensor([0, 0, 1, 1]))) < 1e-6, float(SoftmaxTriplet()(
        ...     torch.zeros(4, 2), ids=torch.tensor([0, 0, 1, 1])))
        (True, 0.25)
    """

    word = "softmax-triplet"

    def lost(self, positive: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
        """The squared share of the positive's distance."""
        return torch.sigmoid(positive - negative).square()


class BatchTriplet(_Triplet):
    """The loss of the factoring paper's code, for diagnosis only: one distance for the whole batch, and no softplus.

    log(1 + max(-1, D+ - D-)), where D is the root of the sum of all anchors' squared distances. Once D- exceeds D+ by 1
    the code's value is minus infinity and its gradient 0; here the value stops at log(1e-7) = -16.1, with the same
    gradient, so that a run goes on as theirs did. `SoftMarginTriplet` is what the paper's text says.

    Args:
        hardest, mining, reduction: as in `SoftMarginTriplet`.

    Source: the authors' published code. Cost: an N x N distance matrix.

    Example:
        >>> z = torch.tensor([[0.0], [0.0], [50.0], [50.0]])
        >>> round(float(BatchTriplet()(z, ids=torch.tensor([0, 0, 1, 1]))), 1)
        -16.1
    """

    word = "batch-triplet"

    def lost(self, positive: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
        """The batch's one value, for every row."""
        gap = (positive.square() * valid).sum().sqrt() - (negative.square() * valid).sum().sqrt()
        return (1 + gap.clamp_min(-1)).clamp_min(1e-7).log().expand(len(positive))
