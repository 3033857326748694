"""Scores of learning items: a number for a batch, or for each picture of one. An order asks for them and chooses by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe, Taken
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
    "shared",
    "standardised",
]


class Scores:
    """Scores of some items.

    Attributes:
        values: float32 ``(items,)``, on the CPU.
        taken: of an item number, the step that was tried on it, where that is the step itself.
    """

    def __init__(self, values: Tensor, taken: Callable[[int], Taken] | None = None) -> None:
        self.values, self.taken = values, taken


class Passes(NamedTuple):
    """What is computed for scores: forwards and backwards of a batch, and forwards of held-out pictures."""

    forward: float = 0.0
    backward: float = 0.0
    held: float = 0.0

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
        -1 forward and -1 backward."""

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
        """One score an item. `draws` is the step's own stream, `epoch` counts the order's rounds."""

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


def standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 among themselves; all 0 where they are alike."""
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-12)


class Loss:
    """The loss of an item under the weights as they are, in evaluation mode. (2.4.1)"""

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A forward of each."""
        return Passes(1), Passes()

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
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
        self._steps: tuple[Probe, TrialSteps] | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A step on each, and the loss after it; the external batch's loss before."""
        once = Passes(-1, -1) if self.is_step else Passes()
        if not self.external:
            return Passes(2, 1), once
        size = min(self.size, held)
        return Passes(1, 1, size), once.plus(Passes(held=size))

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
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
            index = chosen(draws.child(f"external/{epoch}"), seen.held, min(self.size, seen.held))
            held = seen.external(index)
            with torch.no_grad(), evaluating(seen.model):
                start = seen.loss(None, held).total
        kept: dict[int, Taken] = {}

        def gain(number: int) -> Tensor:
            batch = seen.batch(items[number], redrawn=self.redraw)
            trial = steps.take(batch)
            if self.is_step:
                kept[number] = trial.taken
            before = start if self.external else trial.taken.losses.total
            after = (steps.external(trial, held) if self.external else steps.losses(trial, batch)).total
            found = (before - after).detach()
            return found / before.detach().clamp(min=1e-12) if self.relative else found

        values = shared(seen, len(items), gain)
        return Scores(values, kept.__getitem__ if self.is_step else None)

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """A step on one picture is no step that training takes."""
        raise AugendError("by-delta scores batches, not single pictures; use item: batch")


class Gradients:
    """No score: the steps themselves, in training mode, for an order that takes all of them."""

    def __init__(self) -> None:
        self._steps: tuple[Probe, TrialSteps] | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """A step on each, which is all there is."""
        return Passes(1, 1), Passes(-1, -1)

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
        """A trial step on every batch."""
        seen = seeing(probe, "by-delta")
        if seen.ranks > 1:
            raise AugendError("by-delta: take: average needs every batch on one rank; use one rank")
        if self._steps is None or self._steps[0] is not seen:
            self._steps = seen, TrialSteps(seen, train=True)
        kept = [self._steps[1].gradients(seen.batch(item)) for item in items]
        return Scores(torch.zeros(len(items)), kept.__getitem__)

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

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """Those of the gain."""
        return self._gain.passes(held)

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
        """Both, of the same items."""
        gains = self._gain(probe, items, draws, epoch)
        losses = self._teacher(probe, items, draws, epoch).values
        return Scores(standardised(gains.values) - standardised(losses), gains.taken)

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """As for the gain."""
        return self._gain.rows(probe, picks, draws)


class Table:
    """Scores that a file gives, one a training picture: a teacher's losses, say. A batch's score is their mean.

    Args:
        file: as `augend evaluate RUN --scores FILE` writes it.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._known: tuple[Probe, Tensor] | None = None

    def passes(self, held: int) -> tuple[Passes, Passes]:
        """None: what the teacher cost is not known here."""
        return Passes(), Passes()

    def _table(self, probe: Probe | None) -> Tensor:
        seen = seeing(probe, "by-score")
        if self._known is None or self._known[0] is not seen:
            self._known = seen, seen.table(self._file)
        return self._known[1]

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
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

    def __call__(self, probe: Probe | None, items: Sequence[Picks], draws: Draws, epoch: int) -> Scores:
        """Drawn by the step's own stream."""
        return Scores(draws.child("score").rows(torch.arange(len(items))).uniform()[:, 0])

    def rows(self, probe: Probe | None, picks: Picks, draws: Draws) -> Tensor:
        """Drawn by the step's own stream."""
        return draws.child("score").rows(torch.arange(len(picks.index))).uniform()[:, 0]
