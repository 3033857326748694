"""How far recipes' costs beside the reference's scatter when they are timed again: each alone, and in turn with its step.

python bench/timing.py [--rounds 6] [--data "cifar10:train=2000,valid=1000,test=5000"]
"""

from __future__ import annotations

import argparse
import math
import statistics

from augend.runner.hardware import Hardware
from augend.runner.job import Job
from augend.study.sizing import agreed, measure
from common import machine, report

RECIPES = ("augmented", "loss-delta", "infobatch", "grab")
SIDE_BY_SIDE = 2


def costs(jobs: dict[str, Job], against: Job | None) -> list[float]:
    """Seconds of a step of every recipe's last phase, over those of the first recipe's."""
    found = agreed([measure(jobs, Hardware(threads=1, channels_last=True), SIDE_BY_SIDE, against=against)])
    return [found[name].phases[-1].step / found[RECIPES[0]].phases[-1].step for name in RECIPES[1:]]


def scatter(rounds: list[list[float]]) -> float:
    """Root mean square of what each recipe's costs are away from their median, as a part of it."""
    logs = [[math.log(one) for one in each] for each in zip(*rounds, strict=True)]
    away = [(one - statistics.median(each)) ** 2 for each in logs for one in each]
    return math.sqrt(statistics.fmean(away))


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=6)
    asked.add_argument("--data", default="cifar10:train=2000,valid=1000,test=5000")
    given = asked.parse_args()
    print(machine())
    made = {name: Job(data=given.data, recipe=name, model="small", budget="100epoch") for name in RECIPES}
    alone: list[list[float]] = []
    paired: list[list[float]] = []
    for _ in range(given.rounds):
        alone.append(costs(made, None))
        paired.append(costs(made, made[RECIPES[0]]))
        print([round(one, 3) for one in (*alone[-1], *paired[-1])], flush=True)
    medians = [round(statistics.median(each), 3) for each in zip(*paired, strict=True)]
    print("costs beside augmented's:", dict(zip(RECIPES[1:], medians, strict=True)))
    left = scatter(paired)
    report("scatter of a timing against the reference", left, "<= 0.05", left <= 0.05)
    ratio = scatter(alone) / left
    report("scatter alone over that", ratio, ">= 2", ratio >= 2)
