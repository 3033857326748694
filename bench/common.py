"""What the benches share: interleaved timing in one process, and one line a result: ``name ratio goal``."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def interleaved(trials: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Best process CPU seconds of each trial over rounds in turn (A B A B ...); the first round warms up."""
    best = dict.fromkeys(trials, float("inf"))
    for number in range(rounds + 1):
        for name, trial in trials.items():
            begin = time.process_time()
            trial()
            seconds = time.process_time() - begin
            if number:
                best[name] = min(best[name], seconds)
    return best


def report(name: str, ratio: float, goal: str, met: bool, **more: object) -> None:
    """One line: name, ratio, goal, and whether it is met."""
    extra = "  ".join(f"{key} {value}" for key, value in more.items())
    print(f"{name:<44} {ratio:8.3f}   goal {goal:<8} {'met' if met else 'MISSED'}   {extra}", flush=True)


def machine() -> str:
    """Hardware, versions and commit of a figure."""
    where = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=where, capture_output=True, text=True).stdout
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return json.dumps(
        {
            "cpu": cpu,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": commit.strip(),
        }
    )
