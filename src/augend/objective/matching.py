"""Matching one tensor to another: distillation of features, embeddings mapped to embeddings."""

from __future__ import annotations

from torch import Tensor

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["Match"]


class Match(RowTerm):
    """Mean squared difference over the entries of a row, of a tensor to a fixed one: ``(rows, ...)`` both.

    The embedding paper (section III.B, Equation 7) sums over the d entries; the mean has the same minimiser and a step
    size that does not grow with d.

    Example:
        >>> import torch
        >>> float(Match()(torch.ones(3, 4), torch.zeros(3, 4)))
        1.0
    """

    def forward(
        self,
        tensor: Tensor,
        to: Tensor,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """One value a row, or their mean; no gradient flows into `to`."""
        if tensor.shape != to.shape:
            raise AugendError(f"match: shapes {tuple(tensor.shape)} and {tuple(to.shape)} differ")
        return self.reduced((tensor - to.detach()).square().flatten(1).mean(1))
