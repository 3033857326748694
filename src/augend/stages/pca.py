"""Principal components as a closed form: what a learned encoder must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from augend.contract import AugendError

__all__ = ["Pca"]

ITERATIONS, SPARE = 4, 10  # of the randomised solver: power iterations, and directions beyond those asked for


class Pca:
    """Principal components of rows, by scikit-learn's randomised solver (Halko et al. 2011) with a fixed seed.

    Attributes:
        coef_: float32 ``(k, d)``, orthonormal rows, the directions of most variance first.
        intercept_: float32 ``(k,)``: minus the components of the mean, so that ``rows @ coef_.T + intercept_`` is centred.
        middle_: float32 ``(d,)``, the mean row.
        loss_: share of the variance that is left out.
        flops_: of its matrix products.

    Example:
        >>> rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 1, 1])
        >>> found = Pca().fit(rows, 2)
        >>> found.coef_.shape, found.loss_ < 0.15
        (torch.Size([2, 6]), True)
    """

    minimises = None
    penalty_ = 0.0

    def __init__(self) -> None:
        from sklearn.decomposition import PCA

        self._solver = PCA  # here: to import it takes seconds, which are none of the fit

    def fit(self, rows: Tensor, components: int) -> Pca:
        """Learn from rows ``(n, d)``; there must be as many as components."""
        if min(rows.shape) < components:
            raise AugendError(
                f"pca: {components} components of {rows.shape[0]} pictures of {rows.shape[1]} numbers; there are fewer"
            )
        solver = self._solver(
            components, svd_solver="randomized", iterated_power=ITERATIONS, n_oversamples=SPARE, random_state=0
        ).fit(rows.float().cpu().numpy())
        self.coef_ = torch.from_numpy(solver.components_.copy()).float()
        self.middle_ = torch.from_numpy(solver.mean_.copy()).float()
        self.intercept_ = -self.coef_ @ self.middle_
        self.loss_ = 1.0 - float(solver.explained_variance_ratio_.sum())
        self.flops_ = 2 * rows.numel() * (components + SPARE) * (2 * ITERATIONS + 2)
        return self
