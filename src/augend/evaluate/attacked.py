"""What trained models answer under attack, with and without test-time sums, as `augend.evaluate.threats` puts it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from augend.data.pictures import Pictures
from augend.evaluate import attacks
from augend.evaluate.foreign import FOOLBOX, by_foolbox
from augend.evaluate.shifts import laid_out
from augend.evaluate.threats import (
    ADAPTIVE,
    BARE,
    BLIND,
    CLEAN,
    Asked,
    Condition,
    conditions,
    restarts_of,
    through,
)
from augend.pixels import to_float
from augend.randomness import Draws, seed_default_generators, undisturbed

__all__ = ["Looked", "batch_of", "blind", "look", "moved", "shown"]

BATCH, LEAST = 250, 16
PIXELS = 2_000_000  # of large pictures fewer at a time: a backward pass keeps what every layer made of them


@dataclass(frozen=True)
class Looked:
    """What a model answers: condition -> int64 ``(N,)`` classes, `BLIND` -> 1 where the clean picture has no gradient.

    `share`: of the draws, how many sums used on clean pictures.
    """

    answers: Mapping[str, NDArray[np.int64]]
    share: float | None = None


def look(
    model: nn.Module,
    pictures: Pictures,
    labels: Tensor,
    wanted: Asked,
    references: Tensor | None = None,
    *,
    classes: Tensor | None = None,
    kept: Collection[str] = (),
    device: torch.device | str = "cpu",
    after: Callable[[int, int], None] | None = None,
) -> Looked:
    """What a model answers under every condition that is asked for.

    Args:
        model: in eval mode; float32 pixels in [0, 1] -> logits. It is moved to `device`, and otherwise left as it is.
        pictures: of the model's training shape.
        labels: int64 ``(N,)``, class numbers of the model.
        wanted: its subset of pictures is taken already.
        references: training pictures for test-time sums, uint8 ``(R, C, H, W)``.
        classes: int64 ``(R,)``, their class numbers of the model, which partners by class want.
        kept: names of conditions that need no answer.
        device: where it is done.
        after: called with (pictures done under all conditions, pictures in all).

    Cost: a pass forward and one back for each step, restart, budget and attack; adaptive ones two forward and one back for
    each of `samples` (of `draws`, where these are known), and seven answers through the sums (`draws` passes each), by which
    the worst is found and judged.
    """
    model = model.to(device)
    sums = None
    if wanted.sums is not None:
        bank = None if references is None else references.to(device)
        sums = through(model, bank, wanted.sums, wanted.seed, classes)
    todo = [one for one in conditions(wanted) if one.name not in kept]
    found: dict[str, list[Tensor]] = {one.name: [] for one in todo}
    if wanted.attacks and BLIND not in kept:
        found[BLIND] = []
    used: list[Tensor] = []
    done = 0

    def judged(condition: Condition, x: Tensor, numbers: Tensor) -> None:
        nonlocal done
        seed_default_generators(int(numbers[0]))  # a network that draws draws the same, whatever ran before
        if sums is None or condition.threat == BARE:
            with torch.no_grad():
                classes = model(x).argmax(1)
        else:
            classes, draws, _ = sums.classify(x, numbers)
            if condition.attack == CLEAN:
                used.append(draws)
        found[condition.name].append(classes.cpu())
        done += len(x)
        if after is not None:
            after(done, len(todo) * len(pictures))

    with undisturbed():
        for numbers in torch.split(torch.arange(len(pictures)), batch_of(pictures)):
            x = shown(pictures, numbers, device)
            own = labels[numbers.to(labels.device)].to(device)
            for one in todo:
                if one.attack == CLEAN:
                    judged(one, x, numbers)
            if BLIND in found:
                found[BLIND].append(blind(model, x, own).cpu())
            for attack in wanted.attacks:
                seed_default_generators(int(numbers[0]))
                draws = Draws(wanted.seed, f"attack/{attack}", keys=numbers)
                here = [one for one in todo if one.attack == attack]
                plain = dict(moved(model, x, own, attack, _budgets_of(here), wanted, draws, adaptive=False))
                for one in here:
                    if one.threat != ADAPTIVE:
                        judged(one, plain[one.eps], numbers)
                here = [one for one in here if one.threat == ADAPTIVE]
                if sums is not None:
                    adaptive = dict(moved(sums, x, own, attack, _budgets_of(here), wanted, draws, adaptive=True))
                    for one in here:
                        judged(one, attacks.worst(sums, [adaptive[one.eps], plain[one.eps]], own, numbers), numbers)
    share = float(torch.cat(used).double().mean()) / wanted.sums.draws if used and wanted.sums else None
    return Looked({name: torch.cat(parts).numpy() for name, parts in found.items()}, share)


def blind(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """1 for each picture at which a model's gradient is 0, or no number, in every pixel, int64 ``(B,)``."""
    slope = attacks.input_gradient(model, x, labels).flatten(1)
    return ((slope == 0) | slope.isnan()).all(1).long()


def shown(pictures: Pictures, numbers: Tensor, device: torch.device | str) -> Tensor:
    """float32 ``(B, C, H, W)`` in [0, 1], laid out as for `augend.evaluate.shifts.shown`."""
    return laid_out(to_float(pictures.fetch(numbers[:, None])[0][:, 0]).to(device))


def batch_of(pictures: Pictures) -> int:
    """How many pictures are looked at together."""
    return max(LEAST, min(BATCH, PIXELS // math.prod(pictures.shape)))


def _budgets_of(some: Sequence[Condition]) -> list[float]:
    return list(dict.fromkeys(one.eps for one in some))


def moved(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    attack: str,
    budgets: Sequence[float],
    wanted: Asked,
    draws: Draws,
    *,
    adaptive: bool,
) -> Iterator[tuple[float, Tensor]]:
    """Each budget with the attacked pictures."""
    samples = wanted.samples if adaptive and not wanted.known else None
    if not budgets:
        return
    gradient = attacks.gradient_of(model, samples)
    if wanted.fast:
        gradient = attacks.in_bfloat16(gradient)
    if attack == "fgsm":
        yield from zip(
            budgets,
            attacks.fgsm_sweep(model, x, labels, budgets, gradient=gradient, draws=draws),
            strict=True,
        )
        return
    for eps in budgets:
        if attack.startswith(FOOLBOX):
            yield eps, by_foolbox(attack, model, x, labels, eps, wanted.seed + int(draws.keys[0]))
        elif attack == "pgd":
            restarts = restarts_of(wanted, adaptive)
            yield (
                eps,
                attacks.pgd(
                    model,
                    x,
                    labels,
                    eps,
                    steps=wanted.steps,
                    restarts=restarts,
                    samples=samples,
                    gradient=gradient,
                    draws=draws,
                ),
            )
        else:
            iterative = attacks.bim if attack == "bim" else attacks.mim
            yield (
                eps,
                iterative(model, x, labels, eps, steps=wanted.steps, gradient=gradient, draws=draws),
            )
