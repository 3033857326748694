"""The machinery of orders by scores: a pool, a scoring mechanism, a choice, and when it scores again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.order.pools import CutBatches, Remaining
from augend.order.scoring import Passes, Scoring, Table, row_scores
from augend.randomness import Draws

__all__ = ["Scored", "Take", "taken_first"]

Take = Literal["lowest", "highest"]


def taken_first(scores: Tensor, take: Take) -> Tensor:
    """int64: item numbers in the order they are taken; of equal scores the one that comes first. The ordering strategy.

    A score that is no number (a trial that diverged) is taken last.

    >>> taken_first(torch.tensor([2.0, 1.0, 1.0]), "lowest").tolist()
    [1, 2, 0]
    >>> taken_first(torch.tensor([float("nan"), 1.0, 3.0]), "highest").tolist()
    [2, 1, 0]
    """
    worst = float("inf") if take == "lowest" else -float("inf")
    return torch.argsort(
        scores.nan_to_num(nan=worst, posinf=None, neginf=None), stable=True, descending=take == "highest"
    )


class Scored:
    """The machinery of every order by scores: a pool, a scoring mechanism, a choice, a refresh. Not a word of recipes.

    Args:
        scoring: the scoring mechanism.
        candidates: how many batches are looked at a step (pictures: that many batches of them); None: all that are left.
        take: which end of the scores.
        item: "batch" or "sample".
        cut: batches are cut as the epoch begins, instead of drawn from the pictures left as candidates are.
        refresh: "step", or "epoch": all items are scored as an epoch begins and then taken in that order. Single pictures
            with scores that do not change are always taken so where all that are left are looked at.
        prefix: see `Remaining`.
    """

    pure = False
    hears: frozenset[str] = frozenset()
    sees = True
    """Asks the model, so `start` needs a probe."""
    external = False
    """Scores on held-out pictures."""
    table: Table | None = None
    """The part of the scores that a file gives."""

    def __init__(
        self,
        scoring: Scoring,
        *,
        candidates: int | None,
        take: Take,
        item: Literal["batch", "sample"] = "batch",
        cut: bool = False,
        refresh: Literal["step", "epoch"] = "step",
        prefix: bool = False,
    ) -> None:
        for option, value, allowed in (
            ("take", take, ("lowest", "highest")),
            ("item", item, ("batch", "sample")),
            ("refresh", refresh, ("step", "epoch")),
        ):
            if value not in allowed:
                raise AugendError(f"order: {option} is {value!r}; allowed: {', '.join(allowed)}")
        if candidates is not None and candidates < 1:
            raise AugendError(f"order: candidates is {candidates}; allowed: 1 or more, or all")
        if prefix and (item, refresh) != ("batch", "step"):
            raise AugendError(
                "order: prefix is a way of drawing candidate batches at every step; leave item and refresh out"
            )
        self.scoring, self.take, self.candidates, self.item = scoring, take, candidates, item
        self.refresh, self._prefix = refresh, prefix
        self.single = item == "sample"  # rows of one picture only
        self.cuts = self._cut = cut or (item == "batch" and (refresh == "epoch" or candidates is None))
        fixed = item == "sample" and candidates is None and isinstance(scoring, Table)
        self._at_once = refresh == "epoch" or fixed

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin at the first epoch of `size` pictures.

        Args:
            draws: the order's own stream.
            probe: how the model is seen; not needed by scores that do not ask it.
            variants: not used.
        """
        self._size, self._draws, self._probe = size, draws, probe
        self._batches = CutBatches(size, draws)
        self._left = Remaining(size, prefix=self._prefix)
        self._queue = torch.zeros(0, dtype=torch.int64)  # with refresh: epoch, what is still to come
        if self.table is not None:
            self.table.values = None

    def asked(self, rows: int, sources: int = 1) -> tuple[float, float]:
        """How often a step scores, and how many items at once: means over an epoch. `rows` single pictures are one item."""
        batches = -(-self._size // (rows * sources))
        asked = batches if self.candidates is None else self.candidates
        if self._at_once:
            items = batches if self.item == "batch" else self._size / rows
            return 1 / items, items
        if self._cut:
            return 1.0, sum(min(asked, left) for left in range(1, batches + 1)) / batches
        if self.item == "sample":
            left = (max(rows, self._size - rows * n) for n in range(batches))
            return 1.0, sum(min(asked * rows, one) / rows for one in left) / batches
        return 1.0, asked

    def passes(self, rows: int, sources: int = 1) -> Passes:
        """What is computed for scores beyond the step itself: the mean of a step over a whole epoch."""
        often, items = self.asked(rows, sources)
        each, once = self.scoring.passes(0 if self._probe is None else self._probe.held)
        return each.times(items).plus(once).times(often)

    def rehearsed(self, count: int, rows: int, sources: int = 1) -> Picks:
        """Score so many items, the first pictures of the set, and choose among them: for timing. Nothing is remembered."""
        draws = self._draws.child("rehearsed")
        index = torch.arange(count * rows * sources) % self._size
        if self.item == "sample":
            found = row_scores(self.scoring, self._probe, index, rows, draws)
            return Picks(index[taken_first(found, self.take)[:rows], None])
        items = [Picks(part.view(rows, sources)) for part in torch.split(index, rows * sources)]
        scores = self.scoring(self._probe, items, draws, self._epoch(0))
        best = int(taken_first(scores.values, self.take)[0])
        return items[best] if scores.taken is None else Picks(items[best].index, taken=scores.taken(best))

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The rows of the best candidate.

        Raises:
            AugendError: single pictures are to be chosen for rows of several; or batches that were cut beforehand for rows of
                another number.
        """
        draws = self._draws.child(f"step/{step}")
        if self.item == "sample":
            if sources != 1:
                raise AugendError("an order of single pictures fills rows of one picture; sums need item: batch")
            return self._of_pictures(draws, rows)
        if self.refresh == "epoch":
            return self._queued(draws, rows, sources)
        if self._cut:
            numbers = self._batches.drawn(draws, self.candidates, rows * sources)
            items = [Picks(self._batches.batch(int(n)).view(rows, sources)) for n in numbers]
            round_ = self._batches.round
        else:
            assert self.candidates is not None
            drawn = self._left.drawn(draws, self.candidates, rows * sources)
            items = [Picks(index.view(rows, sources)) for index in drawn]
            round_ = step * rows * sources // self._size
        scores = self.scoring(self._probe, items, draws, self._epoch(round_))
        best = int(taken_first(scores.values, self.take)[0])
        if self._cut:
            self._batches.take(int(numbers[best]))
        else:
            self._left.take(items[best].index.flatten())
        return items[best] if scores.taken is None else Picks(items[best].index, taken=scores.taken(best))

    def _epoch(self, number: int) -> Draws:
        """The stream of what stays the same while an epoch lasts."""
        return self._draws.child(f"epoch/{number}")

    def _queued(self, draws: Draws, rows: int, sources: int) -> Picks:
        """Batches in the order of scores that were computed as the epoch began."""
        if self._batches.refill(rows * sources):
            numbers = self._batches.left
            items = [Picks(self._batches.batch(int(n)).view(rows, sources)) for n in numbers]
            scores = self.scoring(self._probe, items, draws, self._epoch(self._batches.round))
            self._queue = numbers[taken_first(scores.values, self.take)]
        number, self._queue = int(self._queue[0]), self._queue[1:]
        index = self._batches.batch(number)
        self._batches.take(number)
        return Picks(index.view(rows, sources))

    def _of_pictures(self, draws: Draws, rows: int) -> Picks:
        """Pictures by their own scores: of as many as the candidates hold, of all that are left, or all once an epoch."""
        if self._at_once:
            while len(self._queue) < rows:  # more than once where a batch has more pictures than there are
                owed, everything = self._queue, torch.randperm(self._size, generator=draws.generator())
                scores = row_scores(self.scoring, self._probe, everything, rows, draws)
                self._queue = torch.cat((owed, everything[taken_first(scores, self.take)]))
                draws = draws.child("again")
            index, self._queue = self._queue[:rows], self._queue[rows:]
            return Picks(index[:, None])
        count = max(rows, len(self._left.left))
        count = count if self.candidates is None else min(self.candidates * rows, count)
        pictures = self._left.drawn(draws, 1, count)[0]
        scores = row_scores(self.scoring, self._probe, pictures, rows, draws)
        index = pictures[taken_first(scores, self.take)[:rows]]
        self._left.take(index if count > rows else pictures)  # what an epoch owed stands first in what it offered
        return Picks(index[:, None])

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """Scores are asked for, not heard."""

    def state_dict(self) -> dict[str, Tensor]:
        """What is left of the epoch, the queue, and the scores of a file."""
        pools = {"batches": self._batches.state_dict(), "pictures": self._left.state_dict()}
        state = {f"{pool}/{key}": tensor for pool, its in pools.items() for key, tensor in its.items()}
        if self.table is not None and self.table.values is not None:
            state["scores"] = self.table.values
        return {"queue": self._queue.clone(), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue in the middle of an epoch."""
        self._queue = state["queue"].clone()
        if self.table is not None:
            self.table.values = state.get("scores")
        for name, pool in (("batches", self._batches), ("pictures", self._left)):
            pool.load_state_dict({k.partition("/")[2]: t for k, t in state.items() if k.startswith(f"{name}/")})
