"""Cross-entropy, with hard or soft labels: of a softmax, and of every class by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["BinaryCrossEntropy", "CrossEntropy"]


class CrossEntropy(RowTerm):
    """Softmax cross-entropy of logits ``(rows, classes)`` with int64 ``(rows,)`` or float ``(rows, classes)`` targets.

    With the mean of k labels as its target it is the mean of the k cross-entropies.

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


class BinaryCrossEntropy(RowTerm):
    """Sigmoid cross-entropy, the mean over classes: each class is a question by itself, and targets need not sum to 1.

    A target is that class's part in the row: 0 or 1 of int64 ``(rows,)`` targets, anything between of float
    ``(rows, classes)`` ones, as after sums.

    Args:
        smoothing: label smoothing in [0, 1), as in `CrossEntropy`.
        reduction: "mean" or "none".

    Example:
        >>> round(float(BinaryCrossEntropy()(torch.zeros(4, 10), targets=torch.arange(4))), 4)
        0.6931
    """

    labels = True
    soft = True

    def __init__(self, smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0.0 <= smoothing < 1.0:
            raise AugendError(f"binary-cross-entropy: smoothing is {smoothing}; it lies in [0, 1)")
        self.smoothing = smoothing

    def forward(
        self, logits: Tensor, *, targets: Tensor | None = None, ids: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        """One value a row, or their mean."""
        if targets is None:
            raise AugendError("binary-cross-entropy: targets are missing")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if targets.ndim == 1:
            targets = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
        targets = targets.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        return self.reduced(functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1))
