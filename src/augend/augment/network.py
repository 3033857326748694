"""A network as an augmentation: Omega on embeddings, an autoencoder on pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from augend.address import Address
from augend.augment.base import Coin
from augend.contract import AugendError

__all__ = ["Apply"]


@dataclass(eq=False, init=False)
class Apply(Coin):
    """A tensor passed through a network with probability p a row; two variants (embedding, section III).

    The network runs on all rows and the result is taken where the coin says so, and the ledger charges all of them: as
    many pictures a step whatever the coin says. A row's last bits depend on how many rows run beside it, so with those
    alone that the coin hits, tensors from a cache would not be those of a step.

    Args:
        network: in a recipe its name, or the address of one of its tensors, as vae.picture.
        p: probability.

    Example:
        >>> apply = Apply("double", p=1.0).bind(lambda z: 2 * z)
        >>> apply.apply(torch.ones(2, 3), torch.zeros(2, 1)).sum().item()
        12.0
    """

    word: ClassVar[str] = "apply"
    network: str = ""
    run: Callable[[Tensor], Tensor] | None = field(default=None, init=False, repr=False)

    def __init__(self, network: str = "", p: float = 0.5) -> None:
        self.network = network
        self.run = None
        super().__init__(p)

    @property
    def address(self) -> Address:
        """The tensor that takes the place of what comes in."""
        return Address.parse(self.network)

    def bind(self, run: Callable[[Tensor], Tensor]) -> Apply:
        """Say what the network is: a module, or any function of a tensor that keeps its shape. Returns itself."""
        self.run = run
        return self

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Floats ``(rows, ...)``."""
        if self.run is None:
            raise AugendError(f"apply: network {self.network!r} is not bound; call .bind(network) first")
        out = self.run(x)
        if out.shape != x.shape:
            raise AugendError(
                f"apply: network {self.network!r} must keep the shape {list(x.shape)}, it made {list(out.shape)}"
            )
        hits = self.hits(params).to(x.device).view(-1, *[1] * (x.dim() - 1))
        return torch.where(hits, out.to(x.dtype), x)
