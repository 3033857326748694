"""InfoBatch: pictures that are learned well are left out at random, and those that stay count for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.randomness import Draws

__all__ = ["InfoBatch"]


class InfoBatch:
    """Each epoch leaves out a share of the pictures whose last loss is below the mean; the others of these weigh more.

    The weights keep the expected gradient: of the pictures below the mean a share `prune` is left out and the rest weighs
    1 / (1 - prune). Epochs are shorter by it, so a budget of steps holds more of them.

    Args:
        prune: share of the pictures below the mean that an epoch leaves out, from 0 to below 1.
        until: share of the phase after which nothing is left out any more.

    Cost:
        Nothing is computed: it hears the losses of the steps.

    Example:
        >>> order = InfoBatch(prune=0.5)
        >>> order.start(8, Draws(0, "order"))
        >>> for _ in range(2):
        ...     picks = order.next(0, rows=4)
        ...     order.feedback(picks, loss=picks.index[:, 0].float(), gradient=None)
        >>> sum(len(order.next(0, rows=1).index) for _ in range(6)), order.pruned
        (6, 2)

    Source: Qin et al., InfoBatch: lossless training speed up by unbiased dynamic data pruning, ICLR 2024; a rival of the
    orders of training procedure augmentations. Deviation: an epoch's leftovers open the next epoch's first batch.
    """

    pure = False
    hears: frozenset[str] = frozenset({"loss"})
    single = True

    def __init__(self, prune: float = 0.5, until: float = 0.875) -> None:
        if not 0 <= prune < 1:
            raise AugendError(f"infobatch: prune is {prune:g}; it is a share from 0 to below 1")
        if not 0 <= until <= 1:
            raise AugendError(f"infobatch: until is {until:g}; it is a share of the phase, from 0 to 1")
        self._prune, self._until = prune, until

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin; the first epoch leaves nothing out, since no loss has been heard."""
        self._size, self._draws = size, draws
        self._losses = torch.zeros(size)  # of those that were heard: a loss may be any number
        self._heard = torch.zeros(size, dtype=torch.bool)
        self._queue = torch.zeros(0, dtype=torch.int64)
        self._weights = torch.zeros(0)  # of those in the queue
        self._epoch = 0
        self.pruned = 0  # pictures that the epoch leaves out

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The epoch's next pictures, and their weights."""
        if sources != 1:
            raise AugendError("infobatch weighs single pictures by their losses; it cannot serve sums")
        while len(self._queue) < rows:
            order, weights = self._begun(progress)
            self._queue, self._weights = torch.cat((self._queue, order)), torch.cat((self._weights, weights))
        index, self._queue = self._queue[:rows], self._queue[rows:]
        weight, self._weights = self._weights[:rows], self._weights[rows:]
        return Picks(index[:, None], weight=weight)

    def _begun(self, progress: float) -> tuple[Tensor, Tensor]:
        """The pictures of a new epoch, shuffled, and their weights."""
        generator = self._draws.child(f"epoch/{self._epoch}").generator()
        self._epoch += 1
        weights = torch.ones(self._size)
        order = torch.randperm(self._size, generator=generator)
        self.pruned = 0
        known = self._heard
        if progress < self._until and known.any():
            learned = known & (self._losses < self._losses[known].mean())
            candidates = order[learned[order]]
            dropped = candidates[: int(self._prune * len(candidates))]
            weights[candidates] = 1 / (1 - self._prune)
            self.pruned = len(dropped)
            keep = torch.ones(self._size, dtype=torch.bool)
            keep[dropped] = False
            order = torch.randperm(self._size, generator=generator)
            order = order[keep[order]]
        return order, weights[order]

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """The rows' losses, unweighted, float32 ``(rows,)``."""
        if loss is None:
            raise AugendError(
                "infobatch hears the loss of every row; this phase compares rows with each other and has none"
            )
        heard = loss.detach().float().cpu()
        known, index = heard.isfinite(), picks.index[:, 0]  # one that is no number says nothing of its picture
        self._losses[index], self._heard[index] = torch.where(known, heard, 0), known

    def state_dict(self) -> dict[str, Tensor]:
        """Losses heard, weights, and what is left of the epoch."""
        return {
            "losses": self._losses.clone(),
            "heard": self._heard.clone(),
            "weights": self._weights.clone(),
            "queue": self._queue.clone(),
            "place": torch.tensor([self._epoch, self.pruned]),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue in the middle of an epoch."""
        self._losses, self._heard = state["losses"].clone(), state["heard"].clone()
        self._weights = state["weights"].clone()
        self._queue = state["queue"].clone()
        self._epoch, self.pruned = (int(value) for value in state["place"])
