"""Shuffled epochs: the order of plain training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from augend.contract import Picks, Probe
from augend.order.epochs import Epochs
from augend.randomness import Draws

__all__ = ["Shuffle"]


class Shuffle:
    """Every picture once an epoch, in an order drawn anew each epoch.

    Rows of several pictures (sums) take consecutive pictures of the epoch, so partners are chosen as indices.

    Example:
        >>> order = Shuffle()
        >>> order.start(10, Draws(0, "plain/order"), None, None)
        >>> order.next(0, rows=4, sources=1, progress=0.0).index.shape
        torch.Size([4, 1])
    """

    pure = True
    hears: frozenset[str] = frozenset()

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin at the first epoch of `size` pictures."""
        self._epochs = Epochs(size, draws)
        self._position = 0

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The next rows; each of `sources` pictures."""
        index = self._epochs.at(self._position, rows * sources)
        self._position += rows * sources
        return Picks(index.view(rows, sources))

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """Shuffling hears nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """The position in the walk."""
        return {"position": torch.tensor(self._position)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue at a saved position."""
        self._position = int(state["position"])
