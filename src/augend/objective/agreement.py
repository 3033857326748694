"""Terms in which predictions teach each other."""

from __future__ import annotations

from itertools import permutations

from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["MutualLearning"]


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
