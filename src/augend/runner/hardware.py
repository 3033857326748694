"""The machine a run uses: device, precision, memory format, threads; `auto` is timed, never guessed."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augend.contract import AugendError

__all__ = ["PRECISIONS", "Hardware", "default_accelerator", "describe", "fastest", "keep_pages", "main_rank", "program"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Hardware:
    """How a run computes. Everything here can change the last bits of a result, so a resumed run gets it back.

    Attributes:
        accelerator: "cpu" or "cuda".
        devices: ranks on this machine.
        precision: Fabric's words, "32-true" or "bf16-mixed".
        channels_last: memory format of pictures and convolution weights.
        threads: threads of one process.
        deterministic: only deterministic kernels (CUDA; the CPU's always are).
    """

    accelerator: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    channels_last: bool = False
    threads: int = 1
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise AugendError(f"precision is {self.precision!r}; it is one of {', '.join(PRECISIONS)} or auto")

    def fabric(self) -> Any:
        """A launched Fabric of this machine; sets the threads of this process."""
        from lightning_fabric import Fabric

        # Fabric's import asks torch to look for GPUs through NVML, so that processes can be forked; Adam looks at every
        # step, which costs 0.13 ms where there is no GPU. Nothing is forked here.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        torch.set_num_threads(self.threads)
        if self.accelerator == "cpu":
            keep_pages()
        if self.deterministic and self.accelerator == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        strategy = "ddp" if self.devices > 1 else "auto"
        precision: Any = self.precision
        fabric = Fabric(accelerator=self.accelerator, devices=self.devices, precision=precision, strategy=strategy)
        fabric.launch()
        return fabric

    def autocast(self) -> AbstractContextManager[object]:
        """The precision's context for a forward."""
        if self.precision == "32-true":
            return contextlib.nullcontext()
        return torch.autocast(self.accelerator, torch.bfloat16)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def keep_pages() -> None:
    """Let the C library keep up to 512 MB of freed memory, for this process.

    A step's tensors are of a few megabytes each. By default such memory goes back to the system whenever it is freed, and
    each page is faulted in and zeroed again at the next step, which takes a fifth of a step (bench/pages.py). Bits and peaks
    stay. Where there is no glibc, or somebody has tuned its allocator by the environment, nothing is done.
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(M_MMAP_THRESHOLD, 256 << 20):
            mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that older ones take
        mallopt(M_TRIM_THRESHOLD, 512 << 20)


def main_rank() -> bool:
    """Whether this process is the one that writes: Fabric starts the others by running the same script again."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def default_accelerator() -> str:
    """ "cuda" when there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe() -> dict[str, Any]:
    """What a result's last bits depend on: processor, builds, platform."""
    import numpy

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


@functools.cache
def program() -> dict[str, str]:
    """Which augend this is: its version, and the commit where it runs from a checkout (``+`` where files were changed)."""
    import subprocess

    from augend import __version__

    found = {"augend": __version__}
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return found
    with contextlib.suppress(OSError, subprocess.SubprocessError):

        def git(*arguments: str) -> str:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=5, check=True)
            return done.stdout.strip()

        found["commit"] = git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "src") else "")
    return found


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def fastest(
    trial: Callable[[Hardware], Callable[[], float]],
    base: Hardware,
    *,
    precisions: tuple[str, ...] = PRECISIONS,
    formats: tuple[bool, ...] = (False, True),
    warm: int = 3,
    timed: int = 5,
    seconds: float = 1.5,
) -> tuple[Hardware, list[dict[str, Any]]]:
    """The fastest precision and memory format by timing real steps, and the table of what was timed.

    Modes take turns, so that a machine whose speed drifts is fair to all; quick steps get more turns. A mode is taken
    only when its first loss agrees with fp32's within 2 %, and fp32 contiguous is left only for a gain of 10 % or more: a
    coin flip would give equal seeds other weights. A mode three times slower than fp32 contiguous after the warm-up is
    not timed on (bf16 is emulated, 4x to 20x slower, for depthwise layers on some CPUs).

    Args:
        trial: hardware -> a function that takes one training step and returns its loss.
        warm: steps before the clock runs.
        timed: turns at least, whose median counts.
        seconds: more turns are taken while they fit in this.
    """
    # one thread's own time is not disturbed by other processes
    clock = time.process_time if base.accelerator == "cpu" and base.threads == 1 else time.perf_counter
    modes: list[tuple[Hardware, Callable[[], float], float]] = []
    rows: list[dict[str, Any]] = []
    slow = float("inf")
    for precision in precisions:
        for channels_last in formats:
            hardware = dataclasses.replace(base, precision=precision, channels_last=channels_last)
            step = trial(hardware)
            first = step()
            begin = clock()
            for _ in range(warm - 1):
                step()
            took = (clock() - begin) / max(1, warm - 1)
            slow = min(slow, 3 * took) if not modes else slow
            rows.append({"precision": precision, "channels_last": channels_last, "seconds": took, "loss": first})
            if took <= slow:
                modes.append((hardware, step, first))
    turns: dict[Hardware, list[float]] = {hardware: [] for hardware, _, _ in modes}
    until = time.perf_counter() + seconds
    while len(turns[modes[0][0]]) < timed or time.perf_counter() < until:
        for hardware, step, _ in modes:
            begin = clock()
            step()
            turns[hardware].append(clock() - begin)
    for row in rows:
        hardware = dataclasses.replace(base, precision=row["precision"], channels_last=row["channels_last"])
        if hardware in turns:
            row["seconds"] = statistics.median(turns[hardware])
    reference = rows[0]
    agreeing = [r for r in rows if abs(r["loss"] - reference["loss"]) <= 0.02 * abs(reference["loss"])]
    best = min(agreeing, key=lambda row: float(row["seconds"]))
    if best["seconds"] > 0.9 * reference["seconds"]:
        best = reference
    return dataclasses.replace(base, precision=best["precision"], channels_last=best["channels_last"]), rows
