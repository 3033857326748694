"""The default mode (precision and memory format by timing) against plain fp32, for networks of different kinds.

    python bench/modes.py            # one thread; ratios of process time

Dense convolutions should gain; `auto` must never be slower than fp32 by more than 3 %.
"""

from __future__ import annotations

import sys

import torch

from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.probe import choose, trial_of
from common import interleaved, machine, report
from loop import made_up

CASES = [
    ("resnet18", (3, 64, 64), 16, 1.8),
    ("convnext_atto", (3, 64, 64), 16, 0.97),
    ("mobilenetv3_small_100", (3, 64, 64), 16, 0.97),
    ("vit_tiny_patch16_224", (3, 64, 64), 16, 0.97),
]


def bench(model: str, shape: tuple[int, int, int], rows: int, goal: float) -> None:
    split = made_up(shape, 200)
    job = Job(
        data="digits", recipe="plain", model=model, budget="100step", settings="quick", overrides=(f"batch={rows}",)
    )
    plan = resolve_job(job, {"main": split})
    base = Hardware(threads=1)
    chosen, _ = choose(plan, {"main": split}, base, remember=False)
    make = trial_of(plan, {"main": split})
    plain, auto = make(base), make(chosen)
    first = abs(plain() - auto()) / abs(plain())
    best = interleaved({"fp32": lambda: plain() and None, "auto": lambda: auto() and None}, rounds=6)
    ratio = best["fp32"] / best["auto"]
    mode = f"{chosen.precision}{', channels-last' if chosen.channels_last else ''}"
    report(f"auto over fp32, {model}", ratio, f">= {goal}", ratio >= goal, chosen=mode, losses_apart=f"{first:.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        machine(),
        "bf16 in oneDNN (emulated where the processor lacks it):",
        bool(torch.backends.mkldnn.is_available() and _bf16())
        if (_bf16 := getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None))
        else "unknown",
    )
    for case in CASES if not sys.argv[1:] else [c for c in CASES if c[0] in sys.argv[1:]]:
        bench(*case)
