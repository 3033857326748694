"""Test-time sums at many settings at once: the trade of clean accuracy for accuracy under attack.

A picture's first draws are the same however many there are, so the answers of 125 draws hold those of 25; and what is done to
a picture does not depend on the number of draws. Each combination of k and weight is asked once with all draws. Of several
restarts the one is taken that is worst for the answer of all draws, so fewer draws may see an attack that is a little weaker.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from augend.contract import AugendError
from augend.data.pictures import Pictures
from augend.evaluate.attacked import batch_of, blind, shown
from augend.evaluate.attacked import moved as moved_by
from augend.evaluate.sums import TestTimeSums
from augend.evaluate.threats import (
    ADAPTIVE,
    BARE,
    BLIND,
    CLEAN,
    THROUGH,
    TRANSFERRED,
    Asked,
    Condition,
    Sums,
    sums_of,
    through,
)
from augend.evaluate.threats import conditions as conditions_of
from augend.randomness import Draws

__all__ = ["SEVERAL", "Cell", "cells", "grid_of", "look", "summary"]

SEVERAL = "|"  # between the values of one option of --sums


@dataclass(frozen=True)
class Cell:
    """One number of a grid: a condition, and the test-time sums that answer it (None: the bare model)."""

    condition: Condition
    sums: Sums | None

    @property
    def name(self) -> str:
        """``pgd 8/255, adaptive; k=2, weight=1.0, draws=16``."""
        if self.sums is None:
            return self.condition.name
        return f"{self.condition.name}; k={self.sums.k}, weight={self.sums.weight!r}, draws={self.sums.draws}"


def grid_of(text: str) -> tuple[Sums, ...]:
    """The sums that ``k=2|4,weight=0.5|1,draws=25`` means, each combination once.

    >>> [(one.k, one.weight) for one in grid_of("k=2|4,weight=0.5|1")]
    [(2, 0.5), (2, 1.0), (4, 0.5), (4, 1.0)]
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    options = []
    for part in parts:
        name, _, values = part.partition("=")
        options.append([f"{name}={value.strip()}" for value in values.split(SEVERAL)])
    found = tuple(dict.fromkeys(sums_of(",".join(chosen)) for chosen in itertools.product(*options)))
    if len({(one.references, one.average, one.partners) for one in found}) > 1:
        raise AugendError(
            "--sums: several values are for k, weight and draws; references, average and partners have one"
        )
    return found


def cells(wanted: Asked, grid: Sequence[Sums]) -> list[Cell]:
    """All numbers of a grid, the bare model's first."""
    bare = [Cell(one, None) for one in conditions_of(replace(wanted, sums=None))]
    each = [one for one in conditions_of(replace(wanted, sums=grid[0])) if one.threat != BARE]
    return bare + [Cell(one, sums) for sums in grid for one in each]


def look(
    model: nn.Module,
    pictures: Pictures,
    labels: Tensor,
    wanted: Asked,
    grid: Sequence[Sums],
    references: Tensor,
    *,
    classes: Tensor | None = None,
    device: torch.device | str = "cpu",
    after: Callable[[int, int], None] | None = None,
) -> Mapping[str, NDArray[np.int64]]:
    """What a model answers at every point of a grid: name of a `Cell` -> int64 ``(N,)`` classes.

    Under attack also `BLIND`, as `augend.evaluate.attacked.look` gives it.

    Args:
        model: in eval mode; float32 pixels in [0, 1] -> logits. It is moved to `device`, and otherwise left as it is.
        pictures: of the model's training shape.
        labels: int64 ``(N,)``, class numbers of the model.
        wanted: attacks, budgets, steps, restarts and samples; its `sums` do not count.
        grid: the sums.
        references: training pictures, uint8 ``(R, C, H, W)``.
        classes: int64 ``(R,)``, their class numbers of the model, which partners by class want.
        device: where it is done.
        after: called with (pictures done at all points, pictures in all).

    Cost: for each combination of k and weight as many passes as the most draws, for clean pictures and twice for each attack
    and budget, and the adaptive attack.
    """
    model = model.to(device)
    found: dict[str, list[Tensor]] = {one.name: [] for one in cells(wanted, grid)}
    if wanted.attacks:
        found[BLIND] = []
    settings = list(dict.fromkeys((one.k, one.weight) for one in grid))
    done, total = 0, len(pictures) * len(settings)
    for numbers in torch.split(torch.arange(len(pictures)), batch_of(pictures)):
        x = shown(pictures, numbers, device)
        own = labels[numbers.to(labels.device)].to(device)
        with torch.no_grad():
            found[Cell(Condition(CLEAN, "0", 0.0, BARE), None).name].append(model(x).argmax(1).cpu())
        if wanted.attacks:
            found[BLIND].append(blind(model, x, own).cpu())
        budgets = [eps for _, eps in wanted.eps]
        plain: dict[tuple[str, float], Tensor] = {}
        for attack in wanted.attacks:
            draws = Draws(wanted.seed, f"attack/{attack}", keys=numbers)
            for eps, pixels in moved_by(model, x, own, attack, budgets, wanted, draws, adaptive=False):
                plain[attack, eps] = pixels
            with torch.no_grad():
                for said, eps in wanted.eps:
                    bare = Cell(Condition(attack, said, eps, BARE), None)
                    found[bare.name].append(model(plain[attack, eps]).argmax(1).cpu())
        for k, weight in settings:
            here = [one for one in grid if (one.k, one.weight) == (k, weight)]
            most = max(here, key=lambda one: one.draws)
            sums = through(model, references.to(device), most, wanted.seed, classes)
            _one_setting(sums, x, own, numbers, wanted, here, plain, found)
            done += len(x)
            if after is not None:
                after(done, total)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _one_setting(
    sums: TestTimeSums,
    x: Tensor,
    labels: Tensor,
    numbers: Tensor,
    wanted: Asked,
    grid: Sequence[Sums],
    plain: Mapping[tuple[str, float], Tensor],
    found: dict[str, list[Tensor]],
) -> None:
    """The points that differ in their number of draws alone, which `sums` has the most of; answers go into `found`."""

    def answered(pixels: Tensor) -> dict[Sums, Tensor]:
        with torch.no_grad():
            logits = sums.answers(pixels, numbers)
            return {one: sums.averaged(logits[: one.draws]).argmax(1) for one in grid}

    def note(condition: Condition, classes: Mapping[Sums, Tensor]) -> None:
        for one, answer in classes.items():
            found[Cell(condition, one).name].append(answer.cpu())

    note(Condition(CLEAN, "0", 0.0, THROUGH), answered(x))
    for attack in wanted.attacks:
        draws = Draws(wanted.seed, f"attack/{attack}", keys=numbers)
        budgets = [eps for _, eps in wanted.eps]
        adaptive: dict[float, Tensor] = {}
        if any(one.condition.threat == ADAPTIVE for one in cells(replace(wanted, attacks=(attack,)), grid)):
            adaptive = dict(moved_by(sums, x, labels, attack, budgets, wanted, draws, adaptive=True))
        for said, eps in wanted.eps:
            transferred = answered(plain[attack, eps])
            note(Condition(attack, said, eps, TRANSFERRED), transferred)
            if eps in adaptive:  # who knows of the sums may still do what one can who does not
                own = answered(adaptive[eps])
                worst = {one: torch.where(own[one] != labels, own[one], transferred[one]) for one in grid}
                note(Condition(attack, said, eps, ADAPTIVE), worst)


def summary(shares: Mapping[str, Any], wanted: Asked, grid: Sequence[Sums]) -> dict[str, Any]:
    """What a page shows: ``bare`` and ``points``, each with its accuracies, from name of a `Cell` -> mean, low, high."""

    def of(sums: Sums | None) -> list[dict[str, Any]]:
        return [
            {**one.condition._asdict(), "accuracy": shares[one.name]} for one in cells(wanted, grid) if one.sums == sums
        ]

    points = [{"k": s.k, "weight": s.weight, "draws": s.draws, "conditions": of(s)} for s in grid]
    return {"bare": of(None), "points": points}
