"""Triplet mining and losses of the factoring paper (section 3): augmented copies of one picture lie close together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["SoftMarginTriplet", "batch_hard", "distances"]


def distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances ``(N, N)`` of ``(N, D)``; sqrt(max(d^2, 1e-12)), so that the gradient is finite at 0."""
    squared = embeddings.square().sum(1)
    return (squared[:, None] + squared[None, :] - 2 * embeddings @ embeddings.T).clamp_min(1e-12).sqrt()


def mine(apart: Tensor, ids: Tensor, uniform: Tensor, hardest: float) -> tuple[Tensor, Tensor, Tensor]:
    """Positives, negatives and validity ``(N,)`` for every anchor, from a distance matrix; no data-dependent shapes."""
    same = ids[:, None] == ids[None, :]
    other = ~same
    itself = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    positive = apart.masked_fill(~same | itself, -1.0).argmax(1)
    count = other.sum(1)
    pool = (hardest * count).floor().clamp_min(1.0)
    rank = torch.minimum((uniform * pool).floor(), pool - 1).long()
    nearest = apart.masked_fill(same, float("inf")).argsort(dim=1)
    negative = nearest.gather(1, rank[:, None]).squeeze(1)
    return positive, negative, (count > 0) & (same.sum(1) > 1)


def batch_hard(
    embeddings: Tensor, ids: Tensor, hardest: float = 0.2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Relaxed batch-hard mining: farthest copy of the same picture, and one of the nearest copies of other pictures.

    For each anchor the positive is the farthest row with its id (never itself); the negative is drawn uniformly from the
    ``max(1, floor(hardest * negatives))`` nearest rows with another id. (Factoring, section 3.2; with `hardest` small
    enough to leave one candidate this is strict batch-hard mining.)

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
    with torch.no_grad():
        uniform = torch.rand(len(ids), generator=generator).to(embeddings.device)
        positive, negative, valid = mine(distances(embeddings.float()), ids, uniform, hardest)
        anchors = torch.arange(len(ids), device=ids.device)[valid]
        return anchors, positive[valid], negative[valid]


class SoftMarginTriplet(RowTerm):
    """softplus(d(anchor, positive) - d(anchor, negative)) with relaxed batch-hard mining, every row an anchor.

    Args:
        hardest: share of the nearest negatives that is drawn from, in (0, 1] (the paper's 20 %).
        reduction: "mean" or "none".

    Source: factoring, section 3.2, L_embed with the soft margin, a distance for each pair. (The authors' code used one
    distance for the whole batch.) Cost: an N x N distance matrix.

    Example:
        >>> loss = SoftMarginTriplet()(torch.randn(6, 4), ids=torch.tensor([0, 0, 1, 1, 2, 2]), draws=Draws(0, "s", 0, 6))
        >>> loss.shape
        torch.Size([])
    """

    coupled = True

    def __init__(self, hardest: float = 0.2, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0.0 < hardest <= 1.0:
            raise AugendError(f"soft-margin-triplet: hardest is {hardest}; it lies in (0, 1]")
        self.hardest = hardest

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
            raise AugendError("soft-margin-triplet: ids are missing (which picture each row shows)")
        apart = distances(embeddings.float())
        uniform = torch.rand(len(ids)) if draws is None else draws.uniform().squeeze(1)
        with torch.no_grad():
            positive, negative, valid = mine(apart, ids, uniform.to(apart.device), self.hardest)
        to_positive = apart.gather(1, positive[:, None]).squeeze(1)
        to_negative = apart.gather(1, negative[:, None]).squeeze(1)
        return self.reduced(functional.softplus(to_positive - to_negative) * valid)
