"""Terms in which predictions teach each other."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["AugmentationInvariance", "MutualLearning"]

METRICS = ("kl", "euclid", "kl+euclid")


class AugmentationInvariance(RowTerm):
    """How far two views of the same pictures are apart: AiLoss, the mean over pairs of KL(p_a || p_b) + KL(p_b || p_a).

    p is the softmax over all entries of a row, which for logits are the classes. The tensors may be logits, features or
    feature maps, ``(pairs, ...)`` and of one shape: row i of both shows one picture.

    With cross-entropy as a mean over both views (as `ait` has it, and the paper's code), weight 1 is the code's ``kl_w`` 1.
    The paper's text sums the two cross-entropies, so its lambda is twice the weight: lambda 1 is weight 0.5.

    Args:
        metric: "kl"; "euclid", the distance ``||a - b||`` of the rows; "kl+euclid", their sum.
        detach: hold the first argument of each KL fixed, as the code does: the gradient that reaches the logits of a view is
            then p of it minus p of the other. False: as the formula says, through both. Distances have no such halves.
        reduction: "mean" of the pairs, or "none": one value a pair.

    Example:
        >>> a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> float(AugmentationInvariance()(a, a)), round(float(AugmentationInvariance()(a, b)), 3)
        (0.0, 3.046)
        >>> round(float(AugmentationInvariance(metric="euclid")(a, b)), 3)
        2.828

    Source: invariance, section 3.1, Equations 1 to 4; the code's scale and detached targets by default.
    """

    joint = True

    def __init__(self, metric: str = "kl", detach: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if metric not in METRICS:
            raise AugendError(f"invariance: metric is {metric!r}; it is one of {', '.join(METRICS)}")
        self.metric, self.detach = metric, detach

    def forward(
        self,
        *views: Tensor,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Two tensors ``(pairs, ...)`` -> one value a pair, or their mean. Zero where a pair is equal; symmetric."""
        if len(views) != 2:
            raise AugendError(f"invariance: compares two views, found {len(views)}; write of: [net@a, net@b]")
        a, b = (view.flatten(1) for view in views)
        if a.shape != b.shape:
            raise AugendError(f"invariance: shapes {tuple(views[0].shape)} and {tuple(views[1].shape)} differ")
        value = a.new_zeros(len(a))
        if "kl" in self.metric:
            logs = [functional.log_softmax(one, dim=1) for one in (a, b)]
            value = value + self._kl(*logs) + self._kl(*reversed(logs))
        if "euclid" in self.metric:
            value = value + _distance(a, b)
        return self.reduced(value)

    def _kl(self, fixed: Tensor, other: Tensor) -> Tensor:
        """KL(fixed || other) of log-probabilities ``(pairs, n)``."""
        fixed = fixed.detach() if self.detach else fixed
        return functional.kl_div(other, fixed, reduction="none", log_target=True).sum(1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """``||a - b||`` of each row, with gradient 0 where it is 0."""
    square = (a - b).square().sum(1)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


class MutualLearning(RowTerm):
    """Deep mutual learning among n networks: the sum over ordered pairs of KL(p_j || p_i), over n - 1.

    p_j is held fixed, so that network i minimises the mean over its peers of KL(p_j || p_i); all networks step together
    (the simultaneous form of the invariance paper's code).

    Example:
        >>> import torch
        >>> logits = torch.randn(5, 3)
        >>> bool(MutualLearning()(logits, logits).abs() < 1e-6)
        True
    """

    joint = True

    def forward(
        self,
        *logits: Tensor,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Two or more logits ``(rows, classes)`` -> one value a row, or their mean."""
        if len(logits) < 2:
            raise AugendError("mutual: one network cannot learn from its peers; give two or more in `of`")
        logs = [functional.log_softmax(one, dim=1) for one in logits]
        total = sum(
            functional.kl_div(mine, peer.detach(), reduction="none", log_target=True).sum(1)
            for mine, peer in permutations(logs, 2)
        )
        assert isinstance(total, Tensor)
        return self.reduced(total / (len(logits) - 1))
