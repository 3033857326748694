"""Orders by scores: which of some candidates come next. The words of recipes are the classes at the end.

In the terms of the paper (training procedure augmentations, 2.3): a *learning item* is a picture or a batch, a *scoring
mechanism* gives it a number, an *ordering strategy* takes the lowest or the highest and strikes it from the epoch, a *sampler
strategy* draws with probabilities that follow the scores, and `refresh` says when scores are computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.order.pools import CutBatches, Remaining, chosen
from augend.order.scoring import Combined, Delta, Gradients, Loss, Passes, RandomScore, Scoring, Table, row_scores
from augend.randomness import Draws

__all__ = ["ByDelta", "ByLoss", "ByScore", "RandomScores", "SampleByLoss", "sampled", "taken_first"]

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


def sampled(scores: Tensor, count: int, weighing: str, draws: Draws) -> Tensor:
    """int64 ``(count,)``: item numbers drawn with replacement, the probability proportional to the score, or to its inverse,
    1 / (score + 1e-6), or the same for all. A loss that is not finite counts as the largest that is. The sampler strategy.

    >>> sampled(torch.tensor([0.0, 3.0, 1.0]), 1000, "direct", Draws(0, "doc")).bincount(minlength=3).tolist()
    [0, 747, 253]
    """
    finite = scores[scores.isfinite()]
    most = float(finite.max()) if len(finite) else 1.0
    weights = scores.double().nan_to_num(nan=most, posinf=most).clamp(min=0).numpy()
    weights = {"direct": weights, "inverse": 1 / (weights + 1e-6), "uniform": np.ones_like(weights)}[weighing]
    if not weights.sum() > 0:
        weights = np.ones_like(weights)
    generator = np.random.Generator(np.random.PCG64(draws.key))
    return torch.from_numpy(generator.choice(len(weights), count, p=weights / weights.sum()))


class Scored:
    """The machinery of every order by scores: a pool, a scoring mechanism, a choice, a refresh. Not a word of recipes.

    Args:
        scoring: the scoring mechanism.
        candidates: how many batches are looked at a step (pictures: that many batches of them); None: all that are left.
        take: which end of the scores.
        item: "batch" or "sample".
        cut: batches are cut as the epoch begins, instead of drawn from the pictures left as candidates are.
        refresh: "step", or "epoch": all items are scored as an epoch begins and then taken in that order.
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

    def passes(self, rows: int, sources: int = 1) -> Passes:
        """What is computed for scores beyond the step itself: the mean of a step over a whole epoch."""
        held = 0 if self._probe is None else self._probe.held
        each, once = self.scoring.passes(held)
        batches = -(-self._size // (rows * sources))
        asked = batches if self.candidates is None else self.candidates
        if self.refresh == "epoch" or (self.item == "sample" and self.candidates is None):
            items = 1.0
        elif self._cut:
            items = sum(min(asked, left) for left in range(1, batches + 1)) / batches
        elif self.item == "sample":
            items = sum(min(asked * rows, max(rows, self._size - rows * n)) / rows for n in range(batches)) / batches
        else:
            items = asked
        return each.times(items).plus(once)

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
        """Pictures by their own scores: of as many as the candidates hold, or all once an epoch."""
        if self.refresh == "epoch" or self.candidates is None:
            if len(self._queue) < rows:
                owed, everything = self._queue, torch.randperm(self._size, generator=draws.generator())
                scores = row_scores(self.scoring, self._probe, everything, rows, draws)
                self._queue = torch.cat((owed, everything[taken_first(scores, self.take)]))
            index, self._queue = self._queue[:rows], self._queue[rows:]
            return Picks(index[:, None])
        count = min(self.candidates * rows, max(rows, len(self._left.left)))
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


def _count(candidates: int | str) -> int | None:
    if candidates == "all":
        return None
    if isinstance(candidates, str):
        raise AugendError(f"order: candidates is {candidates!r}; allowed: a number, or all")
    return candidates


class ByLoss(Scored):
    """The candidate batch with the lowest (or highest) loss comes next. (2.4.1, Multi Attempt Loss Orderer)

    Args:
        candidates: batches looked at a step, drawn from the pictures left, independently of one another; "all": the epoch is
            cut into batches as it begins, and all that are left are looked at.
        take: "lowest" or "highest".
        item: "sample": of candidates * rows pictures the lowest come next, instead of whole batches.
        refresh: "epoch": everything is scored once an epoch and taken in that order.
        prefix: candidates come from the first pictures of the set, as in the published code (an index error there).

    Cost:
        A forward of every candidate a step.

    Example:
        >>> order = ByLoss(candidates=4)
        >>> order.take, order.candidates
        ('lowest', 4)

    Deviation: pictures are scored as the coming step would show them (the authors draw their augmentation twice), and an
    epoch's leftovers open the next epoch's first batch, so every batch is full.
    """

    def __init__(
        self,
        candidates: int | str = 8,
        take: Take = "lowest",
        item: Literal["batch", "sample"] = "batch",
        refresh: Literal["step", "epoch"] = "step",
        prefix: bool = False,
    ) -> None:
        count = _count(candidates)
        super().__init__(Loss(), candidates=count, take=take, item=item, refresh=refresh, prefix=prefix)


class SampleByLoss:
    """Pictures are drawn with replacement, with probabilities that follow their losses. (2.4.1, Sample Loss Sampler)

    Args:
        pool: every step scores pool * rows pictures, drawn without replacement from the whole set.
        weighing: "direct" (hard pictures often), "inverse" (easy ones), or "uniform", which scores nothing.

    Cost:
        A forward of pool * rows pictures a step; none with "uniform".

    Example:
        >>> order = SampleByLoss(weighing="uniform")
        >>> order.start(100, Draws(0, "order"))
        >>> order.next(0, rows=8).index.shape
        torch.Size([8, 1])

    Deviation: the paper does not say how many pictures are scored; 8 batches of them, as for the ordering strategy.
    """

    pure = False
    hears: frozenset[str] = frozenset()
    sees = True
    single = True

    def __init__(self, pool: int = 8, weighing: Literal["direct", "inverse", "uniform"] = "direct") -> None:
        if pool < 1:
            raise AugendError(f"sample-by-loss: pool is {pool}; allowed: 1 or more")
        if weighing not in ("direct", "inverse", "uniform"):
            raise AugendError(f"sample-by-loss: weighing is {weighing!r}; allowed: direct, inverse, uniform")
        self._pool, self._weighing, self._scoring = pool, weighing, Loss()

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin; there are no epochs."""
        self._size, self._draws, self._probe = size, draws, probe

    def passes(self, rows: int, sources: int = 1) -> Passes:
        """What is computed for scores a step."""
        return Passes(0 if self._weighing == "uniform" else min(self._pool, self._size / rows))

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """Rows drawn anew at every step."""
        if sources != 1:
            raise AugendError("sample-by-loss draws single pictures; sums need an order of batches, such as by-loss")
        draws = self._draws.child(f"step/{step}")
        pictures = chosen(draws, self._size, min(self._pool * rows, self._size))
        scores = torch.ones(len(pictures))
        if self._weighing != "uniform":
            scores = row_scores(self._scoring, self._probe, pictures, rows, draws)
        return Picks(pictures[sampled(scores, rows, self._weighing, draws.child("sampled"))][:, None])

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """Scores are asked for, not heard."""

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing is remembered."""


class ByDelta(Scored):
    """The candidate batch comes next on which a step lowers the loss the most. (2.4.2, Maximum Loss Delta)

    Args:
        candidates: batches looked at a step, of those that the epoch was cut into and that are left; or "all".
        take: "highest", "lowest", or "average": no choice, all candidates' steps at once, the control of equal cost.
        against: the loss of the same batch, or of an "external" one, held out from training (`hold` in a recipe).
        relative: the gain as a share of the loss before.
        draw: pictures of the external batch, drawn anew each epoch.
        trial: "eval", as the authors scored: gradients and losses in evaluation mode. "step": the trial is the step, in
            training mode, and the winner's gradients are used.
        refresh: "epoch": all of an epoch's batches are scored as it begins.
        minus: file of a teacher's scores: the gain minus the teacher's loss, both standardised among the candidates.
        column: of that file.
        redraw: pictures are augmented anew for training, as in the published code.

    Cost:
        Of F for a forward of a batch, candidates * 4F a step against the same batch, candidates * (3F + E) + E against an
        external one that costs E; the step itself, 3F, is free with ``trial: step``.

    Example:
        >>> ByDelta(candidates=4, against="external").candidates
        4
    """

    def __init__(
        self,
        candidates: int | str = 8,
        take: Literal["highest", "lowest", "average"] = "highest",
        against: Literal["same", "external"] = "same",
        relative: bool = False,
        draw: int = 512,
        trial: Literal["eval", "step"] = "eval",
        refresh: Literal["step", "epoch"] = "step",
        minus: str | None = None,
        redraw: bool = False,
        column: str = "score",
    ) -> None:
        delta = Delta(against, relative=relative, draw=draw, trial=trial, redraw=redraw)
        average = take == "average"
        if refresh == "epoch" and (average or trial == "step"):
            raise AugendError(
                "by-delta: refresh: epoch scores long before the step, so its trial is none; use trial: eval"
            )
        table = None if minus is None else Table(minus, column)
        super().__init__(
            Gradients() if average else delta if table is None else Combined(delta, table),
            candidates=_count(candidates),
            take="highest" if take == "average" else take,
            cut=True,
            refresh=refresh,
        )
        self.external = delta.external and not average
        self.table = table


class ByScore(Scored):
    """The candidate batch with the lowest (or highest) given score comes next: a curriculum, by a teacher's losses. (2.3)

    Args:
        file: one score a training picture, as `augend evaluate RUN --scores FILE` writes them.
        candidates, take, item: as for `ByLoss`.
        column: "score", the teacher's loss, or "entropy", of its soft label: how sure it is, whatever the label.

    Example:
        >>> ByScore("teacher.csv", item="sample").take
        'lowest'
    """

    def __init__(
        self,
        file: str,
        candidates: int | str = 8,
        take: Take = "lowest",
        item: Literal["batch", "sample"] = "batch",
        column: str = "score",
    ) -> None:
        table = Table(file, column)
        super().__init__(table, candidates=_count(candidates), take=take, item=item)
        self.table = table


class RandomScores(Scored):
    """Scores that mean nothing, through the same machinery: what ordering by scores must beat.

    Args:
        candidates: batches looked at a step.
        cut: as `ByDelta` cuts its epochs, instead of drawing candidates as `ByLoss` does.

    Example:
        >>> order = RandomScores(candidates=4)
        >>> order.start(100, Draws(0, "order"))
        >>> order.next(0, rows=8).index.shape
        torch.Size([8, 1])
    """

    sees = False

    def __init__(self, candidates: int = 8, cut: bool = False) -> None:
        super().__init__(RandomScore(), candidates=candidates, take="lowest", cut=cut)
