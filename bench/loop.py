"""Our loop against a bare hand-written one: same network, same dtype, same fused optimizer, same batches, same losses.

python bench/loop.py            # the digit network, PreResNet-20; one thread
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from augend.data.pictures import Pictures, Split
from augend.randomness import Draws, seed_default_generators
from augend.runner import keeper as keeping
from augend.runner.assembly import build_networks
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.loop import run
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

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            target = RunFolder(Path(folder) / "run")
            target.create()
            run(
                plan,
                {"main": split},
                target,
                seed=0,
                hardware=Hardware(threads=1),
                listen=lambda kind, values: lines.append(values["loss"]) if kind == "line" else None,
            )

    def bare(dtype: torch.dtype = torch.float32, channels_last: bool = False) -> list[float]:
        networks = build_networks(plan, {"main": split}, 0)
        network = networks.stages("net")
        networks.only("all")
        from augend.runner.optimizer import build_optimizer

        optimizer = build_optimizer(spec.optimizer, dict(networks.named_parameters()))
        walk = Draws(0, "plain/order")
        losses, total = [], 0.0
        from augend.order.epochs import Epochs

        epochs = Epochs(len(split.train), walk)
        for step in range(steps):
            seed_default_generators(
                Draws(0, "plain", step).child("model/0").key
            )  # so that dropout draws the same masks
            index = epochs.at(step * rows, rows)
            x = split.train.pixels[index].float().div_(255.0)
            y = split.train.labels[index]
            loss = functional.cross_entropy(
                network(x)[""], y, label_smoothing=float(spec.terms[0].component.options.get("smoothing", 0.0))
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total = total + loss.detach()
            if (step + 1) % 50 == 0:
                losses.append(float(total) / 50)
                total = 0.0
        return losses

    torch.set_num_threads(1)
    keeping.CURVE_POINTS, before = 1, keeping.CURVE_POINTS  # the bare loop does not evaluate
    try:
        lines.clear()
        ours()
        first = list(lines)
        apart = max(abs(a - b) / abs(b) for a, b in zip(first[:1], bare(), strict=False))
        best = interleaved({"ours": ours, "bare": lambda: bare() and None}, rounds)
    finally:
        keeping.CURVE_POINTS = before
    setup = _setup(plan, split)
    per_step = (best["ours"] - best["bare"] - setup) / steps * 1e3
    bare_ms = best["bare"] / steps * 1e3
    ratio = (best["ours"] - setup) / best["bare"]
    slow = bare_ms >= 10
    report(
        f"loop, {model}, {rows} rows, fp32",
        ratio,
        "<= 1.03" if slow else "<= +0.1 ms",
        ratio <= 1.03 if slow else per_step <= 0.1,
        bare_ms=f"{bare_ms:.2f}",
        extra_ms=f"{per_step:+.3f}",
        losses_apart=f"{apart:.1e}",
    )


def _setup(plan: object, split: Split) -> float:
    """CPU seconds of what a run does once, measured on a run of one step (its own step left in: it is a step, too)."""
    import dataclasses

    short = dataclasses.replace(
        plan,
        phases=tuple(  # type: ignore[type-var]
            dataclasses.replace(p, steps=1, duration=dataclasses.replace(p.duration, unit="step", amount=1))
            for p in plan.phases  # type: ignore[attr-defined]
        ),
        budget=1,
    )
    best = float("inf")
    for _ in range(4):
        with tempfile.TemporaryDirectory() as folder:
            target = RunFolder(Path(folder) / "run")
            target.create()
            begin = time.process_time()
            run(short, {"main": split}, target, seed=0, hardware=Hardware(threads=1))
            best = min(best, time.process_time() - begin)
    return best


CASES: list[Callable[[], None]] = [
    lambda: bench("figure1", (1, 28, 28), 50, 200, 7),
    lambda: bench("small", (3, 32, 32), 64, 100, 7),
    lambda: bench("preresnet", (3, 32, 32), 32, 12, 5),
]

if __name__ == "__main__":
    print(machine())
    for case in CASES[: int(sys.argv[1]) if sys.argv[1:] else None]:
        case()
