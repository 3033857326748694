"""Aug-FT's second phase, cut below stage 3 of a PreResNet-56: cached trunk, recomputed trunk, nothing frozen.

    python bench/aug_ft.py            # 640 pictures of 32x32, 5 and 10 epochs, a flip as augmentation; one thread; CPU time

The cache is filled inside the measured time. First the equality: with the cache and without it the run ends in the same bits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from augend.data.pictures import Split
from augend.recipes.plan import Plan
from augend.recipes.resolve import resolve
from augend.runner import curve, keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.loop import run
from common import machine, report
from loop import made_up

ROWS = 128
SETTINGS = {"optimizer": {"sgd": {"lr": 0.01, "momentum": 0.9}}, "batch": ROWS, "pixels": ["hflip"]}
KINDS = {
    "full": {"train": "all"},
    "recomputed": {"train": "net[layer3:]", "cache": False},
    "cached": {"train": "net[layer3:]", "cache": True},
}


def plan(kind: str, epochs: int, pictures: int) -> Plan:
    recipe = {
        "networks": {"net": {"model": {"preresnet": {"depth": 56}}}},
        "phases": [{"name": "tune", "augment": "pixels", **KINDS[kind]}],
    }
    return resolve(
        recipe,
        SETTINGS,
        sizes={"main": pictures},
        traits={"main": frozenset({"hflip"})},
        data="made-up",
        model="preresnet",
        budget=f"{epochs * pictures // ROWS}step",
    )


def once(made: Plan, split: Split, hardware: Hardware) -> tuple[float, dict[str, torch.Tensor]]:
    with tempfile.TemporaryDirectory() as folder:
        target = RunFolder(Path(folder) / "run")
        target.create()
        begin = time.process_time()
        run(made, {"main": split}, target, seed=0, hardware=hardware)
        return time.process_time() - begin, load_file(target.path / "model.safetensors")


def main(pictures: int) -> None:
    torch.set_num_threads(1)
    curve.POINTS = 1
    keeper.SAVE_SECONDS = 1e9
    hardware = Hardware(threads=1, channels_last=True)
    split = made_up((3, 32, 32), pictures)
    weights = {kind: once(plan(kind, 1, pictures), split, hardware)[1] for kind in ("recomputed", "cached")}
    same = all(torch.equal(t, weights["cached"][name]) for name, t in weights["recomputed"].items())
    print("cached and recomputed end in the same bits:", same)
    found: dict[int, dict[str, float]] = {}
    for epochs, goal in ((5, 3.0), (10, 3.5)):
        best = found[epochs] = dict.fromkeys(KINDS, float("inf"))
        for _ in range(2):
            for kind in KINDS:
                best[kind] = min(best[kind], once(plan(kind, epochs, pictures), split, hardware)[0])
        ratio, over = best["full"] / best["cached"], best["recomputed"] / best["cached"]
        seconds = {kind: f"{value:.0f}s" for kind, value in best.items()}
        report(f"cached over full, {epochs} epochs", ratio, f">= {goal}", same and ratio >= goal, **seconds)
        report(f"cached over recomputed, {epochs} epochs", over, ">= 1.9", same and over >= 1.9)
    # what five more epochs take, the cache filled: no run can gain more than this
    slope = {kind: found[10][kind] - found[5][kind] for kind in KINDS}
    print(
        f"limit: {slope['full'] / slope['cached']:.2f} over full, {slope['recomputed'] / slope['cached']:.2f} over recomputed"
    )


if __name__ == "__main__":
    print(machine())
    main(int(sys.argv[1]) if sys.argv[1:] else 640)
