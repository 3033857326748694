"""Our loop against a bare hand-written one: same network, same dtype, same fused optimizer, same batches, same losses.

python bench/loop.py            # the digit network, PreResNet-20; one thread
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from augend.data.pictures import Pictures, Split
from augend.order.epochs import Epochs
from augend.randomness import Draws, seed_default_generators
from augend.recipes.plan import Plan
from augend.runner import curve
from augend.runner import keeper as keeping
from augend.runner.assembly import build_networks
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.loop import run
from augend.runner.optimizer import build_optimizer
from common import interleaved, machine, report


def made_up(shape: tuple[int, int, int], n: int) -> Split:
    generator = torch.Generator().manual_seed(0)

    def pictures(count: int) -> Pictures:
        pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
        return Pictures(pixels, torch.randint(0, 10, (count,), generator=generator), tuple(map(str, range(count))))

    return Split("digits", tuple("0123456789"), pictures(n), pictures(10), pictures(10), frozenset())


def bench(model: str, shape: tuple[int, int, int], rows: int, steps: int, rounds: int) -> None:
    split = made_up(shape, 2000)
    job = Job(
        data="digits",
        recipe="plain",
        model=model,
        budget=f"{steps}step",
        settings="quick",
        overrides=(f"batch={rows}", "schedule={lr: constant}"),
    )
    plan = resolve_job(job, {"main": split})
    spec = plan.phases[0]
    lines: list[float] = []

    def ours(taken: Plan = plan) -> None:
        with tempfile.TemporaryDirectory() as folder:
            target = RunFolder(Path(folder) / "run")
            target.create()
            run(
                taken,
                {"main": split},
                target,
                seed=0,
                hardware=Hardware(threads=1),
                listen=lambda kind, values: lines.append(values["loss"]) if kind == "line" else None,
            )

    def bare(every: int = 50) -> list[float]:
        networks = build_networks(plan, {"main": split}, 0)
        network = networks.stages("net")
        networks.only("all")
        optimizer = build_optimizer(spec.optimizer, dict(networks.named_parameters()))
        epochs = Epochs(len(split.train), Draws(0, "plain/order"))
        smoothing = float(spec.terms[0].component.options.get("smoothing", 0.0))
        losses: list[float] = []
        total = torch.zeros(())
        for step in range(steps):
            seed_default_generators(Draws(0, "plain", step).child("model/0").key)  # dropout draws the same masks
            index = epochs.at(step * rows, rows)
            x = split.train.pixels[index].float().div_(255.0)
            loss = functional.cross_entropy(network(x)[""], split.train.labels[index], label_smoothing=smoothing)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total = total + loss.detach()
            if (step + 1) % every == 0:
                losses.append(float(total) / every)
                total = torch.zeros(())
        return losses

    torch.set_num_threads(1)
    before = curve.POINTS, keeping.LINE_EVERY
    curve.POINTS = 1  # the bare loop does not evaluate
    try:
        keeping.LINE_EVERY = 1
        ours()
        same = min(20, steps)
        apart = max(abs(a - b) / abs(b) for a, b in zip(lines[:same], bare(1)[:same], strict=True))
        keeping.LINE_EVERY = before[1]
        short = _of_one_step(plan)
        best = interleaved({"ours": ours, "setup": lambda: ours(short), "bare": lambda: bare() and None}, rounds)
    finally:
        curve.POINTS, keeping.LINE_EVERY = before
    # what a run does once (files, networks, the first step's checks) is measured by a run of one step, which is a step, too
    took = (best["ours"] - best["setup"]) / (steps - 1)
    plain = best["bare"] / steps
    slow = plain >= 0.010
    report(
        f"loop, {model}, {rows} rows, fp32",
        took / plain,
        "<= 1.03" if slow else "<= +0.1 ms",
        took / plain <= 1.03 if slow else took - plain <= 1e-4,
        bare_ms=f"{1e3 * plain:.2f}",
        extra_ms=f"{1e3 * (took - plain):+.3f}",
        losses_apart=f"{apart:.1e}",
    )


def _of_one_step(plan: Plan) -> Plan:
    phases = tuple(
        dataclasses.replace(p, steps=1, duration=dataclasses.replace(p.duration, unit="step", amount=1))
        for p in plan.phases
    )
    return dataclasses.replace(plan, phases=phases, budget=1)


CASES: list[Callable[[], None]] = [
    lambda: bench("figure1", (1, 28, 28), 50, 100, 15),
    lambda: bench("small", (3, 32, 32), 64, 30, 9),
    lambda: bench("preresnet", (3, 32, 32), 32, 12, 7),
]

if __name__ == "__main__":
    print(machine())
    for case in CASES[: int(sys.argv[1]) if sys.argv[1:] else None]:
        case()
