"""Scores of learning items: a number for a batch, or for each picture of one. An order asks for them and chooses by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from augend.contract import AugendError, Losses, Picks, Probe, Taken
from augend.order.pools import chosen
from augend.order.trial import TrialSteps, evaluating
from augend.randomness import Draws

__all__ = [
    "Combined",
    "Delta",
    "Gradients",
    "Loss",
    "Passes",
    "RandomScore",
    "Scores",
    "Scoring",
    "Table",
    "row_scores",
    "shared",
    "standardised",
]

TAUGHT = ("score", "entropy")  # what a network can be asked of a picture


class Scores:
    """Scores of some items.

    Attributes:
        values: float32 ``(items,)``, on the CPU.
        taken: of an item number, the step that was tried on it, where that is the step itself.
    """

    def __init__(self, values: Tensor, taken: Callable[[int], Taken] | None = None) -> None:
        self.values, self.taken = values, taken


class Passes(NamedTuple):
    """What is computed for scores: forwards and backwards of a batch, forwards of held-out pictures, and how many batches
    are made (fetched and augmented), each of which may pass the network more than once."""

    forward: float = 0.0
    backward: float = 0.0
    held: float = 0.0
    made: float = 0.0

    def times(self, count: float) -> Passes:
        """That often."""
        return Passes(*(count * value for value in self))

    def plus(self, other: Passes) -> Passes:
        """Both."""
        return Passes(*(a + b for a, b in zip(self, other, strict=True)))


class Scoring(Protocol):
    """A scoring mechanism (training procedure augmentations, 2.3): items -> numbers, with the model or without."""

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """For each item, and once a step, where `held` pictures are held out. A step that need not be taken again counts
        -1 forward, -1 backward and -1 batch that is made."""

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """One score an item. `draws` is the step's own stream, `epoch` that of the epoch, the same in all its steps."""

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """float32 ``(rows,)``, on the CPU: one score a row, where pictures are the items."""


def seeing(probe: Probe | None, word: str) -> Probe:
    """The probe, or one line that says who needs it."""
    if probe is None:
        raise AugendError(f"{word} scores by the model: start the order with a probe, such as augend.order.LoopProbe")
    return probe


def shared(probe: Probe, items: int, score: Callable[[int], Tensor]) -> Tensor:
    """float32 ``(items,)`` on the CPU: every item scored by one of the ranks, the same on all."""
    found = [score(n) if n % probe.ranks == probe.rank else None for n in range(items)]
    kind = next((value for value in found if value is not None), torch.zeros(()))
    values = torch.stack([torch.zeros_like(kind) if value is None else value for value in found])
    return probe.gather(values).detach().float().cpu()


def row_scores(scoring: Scoring, probe: Probe | None, pictures: Tensor, rows: int, draws: Draws) -> Tensor:
    """float32 ``(n,)`` on the CPU: pictures scored `rows` at a time, the parts shared among the ranks."""
    rank, ranks = (0, 1) if probe is None else (probe.rank, probe.ranks)
    found = [
        scoring.rows(probe, Picks(part[:, None]), draws.child(f"part/{n}"))
        if n % ranks == rank
        else torch.zeros(len(part))
        for n, part in enumerate(torch.split(pictures, rows))
    ]
    values = torch.cat(found)
    return values if probe is None else probe.gather(values).float().cpu()


def standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 among those that are finite; all 0 where they are alike.

    >>> standardised(torch.tensor([1.0, 3.0, float("nan")]))
    tensor([-1.,  1., nan])
    """
    finite = values[values.isfinite()]
    return (values - finite.mean()) / finite.std(correction=0).clamp(min=1e-12)


class Loss:
    """The loss of an item under the weights as they are, in evaluation mode. (2.4.1)"""

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A forward of each."""
        return Passes(1, made=1), Passes()

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """The batches' mean losses, one forward each."""
        seen = seeing(probe, "by-loss")
        with torch.no_grad(), evaluating(seen.model):
            return Scores(shared(seen, len(items), lambda n: seen.loss(None, seen.batch(items[n])).total))

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """The rows' own losses, one forward of all of them."""
        seen = seeing(probe, "by-loss")
        with torch.no_grad(), evaluating(seen.model):
            found = seen.loss(None, seen.batch(picks)).rows
        if found is None:
            raise AugendError(
                "the loss of this phase compares rows with each other, so single pictures have none; score batches"
            )
        return found.float().cpu()


class Delta:
    """How far a step on an item lowers the loss: on itself, or on held-out pictures. (2.4.2, Maximum Loss Delta)

    Args:
        against: "same", or "external": held-out pictures, `draw` of them, drawn anew each epoch.
        relative: as a share of the loss before.
        trial: "eval", as the authors scored, or "step": the trial is the step, whose gradients are then used.
        redraw: the pictures are augmented anew for training, as in the published code, instead of trained on as scored.
    """

    def __init__(
        self,
        against: Literal["same", "external"] = "same",
        *,
        relative: bool = False,
        draw: int = 512,
        trial: Literal["eval", "step"] = "eval",
        redraw: bool = False,
    ) -> None:
        for option, value, allowed in (("against", against, ("same", "external")), ("trial", trial, ("eval", "step"))):
            if value not in allowed:
                raise AugendError(f"by-delta: {option} is {value!r}; allowed: {', '.join(allowed)}")
        if draw < 1:
            raise AugendError(f"by-delta: draw is {draw}; an external batch has 1 picture or more")
        if redraw and trial == "step":
            raise AugendError(
                "by-delta: a trial that is the step is of the pictures that are trained on; leave redraw out"
            )
        self.external, self.relative, self.size = against == "external", relative, draw
        self.is_step, self.redraw = trial == "step", redraw
        self.keep_all = False
        """Keep every trial that is a step, a model's memory each, instead of the two that can be chosen by their gains."""
        self._steps: tuple[Probe, TrialSteps] | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A step on each, and the loss after it; the external batch's loss before."""
        once = Passes(-1, -1, made=-1) if self.is_step else Passes()
        if not self.external:
            return Passes(2, 1, made=1), once
        size = min(self.size, held)
        return Passes(1, 1, size, 1), once.plus(Passes(held=size))

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """A trial step on every batch."""
        seen = seeing(probe, "by-delta")
        if self.is_step and seen.ranks > 1:
            raise AugendError("by-delta: trial: step needs the whole batch on one rank; use trial: eval, or one rank")
        if self._steps is None or self._steps[0] is not seen:
            self._steps = seen, TrialSteps(seen, train=self.is_step)
        steps = self._steps[1]
        if self.external:
            if not seen.held:
                raise AugendError(
                    "by-delta: against: external needs held-out pictures; write hold: {external: 10%} in the recipe"
                )
            index = chosen(epoch.child("external"), seen.held, min(self.size, seen.held))
            held = seen.external(index)
            with torch.no_grad(), evaluating(seen.model):
                start = seen.loss(None, held).total
        kept = _Kept(self.keep_all)

        def gain(number: int) -> Tensor:
            batch = seen.batch(items[number], redrawn=self.redraw)
            trial = steps.take(batch)
            before = start if self.external else trial.taken.losses.total
            after = (steps.external(trial, held) if self.external else steps.losses(trial, batch)).total
            found = (before - after).detach()
            if self.relative:
                found = found / before.detach().clamp(min=1e-12)
            if self.is_step:
                kept.add(number, float(found), trial.taken)
            return found

        values = shared(seen, len(items), gain)
        return Scores(values, kept.get if self.is_step else None)

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """A step on one picture is no step that training takes."""
        raise AugendError("by-delta scores batches, not single pictures; use item: batch")


class _Kept:
    """Trials that are steps: those of the lowest and the highest gain, the first of equals, or all of them."""

    def __init__(self, every: bool) -> None:
        self._every, self._trials = every, dict[int, Taken]()
        self._best: dict[int, tuple[int, float]] = {}  # sign -> item number and signed gain

    def add(self, number: int, gain: float, taken: Taken) -> None:
        """A trial; a gain that is no number loses to any."""
        self._trials[number] = taken
        for sign in (1, -1):
            value = -math.inf if math.isnan(gain) else sign * gain
            if sign not in self._best or value > self._best[sign][1]:
                self._best[sign] = number, value
        if not self._every:
            best = {one for one, _ in self._best.values()}
            self._trials = {one: trial for one, trial in self._trials.items() if one in best}

    def get(self, number: int) -> Taken:
        """The trial of an item that can be chosen."""
        return self._trials[number]


class Gradients:
    """No score: the steps themselves, in training mode, for an order that takes the mean of all of them.

    Whichever item is asked for, the mean of all gradients and of all losses is what was taken; running statistics and the
    rows' own losses are those of the first.
    """

    def __init__(self) -> None:
        self._steps: tuple[Probe, TrialSteps] | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A step on each, which is all there is."""
        return Passes(1, 1, made=1), Passes(-1, -1, made=-1)

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """A trial step on every batch."""
        seen = seeing(probe, "by-delta")
        if seen.ranks > 1:
            raise AugendError("by-delta: take: average needs every batch on one rank; use one rank")
        if self._steps is None or self._steps[0] is not seen:
            self._steps = seen, TrialSteps(seen, train=True)
        first = self._steps[1].gradients(seen.batch(items[0]))
        sums, terms = dict(first.gradients), dict(first.losses.terms)
        for item in items[1:]:
            taken = self._steps[1].gradients(seen.batch(item))
            for name, gradient in taken.gradients.items():
                held = sums[name]
                sums[name] = gradient if held is None else held if gradient is None else held + gradient
            terms = {name: value + taken.losses.terms[name] for name, value in terms.items()}
        mean = {name: None if gradient is None else gradient / len(items) for name, gradient in sums.items()}
        losses = Losses({name: value / len(items) for name, value in terms.items()}, first.losses.rows)
        whole = Taken(mean, first.buffers, losses)
        return Scores(torch.zeros(len(items)), lambda number: whole)

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """A step on one picture is no step that training takes."""
        raise AugendError("by-delta takes steps on batches, not on single pictures; use item: batch")


class Combined:
    """The standardised gain of a step minus the standardised loss of a teacher, among the candidates. (2.4.2, 2.5)

    Args:
        gain: of which more is better.
        teacher: of which less is better.
    """

    def __init__(self, gain: Delta, teacher: Table) -> None:
        self._gain, self._teacher = gain, teacher
        gain.keep_all = True  # the teacher may turn any of them into the best

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """Those of the gain."""
        return self._gain.passes(held)

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """Both, of the same items."""
        gains = self._gain(probe, items, draws, epoch)
        losses = self._teacher(probe, items, draws, epoch).values
        return Scores(standardised(gains.values) - standardised(losses), gains.taken)

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """As for the gain."""
        return self._gain.rows(probe, picks, draws)


class Table:
    """One score a training picture, a teacher's losses, say, that a file gives or another network. A batch's is their mean.

    Args:
        file: as `augend evaluate RUN --scores FILE` writes it.
        column: "score", the teacher's loss, or another of the file's.
        teacher: a network that is asked for them instead, "score" or "entropy", once: when the first are needed.

    Attributes:
        file, column, teacher: as given.
        values: float32 ``(size,)`` once they were asked for; a checkpoint keeps them, so that they are asked for once a run.

    Raises:
        AugendError: neither a file nor a teacher, or both; a teacher has no such column.
    """

    def __init__(self, file: str | None, column: str = "score", teacher: str | None = None) -> None:
        if (file is None) == (teacher is None):
            raise AugendError(
                "order: scores come from a file or from a network of the recipe (teacher); write one of them"
            )
        if teacher is not None and column not in TAUGHT:
            raise AugendError(f"order: column is {column!r}; of a teacher allowed: {', '.join(TAUGHT)}")
        self.file, self.column, self.teacher = file, column, teacher
        self.values: Tensor | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """None at a step: what a file cost is not known here, and a teacher is asked once."""
        return Passes(), Passes()

    def _table(self, probe: Probe | None) -> Tensor:
        if self.values is None:
            seen = seeing(probe, "by-score")
            if self.teacher is not None:
                self.values = seen.taught(self.teacher, self.column)
            else:
                self.values = seen.table(str(self.file), self.column)
        return self.values

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """Looked up; the model is not asked."""
        table = self._table(probe)
        return Scores(torch.stack([table[item.index].mean() for item in items]))

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """Looked up; a row of several pictures has their mean."""
        return self._table(probe)[picks.index].mean(1)


class RandomScore:
    """Numbers that mean nothing: what any order by scores must beat."""

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """None."""
        return Passes(), Passes()

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: Draws) -> Scores:
        """Drawn by the step's own stream."""
        return Scores(draws.child("score").rows(torch.arange(len(items))).uniform()[:, 0])

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """Drawn by the step's own stream."""
        return draws.child("score").rows(torch.arange(len(picks.index))).uniform()[:, 0]
