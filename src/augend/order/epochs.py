"""Walking through a data set in shuffled epochs, by position: one `randperm` a (stream, epoch), nothing else to remember."""

from __future__ import annotations

import torch
from torch import Tensor

from augend.randomness import Draws

__all__ = ["Epochs"]


class Epochs:
    """An endless walk without replacement: position p is item p mod size of epoch p // size's own permutation.

    A batch that begins before an epoch's end takes its rest from the next epoch, so every batch has the same shape.

    Args:
        size: number of items.
        draws: the stream of the permutations.

    Example:
        >>> walk = Epochs(5, Draws(0, "plain/order"))
        >>> sorted(walk.at(0, 5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, draws: Draws) -> None:
        self.size = size
        self._draws = draws
        self._known: dict[int, Tensor] = {}

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._known:
            generator = self._draws.child(f"epoch/{epoch}").generator()
            self._known = {n: p for n, p in self._known.items() if n == epoch - 1}
            self._known[epoch] = torch.randperm(self.size, generator=generator)
        return self._known[epoch]

    def at(self, position: int, count: int) -> Tensor:
        """int64 ``(count,)``: the items at positions position .. position + count - 1."""
        epoch, offset = divmod(position, self.size)
        if offset + count <= self.size:
            return self._permutation(epoch)[offset : offset + count]
        parts = []
        while count:
            part = self._permutation(epoch)[offset : offset + count]
            parts.append(part)
            count -= len(part)
            epoch, offset = epoch + 1, 0
        return torch.cat(parts)
