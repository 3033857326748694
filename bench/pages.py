"""What it is worth that freed memory is kept by the process, in a step of training.

    python bench/pages.py                         # the small network, then PreResNet-20, in bf16; about three minutes

Each way has processes of its own, in turn, since an allocator is tuned once: the median of the ratios of pairs. The bits must
be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time

import torch

from augend.contract import Component
from augend.models import build
from augend.runner.hardware import keep_pages
from common import machine, report

NETWORKS = {"small": Component("small", {}), "preresnet-20": Component("preresnet", {"depth": 20})}
STEPS, ROUNDS, ROWS = 30, 7, 64


def one(name: str, kept: bool) -> None:
    """Print CPU seconds of a step, faults of a step, and a digest of the weights."""
    import resource

    if kept:
        keep_pages()
    torch.set_num_threads(1)
    net = build(NETWORKS[name], shape=(3, 32, 32), classes=10, generator_seed=0).train()
    net = net.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (ROWS,), generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = next(iter(net(x).values()))
        torch.nn.functional.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    for _ in range(3):
        step()
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    for _ in range(STEPS):
        step()
    seconds, after = (time.process_time() - begin) / STEPS, resource.getrusage(resource.RUSAGE_SELF)
    bits = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()
    faults = (after.ru_minflt - before.ru_minflt) / STEPS
    print(json.dumps({"seconds": seconds, "faults": faults, "peak": after.ru_maxrss // 1024, "bits": bits}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one[0], asked.one[1] == "kept")
        sys.exit()
    torch.set_num_threads(1)
    print(machine())
    for name in NETWORKS:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "kept": []}
        for _ in range(ROUNDS):
            for way, runs in found.items():
                done = subprocess.run([sys.executable, __file__, "--one", name, way], capture_output=True, check=True)
                runs.append(json.loads(done.stdout))
        pairs = list(zip(*found.values(), strict=True))
        ratio = statistics.median(plain["seconds"] / kept["seconds"] for plain, kept in pairs)
        plain, kept = pairs[-1]
        same = len({run["bits"] for runs in found.values() for run in runs}) == 1
        report(
            f"a step of {name}, as it comes over kept",
            ratio,
            ">= 1.1",
            same and ratio >= 1.1,
            kept=f"{1e3 * kept['seconds']:.1f}ms",
            faults=f"{plain['faults']:.0f} and {kept['faults']:.0f}",
            peak=f"{plain['peak']:.0f} and {kept['peak']:.0f} MB",
        )
