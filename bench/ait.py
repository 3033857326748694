"""A step of AIT against two plain steps, and of peers against as many plain steps: what agreement itself costs.

    python bench/ait.py                    # resnet (depth 32), 64 pictures of 32x32 a step, one thread: about 3 minutes
    python bench/ait.py --model small

Whole steps as a run takes them: pictures drawn and augmented, forward, terms, backward, optimizer; in turns, in one process.
First what makes the comparison fair: equal rows disagree by exactly 0, and the term is symmetric.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from augend import AugmentationInvariance
from augend.recipes.resolve import resolve
from augend.runner.hardware import Hardware
from augend.runner.probe import trial_of
from common import interleaved, machine, report
from loop import made_up

ROWS, OFTEN = 64, 4
SETTINGS = {"optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "batch": ROWS, "pixels": ["crop", "hflip"]}


def steps(recipe: str, model: str, often: int) -> Callable[[], None]:
    """A function that takes `often` steps of a recipe."""
    plan = resolve(
        recipe,
        SETTINGS,
        sizes={"main": 512},
        traits={"main": frozenset({"hflip", "crop"})},
        data="made-up",
        model=model,
        budget="1000step",
    )
    step = trial_of(plan, {"main": made_up((3, 32, 32), 512)})(Hardware(threads=1, channels_last=True))

    def several() -> None:
        for _ in range(often):
            step()

    return several


def main(model: str) -> None:
    torch.set_num_threads(1)
    a, b = (torch.randn(ROWS, 10, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    term = AugmentationInvariance(reduction="none")
    same = not bool(term(a, a).any()) and torch.equal(term(a, b), term(b, a))
    print("equal rows give 0, and the term is symmetric:", same)
    found = interleaved(
        {
            "two plain": steps("augmented", model, 2 * OFTEN),
            "ait": steps("ait", model, OFTEN),
            "two peers": steps("multi-ait", model, OFTEN),
            "mutual": steps("dml", model, OFTEN),
        },
        rounds=7,
    )
    each = {name: f"{1e3 * seconds / OFTEN:.1f}ms" for name, seconds in found.items()}
    for name, goal in (("ait", 1.03), ("two peers", 1.05), ("mutual", 1.05)):
        ratio = found[name] / found["two plain"]
        report(f"{name}, {model}, against two plain steps", ratio, f"<= {goal}", same and ratio <= goal, **each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet")
    print(machine())
    main(parser.parse_args().model)
