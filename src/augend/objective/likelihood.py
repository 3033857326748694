"""Likelihoods of pictures and the divergence of a latent from its prior: the two parts of a variational bound, in nats.

A picture's terms are summed over its pixels, or its latent's numbers; pictures are averaged. So with weight 1 their sum is
the negative evidence lower bound of a picture, as printed (learned data augmentation, Equation 1, with its sign put right).
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError
from augend.objective.reduce import RowTerm
from augend.randomness import Draws

__all__ = ["Bernoulli", "Gaussian", "GaussianKL"]


def _same(word: str, tensor: Tensor, to: Tensor) -> None:
    if tensor.shape != to.shape:
        raise AugendError(f"{word}: shapes {tuple(tensor.shape)} and {tuple(to.shape)} differ")


class Bernoulli(RowTerm):
    """-log p(picture | logits) with each pixel a Bernoulli: binary cross-entropy, summed over a row, float32.

    Pixels between 0 and 1 are weights of both outcomes; the least value is then their own entropy, not 0.

    Example:
        >>> import torch
        >>> round(float(Bernoulli()(torch.zeros(2, 3, 4, 4), torch.rand(2, 3, 4, 4))), 3)  # 48 log 2
        33.271
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
        """Logits and pictures in [0, 1], both ``(rows, ...)`` -> one value a row, or their mean; `to` gets no gradient."""
        _same("bernoulli", tensor, to)
        each = functional.binary_cross_entropy_with_logits(tensor.float(), to.detach().float(), reduction="none")
        return self.reduced(each.flatten(1).sum(1))


class Gaussian(RowTerm):
    """-log p(picture | mean) with each pixel a normal of one deviation, summed over a row, float32.

    Args:
        sigma: the deviation, above 0, in units of pixels in [0, 1].

    Example:
        >>> import torch
        >>> round(float(Gaussian(sigma=0.1)(torch.zeros(2, 10), torch.full((2, 10), 0.1))), 3)
        -8.836
    """

    def __init__(self, sigma: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0 < sigma < math.inf:
            raise AugendError(f"gaussian: sigma is {sigma}; allowed: above 0")
        self.sigma = sigma

    def forward(
        self,
        tensor: Tensor,
        to: Tensor,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Means and pictures, both ``(rows, ...)`` -> one value a row, or their mean; `to` gets no gradient."""
        _same("gaussian", tensor, to)
        apart = (tensor.float() - to.detach().float()) / self.sigma
        return self.reduced((0.5 * apart.square() + math.log(self.sigma * math.sqrt(2 * math.pi))).flatten(1).sum(1))


class GaussianKL(RowTerm):
    """KL(N(mean, exp(logvar)) || N(0, 1)) summed over a row, float32: -1/2 sum (1 + logvar - mean^2 - exp(logvar)).

    Example:
        >>> import torch
        >>> float(GaussianKL()(torch.zeros(3, 4), torch.zeros(3, 4)))
        0.0
    """

    joint = True

    def forward(
        self,
        mean: Tensor,
        logvar: Tensor,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Means and log-variances, ``(rows, d)`` each -> one value a row, or their mean."""
        _same("gaussian-kl", mean, logvar)
        mean, logvar = mean.float(), logvar.float()
        return self.reduced(-0.5 * (1 + logvar - mean.square() - logvar.exp()).flatten(1).sum(1))
