"""GraB: an epoch's order is made from the gradients of the epoch before, so that their running sums stay small."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.order.pools import chosen
from augend.randomness import Draws

__all__ = ["GraB"]


class GraB:
    """Gradient balancing over batches that are cut once: each gradient, less the mean of the epoch before, is signed so
    that their running sum stays small; batches with a plus come first in the next epoch, those with a minus last, in
    reversed order.

    Cost:
        An inner product of the gradient with a running sum a step; three vectors as long as the moving weights.

    Example:
        >>> order = GraB()
        >>> order.start(8, Draws(0, "order"))
        >>> for _ in range(4):
        ...     order.feedback(order.next(0, rows=2), loss=None, gradient=torch.randn(3))
        >>> sorted(order.state_dict()["order"].tolist())
        [0, 1, 2, 3]

    Source: Lu, Guo and De Sa, GraB: finding provably better data permutations than random reshuffling, NeurIPS 2022,
    Algorithm 4; a rival of the orders of training procedure augmentations. Deviation: the items are batches, as a step gives
    one gradient; which pictures share a batch is drawn once and stays.
    """

    pure = False
    hears: frozenset[str] = frozenset({"gradient"})
    cuts = True

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin with a shuffled epoch."""
        self._size, self._draws = size, draws
        self._pictures = torch.randperm(size, generator=draws.child("pictures").generator())
        self._cut, self._epoch = 0, -1
        self._order = self._next = torch.zeros(0, dtype=torch.int64)
        self._at = self._front = self._back = 0
        self._sum = self._mean = self._stale = torch.zeros(0)

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The next batch of the epoch's order."""
        wanted = rows * sources
        if wanted != self._cut:
            if self._cut:
                raise AugendError(
                    f"grab orders batches of {self._cut} pictures that were cut once, and now {wanted} are asked for; sums "
                    "that change their number need another order"
                )
            self._cut = wanted
            count = -(-self._size // wanted)
            self._order = torch.randperm(count, generator=self._draws.child("first").generator())
            self._begin()
        elif self._at == len(self._order):
            self._order = self._next
            self._stale, self._mean = self._mean / max(1, len(self._order)), torch.zeros_like(self._mean)
            self._sum = torch.zeros_like(self._sum)
            self._begin()
        begin = int(self._order[self._at]) * self._cut
        self._at += 1
        index = self._pictures[begin : begin + wanted]
        rest = self._draws.child(f"rest/{self._epoch}")
        while len(index) < wanted:  # the last batch takes its rest from all pictures, others each epoch
            index = torch.cat((index, chosen(rest, self._size, min(self._size, wanted - len(index)))))
            rest = rest.child("again")  # a batch of more pictures than there are
        return Picks(index.view(rows, sources))

    def _begin(self) -> None:
        self._next = torch.zeros_like(self._order)
        self._at, self._front, self._back = 0, 0, len(self._order) - 1
        self._epoch += 1

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """The gradient of the batch, float ``(weights,)``; each call must follow its `next`."""
        if gradient is None:
            raise AugendError("grab hears the gradient of every step")
        gradient = gradient.detach()
        if not len(self._sum):
            self._sum, self._mean, self._stale = (torch.zeros_like(gradient) for _ in range(3))
        if self._sum.device != gradient.device:  # a state that was loaded lies on the CPU
            self._sum, self._mean, self._stale = (t.to(gradient.device) for t in (self._sum, self._mean, self._stale))
        centred = gradient - self._stale
        number = self._order[self._at - 1]
        if float(self._sum @ centred) < 0:  # the sum is shorter with a plus
            self._sum = self._sum + centred
            self._next[self._front] = number
            self._front += 1
        else:
            self._sum = self._sum - centred
            self._next[self._back] = number
            self._back -= 1
        self._mean = self._mean + gradient

    def state_dict(self) -> dict[str, Tensor]:
        """Both orders, the sums, and the place in the epoch."""
        return {
            "order": self._order.clone(),
            "next": self._next.clone(),
            "place": torch.tensor([self._cut, self._epoch, self._at, self._front, self._back]),
            "sum": self._sum.clone(),
            "mean": self._mean.clone(),
            "stale": self._stale.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue in the middle of an epoch."""
        self._order, self._next = state["order"].clone(), state["next"].clone()
        self._cut, self._epoch, self._at, self._front, self._back = (int(value) for value in state["place"])
        self._sum, self._mean, self._stale = (state[name].clone() for name in ("sum", "mean", "stale"))
