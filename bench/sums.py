"""Mixing eight pictures a row against the step that trains on the rows, and a cascade of sums against a plain epoch.

    python bench/sums.py                   # resnet18-cifar, 32 rows of 3x32x32 a step, one thread: about 3 minutes
    python bench/sums.py --model small --rows 64

First what makes the comparison fair: the mean of uint8 pictures is the whole numbers' own, rounded once, and coefficients
sum to 1 exactly. `mixing` is `SumAugmentation.mix` alone, on pictures that lie ready; `step` is a whole step as a run takes
it: pictures fetched, augmented (crop and flip) and summed, forward, backward, optimizer. The cascade takes the steps of one
epoch of each phase, 8, 4, 2, 1 pictures a row; all take turns in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from augend import Draws, SumAugmentation, gradual_coefficients
from augend.augment.mix import soft_targets
from augend.recipes.resolve import resolve
from augend.runner.hardware import Hardware
from augend.runner.probe import trial_of
from common import interleaved, machine, report
from loop import made_up

K, SHAPE, PICTURES, CLASSES = 8, (3, 32, 32), 1024, 10
OFTEN = 20  # a mixing is too short to be timed alone


def steps(k: int, model: str, rows: int, often: int) -> Callable[[], None]:
    """A function that takes `often` steps of sums of k pictures (1: of plain augmented rows)."""
    settings = {"optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "batch": rows, "pixels": ["crop", "hflip"]}
    facts: dict[str, Any] = {"sizes": {"main": PICTURES}, "traits": {"main": frozenset({"hflip", "crop"})}}
    words = {"params": {"k": k}} if k > 1 else {}
    plan = resolve(
        "sums" if k > 1 else "augmented", settings, data="made-up", model=model, budget="1000step", **facts, **words
    )
    step = trial_of(plan, {"main": made_up(SHAPE, PICTURES)})(Hardware(threads=1, channels_last=True))

    def several() -> None:
        for _ in range(often):
            step()

    return several


def mixing(add: SumAugmentation, rows: int, progress: float = 0.0) -> Callable[[], None]:
    """A function that mixes a batch `OFTEN` times."""
    k = add.sources(progress)
    pixels = torch.randint(0, 256, (rows * k, *SHAPE), dtype=torch.uint8)
    sides = pixels.view(rows, k, *SHAPE).unbind(1)
    tables = soft_targets(torch.randint(CLASSES, (rows, k)), CLASSES).unbind(1)
    draws = Draws(0, "bench", 0, rows)

    def several() -> None:
        for _ in range(OFTEN):
            add.mix(sides, tables, add.draw(draws, progress))

    return several


def exact(rows: int) -> bool:
    """Whether means of whole numbers are rounded once, and coefficients sum to 1."""
    pixels = torch.randint(0, 256, (rows, K, *SHAPE), dtype=torch.uint8)
    mixed, _ = SumAugmentation(K).mix(pixels.unbind(1), [torch.zeros(rows, 1)] * K, torch.zeros(rows, 0))
    same = torch.equal(mixed, (pixels.long().sum(1).double() / (255 * K)).float())
    return same and all(float(gradual_coefficients(K, number / 1000).sum()) == 1.0 for number in range(1001))


def main(model: str, rows: int) -> None:
    torch.set_num_threads(1)
    same = exact(rows)
    print("means of whole numbers are rounded once, and coefficients sum to 1:", same)
    found = interleaved(
        {
            "step": steps(1, model, rows, 1),
            "sums": steps(K, model, rows, 1),
            "equal": mixing(SumAugmentation(K), rows),
            "gradual": mixing(SumAugmentation(gradual=K), rows, 0.05),
        },
        rounds=5,
    )
    each = {
        name: f"{1e3 * seconds / (1 if name in ('step', 'sums') else OFTEN):.2f}ms" for name, seconds in found.items()
    }
    for name in ("equal", "gradual"):
        ratio = found[name] / OFTEN / found["step"]
        share = {"percent": f"{100 * ratio:.3f}"}
        report(f"mixing {K} ({name}), {model}, of a step", ratio, "<= 0.01", same and ratio <= 0.01, **share, **each)
    ratio = found["sums"] / found["step"]
    report(f"a whole step of sums of {K}, over a plain one", ratio, "none", True)


def cascade(model: str, rows: int) -> None:
    """One epoch of every phase."""
    epoch = PICTURES // rows
    phases = [steps(k, model, rows, epoch // k) for k in (8, 4, 2, 1)]

    def all_phases() -> None:
        for phase in phases:
            phase()

    found = interleaved({"cascade": all_phases, "plain": steps(1, model, rows, epoch)}, rounds=5)
    ratio, most = found["cascade"] / found["plain"], round(1.03 * 1.875, 2)
    each = {name: f"{seconds:.2f}s" for name, seconds in found.items()}
    report(f"a cascade, {model}, over a plain epoch", ratio, f"<= {most}", ratio <= most, **each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet18-cifar")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--cascade", default="small", help="the model of the cascade")
    print(machine())
    main(parser.parse_args().model, parser.parse_args().rows)
    cascade(parser.parse_args().cascade, 64)
