"""What is left of an epoch: where candidates are drawn from. Either single pictures, or batches that were cut beforehand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from augend.contract import AugendError
from augend.order.epochs import Epochs
from augend.randomness import Draws

__all__ = ["CutBatches", "Remaining", "chosen"]


def chosen(draws: Draws, size: int, count: int) -> Tensor:
    """int64 ``(count,)``: numbers below `size`, drawn without replacement by this stream."""
    generator = np.random.Generator(np.random.PCG64(draws.key))
    return torch.from_numpy(generator.choice(size, count, replace=False))


class Remaining:
    """The pictures that an epoch has left. Every picture comes once an epoch; what is left at its end opens the next batch.

    Args:
        size: pictures.
        prefix: candidates are drawn from the first pictures of the whole set, as many as are left, instead of those left. The
            published loss orderer does so: half of the pictures are not seen in an epoch, the first fifth very often.

    Example:
        >>> pool = Remaining(10)
        >>> batch = pool.drawn(Draws(0, "order"), count=1, size=4)[0]
        >>> pool.take(batch)
        >>> len(pool.left), set(batch.tolist()) & set(pool.left.tolist())
        (6, set())
    """

    def __init__(self, size: int, *, prefix: bool = False) -> None:
        self.left, self.owed = torch.arange(size), torch.zeros(0, dtype=torch.int64)
        self._size, self._prefix = size, prefix

    def drawn(self, draws: Draws, count: int, size: int) -> Tensor:
        """int64 ``(count, size)``: candidate batches, each without repetition, independent of one another."""
        if len(self.left) < size:
            self.owed, self.left = (self.owed, torch.arange(self._size)) if self._prefix else (self.left, self._rest())
            while size - len(self.owed) > len(self.left):  # a batch of more pictures than there are
                short = len(self.left) < self._size
                self.owed = self.owed if short else torch.cat((self.owed, self.left))
                self.left = torch.arange(self._size)
        wanted, among = size - len(self.owed), len(self.left)
        rows = [chosen(draws.child(f"candidate/{n}"), among, wanted) for n in range(count)]
        if not self._prefix:
            rows = [self.left[row] for row in rows]
        return torch.stack([torch.cat((self.owed, row)) for row in rows])

    def take(self, index: Tensor) -> None:
        """Strike a batch that `drawn` offered, as it was offered; or, where nothing was owed, a part of one."""
        drawn = index[len(self.owed) :]
        if self._prefix:  # as many fewer, whichever they were
            self.left, self.owed = self.left[: len(self.left) - len(drawn)], self.owed[:0]
            return
        keep = torch.ones(self._size, dtype=torch.bool)
        keep[drawn] = False
        left = torch.arange(self._size) if len(self.owed) else self.left  # what was owed is due in this epoch too
        self.left, self.owed = left[keep[left]], self.owed[:0]

    def _rest(self) -> Tensor:
        rest = torch.ones(self._size, dtype=torch.bool)
        rest[self.left] = False
        return rest.nonzero()[:, 0]

    def state_dict(self) -> dict[str, Tensor]:
        """What is left."""
        return {"left": self.left.clone(), "owed": self.owed.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue in the middle of an epoch."""
        self.left, self.owed = state["left"].clone(), state["owed"].clone()


class CutBatches:
    """An epoch's pictures, shuffled and cut into batches as it begins; which of the batches are left.

    The last batch of an epoch takes its rest from the next one, so all have the same size.

    Args:
        size: pictures.
        draws: the stream of the shuffles.

    Example:
        >>> pool = CutBatches(10, Draws(0, "order"))
        >>> numbers = pool.drawn(Draws(0, "step"), count=8, size=4)
        >>> sorted(numbers.tolist()), pool.batch(int(numbers[0])).shape
        ([0, 1, 2], torch.Size([4]))
    """

    def __init__(self, size: int, draws: Draws) -> None:
        self._size, self._walk = size, Epochs(size, draws)
        self.left = torch.zeros(0, dtype=torch.int64)
        self.round, self._begin, self._cut = -1, 0, 0

    def drawn(self, draws: Draws, count: int | None, size: int) -> Tensor:
        """int64: numbers of different batches that are left, at most `count` (None: all)."""
        self.refill(size)
        count = len(self.left) if count is None else min(count, len(self.left))
        return self.left[chosen(draws, len(self.left), count)]

    def refill(self, size: int) -> bool:
        """Cut the next epoch into batches of `size` pictures if nothing is left; whether that was so."""
        if len(self.left):
            if size != self._cut:
                raise AugendError(
                    f"an epoch was cut into batches of {self._cut} pictures, and now {size} are asked for; sums that change "
                    "their number need an order that draws its batches as it goes, such as by-loss"
                )
            return False
        self._begin += self._cut * -(-self._size // self._cut) if self._cut else 0
        self._cut, self.round = size, self.round + 1
        self.left = torch.arange(-(-self._size // size))
        return True

    def batch(self, number: int) -> Tensor:
        """int64 ``(size,)``: the pictures of a batch."""
        return self._walk.at(self._begin + number * self._cut, self._cut)

    def take(self, number: int) -> None:
        """Strike a batch."""
        self.left = self.left[self.left != number]

    def state_dict(self) -> dict[str, Tensor]:
        """Which batches are left, and where the epoch began."""
        return {"left": self.left.clone(), "place": torch.tensor([self.round, self._begin, self._cut])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue in the middle of an epoch."""
        self.left = state["left"].clone()
        self.round, self._begin, self._cut = (int(value) for value in state["place"])
