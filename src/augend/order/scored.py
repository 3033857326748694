"""Orders by scores: which of some candidates come next. The classes are words of recipes.

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
from augend.order.choosing import Scored, Take
from augend.order.pools import chosen
from augend.order.scoring import Combined, Delta, Gradients, Loss, Passes, RandomScore, Table, row_scores
from augend.randomness import Draws

__all__ = ["ByDelta", "ByLoss", "ByScore", "RandomScores", "SampleByLoss", "sampled"]


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
        item: "sample": of candidates * rows pictures (or all that are left) the lowest come next, instead of whole batches.
        refresh: "epoch": everything is scored once an epoch and taken in that order.
        prefix: candidates come from the first pictures of the set, as in the published code (an index error there).

    Cost:
        A forward of every candidate a step.

    Example:
        >>> order = ByLoss(candidates=4)
        >>> order.take, order.candidates
        ('lowest', 4)

    Deviation: batches are scored as the coming step would show them (the authors draw their augmentation twice); single
    pictures, and what is scored as an epoch begins, are augmented anew when they are trained on. An epoch's leftovers open
    the next epoch's first batch, so every batch is full.
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

    def asked(self, rows: int, sources: int = 1) -> tuple[float, float]:
        """How often a step scores, and how many batches of pictures at once."""
        return (0.0, 0.0) if self._weighing == "uniform" else (1.0, min(self._pool, self._size / rows))

    def passes(self, rows: int, sources: int = 1) -> Passes:
        """What is computed for scores a step."""
        return self._scoring.passes(0)[0].times(self.asked(rows, sources)[1])

    def rehearsed(self, count: int, rows: int, sources: int = 1) -> Picks:
        """Score so many batches of the first pictures, and draw: for timing. Nothing is remembered."""
        draws, index = self._draws.child("rehearsed"), torch.arange(count * rows) % self._size
        scores = row_scores(self._scoring, self._probe, index, rows, draws)
        return Picks(index[sampled(scores, rows, self._weighing, draws)][:, None])

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
        take: "highest", "lowest", or "average": no choice, all candidates' steps at once. The control of what is computed
            anyway; it costs less, as no loss is taken after a step.
        against: the loss of the same batch, or of an "external" one, held out from training (`hold` in a recipe).
        relative: the gain as a share of the loss before.
        draw: pictures of the external batch, drawn anew each epoch.
        trial: "eval", as the authors scored: gradients and losses in evaluation mode. "step": the trial is the step, in
            training mode, and the winner's gradients are used.
        refresh: "epoch": all of an epoch's batches are scored as it begins.
        minus: file of a teacher's scores: the gain minus the teacher's loss, both standardised among the candidates.
        teacher: a network of the recipe that gives these scores instead, see `ByScore`.
        column: of that file, or what the teacher is asked for.
        redraw: pictures are augmented anew for training, as in the published code.

    Cost:
        Of F for a forward of a batch, candidates * 4F a step against the same batch, candidates * (3F + E) + E against an
        external one that costs E; the step itself, 3F, is free with ``trial: step``. ``take: average`` is the step, and costs
        candidates * 3F: of eight candidates against the same batch two thirds. A teacher's forward of every training picture
        once, as the phase begins.

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
        teacher: str | None = None,
    ) -> None:
        average = take == "average"
        unused = {"against": against != "same", "relative": relative, "trial": trial != "eval", "redraw": redraw}
        unused |= {"minus": minus is not None, "teacher": teacher is not None}
        unheard = [option for option, given in unused.items() if given]
        if average and unheard:
            raise AugendError(
                f"by-delta: take: average takes every candidate's step and compares none; leave {', '.join(unheard)} out"
            )
        delta = Delta(against, relative=relative, draw=draw, trial=trial, redraw=redraw)
        if refresh == "epoch" and (average or trial == "step"):
            raise AugendError(
                "by-delta: refresh: epoch scores long before the step, so its trial is none; use trial: eval"
            )
        table = None if minus is None and teacher is None else Table(minus, column, teacher)
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
        teacher: instead of a file, a network of the recipe, as it is when the phase begins, so that what it took to train is
            charged with the rest.

    Cost:
        Nothing with a file; a teacher's forward of every training picture, once.

    Raises:
        AugendError: neither a file nor a teacher is given, or both.

    Example:
        >>> ByScore("teacher.csv", item="sample").take
        'lowest'
    """

    def __init__(
        self,
        file: str | None = None,
        candidates: int | str = 8,
        take: Take = "lowest",
        item: Literal["batch", "sample"] = "batch",
        column: str = "score",
        teacher: str | None = None,
    ) -> None:
        table = Table(file, column, teacher)
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
