"""Cross-entropy, with hard or soft labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["CrossEntropy"]


class CrossEntropy(RowTerm):
    """Softmax cross-entropy of logits ``(rows, classes)`` with int64 ``(rows,)`` or float ``(rows, classes)`` targets.

    Args:
        smoothing: label smoothing in [0, 1); targets t become (1 - smoothing) t + smoothing / classes, soft ones too.
        reduction: "mean" or "none".

    Example:
        >>> import torch
        >>> round(float(CrossEntropy()(torch.zeros(4, 10), targets=torch.arange(4))), 4)
        2.3026
    """

    labels = True
    soft = True

    def __init__(self, smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0.0 <= smoothing < 1.0:
            raise AugendError(f"cross-entropy: smoothing is {smoothing}; it lies in [0, 1)")
        self.smoothing = smoothing

    def forward(
        self, logits: Tensor, *, targets: Tensor | None = None, ids: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        """One value a row, or their mean."""
        if targets is None:
            raise AugendError("cross-entropy: targets are missing")
        return self.reduced(functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.smoothing))
