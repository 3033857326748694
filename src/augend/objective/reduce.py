"""The one way terms reduce: (rows,) inside the runner, a scalar mean in a bare loop."""

from __future__ import annotations

from torch import Tensor, nn

from augend.contract import AugendError

__all__ = ["RowTerm"]


class RowTerm(nn.Module):
    """Base of the built-in terms: holds `reduction`, "mean" (a scalar) or "none" (one value a row)."""

    labels = False
    soft = False
    joint = False
    coupled = False

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise AugendError(f"{type(self).__name__}: reduction is {reduction!r}; it is 'mean' or 'none'")
        self.reduction = reduction

    def reduced(self, rows: Tensor) -> Tensor:
        """Rows as they are, or their mean."""
        return rows.mean() if self.reduction == "mean" else rows
