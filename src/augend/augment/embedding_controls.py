"""What a learned augmentation of embeddings has to be read beside: nothing, noise as large, the best linear map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from augend.augment.colour import normal_like
from augend.augment.pairs import PairAugmenter, Scales, blocks
from augend.contract import AugendError

__all__ = ["IdentityAugmenter", "NoiseAugmenter", "RidgeAugmenter"]

GCV = "gcv"
PENALTIES = tuple(10.0 ** (half / 2) for half in range(4, -15, -1))  # 100, 31.6, 10 … 1e-7


class IdentityAugmenter(PairAugmenter):
    """The control that does nothing: it scores 0. Methods: those of `EmbeddingAugmenter`, without files.

    Example:
        >>> z = torch.eye(3)
        >>> IdentityAugmenter().fit(z, z + 1).score(z, z + 1)
        0.0

    Source: ours; the embedding paper has no control.
    """

    def _learn(self, z: Tensor, zg: Tensor) -> None:
        pass

    def _mapped(self, z: Tensor, seeds: Callable[[], Tensor]) -> Tensor:
        return z


class NoiseAugmenter(PairAugmenter):
    """The control that only shakes: z + N(0, s^2). Methods: those of `EmbeddingAugmenter`, without files.

    s is the root mean square of a residual, ``Z_aug - of.transform(Z)``: with a fitted Omega for `of`, of what Omega gets
    wrong; without one, of all that the augmentation does to an embedding. A head that gains as much by this noise owes
    nothing to the direction in which Omega moves embeddings.

    Args:
        of: a fitted augmenter, or None.
        per_dimension: s for each entry of an embedding instead of one for all; the noise is as long in the mean.

    Attributes:
        scale_: s, float32 ``(d,)``.

    `transform` and `score` draw the same noise at every call, row i's being a function of i; `augment` draws from its
    generator. On the rows fitted the score is near `of`'s score minus 1 (-1 without one).

    Example:
        >>> z = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> round(NoiseAugmenter().fit(z, -z).score(z, -z), 1)
        -1.0

    Source: ours; the embedding paper has no control.
    """

    def __init__(self, of: PairAugmenter | None = None, *, per_dimension: bool = False) -> None:
        self.of, self.per_dimension = of, per_dimension

    def _learn(self, z: Tensor, zg: Tensor) -> None:
        made = z if self.of is None else self.of.transform(z)
        total = z.new_zeros(z.shape[1], dtype=torch.float64)
        for out, target in blocks(made, zg):
            total += (target.double() - out).square().sum(0)
        square = total / len(z)
        self.scale_ = (square if self.per_dimension else square.mean().expand_as(square)).sqrt().float()

    def _mapped(self, z: Tensor, seeds: Callable[[], Tensor]) -> Tensor:
        return z + self.scale_.to(z.device) * normal_like(z, seeds())


class RidgeAugmenter(PairAugmenter):
    """The control that is linear, in closed form: ridge regression. Methods: those of `EmbeddingAugmenter`, without files.

    Minimised is the mean over rows of ``||Z_aug - W x - b||^2`` plus `penalty` times the squared norm of W, where x is a row
    of `Z` standardised (mean 0, deviation 1; a constant entry counts 0), and b is free. So a penalty means the same for
    every network and number of rows, as in the closed forms of recipes; scikit-learn's alpha on x is ``penalty * n``.

    Args:
        penalty: a number above 0, or ``gcv``: of 100, 31.6, 10 … 1e-7 the one with the lowest generalised cross-validation
            error, ``mean squared error / (1 - degrees of freedom / n)^2``.

    As a recipe's ``fit: ridge`` it solves for the one layer of ``omega: {hidden: 0}``, whose term is `match`.

    Attributes:
        coef_: float64 ``(d, d)``, and intercept_: float64 ``(d,)``, for embeddings as they came.
        penalty_: the penalty that was used; `loss_`: the mean squared difference of an entry on the rows fitted.
        flops_: of matrix products and the eigendecomposition, one multiply-add being 2.

    Cost: 4 n d^2 FLOPs and an eigendecomposition of d x d, in float64; trying all penalties adds nothing to it.

    Example:
        >>> z = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> RidgeAugmenter().fit(z, 2 * z + 1).score(z, 2 * z + 1) > 0.999
        True

    Source: ours, as a control of the embedding paper; Hoerl and Kennard 1970, for ``gcv`` Golub, Heath and Wahba 1979.
    """

    minimises: ClassVar[str] = "match"

    def __init__(self, penalty: float | str = GCV) -> None:
        number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
        if penalty != GCV and not (number and 0 < float(penalty) < math.inf):
            raise AugendError(f"RidgeAugmenter: penalty is {penalty!r}; it is {GCV!r} or a number above 0")
        self.penalty = penalty

    def _learn(self, z: Tensor, zg: Tensor) -> None:
        rows, width = z.shape
        scales = Scales(z, zg)
        gram = z.new_zeros(width, width, dtype=torch.float64)
        cross, total = torch.zeros_like(gram), 0.0
        for part, target in blocks(z, zg):
            x, y = (part.double() - scales.mean) * scales.inverse, target.double() - scales.target
            gram.addmm_(x.T, x)
            cross.addmm_(x.T, y)
            total += float(y.square().sum())
        spread, axes = torch.linalg.eigh(gram / rows)
        spread, along = spread.clamp_min(0), axes.T @ cross / rows

        def missed(penalty: float) -> float:
            kept = spread / (spread + penalty)
            return max(total / rows - float((along.square().sum(1) / (spread + penalty) * (2 - kept)).sum()), 0.0)

        def error(penalty: float) -> float:
            kept = spread / (spread + penalty)
            free = 1 - (1 + float(kept.sum())) / rows  # the intercept is one degree of freedom
            return missed(penalty) / free**2 if free > 1e-9 else math.inf

        self.penalty_ = min(PENALTIES, key=error) if self.penalty == GCV else float(self.penalty)
        weight = scales.inverse[:, None] * (axes @ (along / (spread + self.penalty_)[:, None]))
        self.coef_, self.intercept_ = weight.T.contiguous(), scales.target - scales.mean @ weight
        self.loss_ = missed(self.penalty_) / width
        self.flops_ = 4 * rows * width**2 + 13 * width**3  # 9 d^3 for the decomposition, 4 for two products

    def _mapped(self, z: Tensor, seeds: Callable[[], Tensor]) -> Tensor:
        coef, intercept = self.coef_.to(z.device), self.intercept_.to(z.device)
        return torch.cat([(part.double() @ coef.T + intercept).float() for (part,) in blocks(z)])
