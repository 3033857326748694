"""How long a person waits: `augend --help`, and the first training step of a fresh process.

python bench/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

from common import machine, report

FIRST = """
import time, os, tempfile
from pathlib import Path
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, start
class First(BaseException): pass
def heard(kind, values):
    if kind == "line": raise First
from augend.runner import keeper
keeper.LINE_EVERY = 1
try:
    job = Job(data="tilted-digits", recipe="plain", budget="10step")
    start(job, RunFolder(Path(tempfile.mkdtemp()) / "run"), Hardware(), listen=heard)
except First:
    os._exit(0)
"""


def best(command: list[str], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    print(machine())
    shown = best([sys.executable, "-m", "augend", "--help"], 5)
    report("augend --help, seconds", shown, "<= 0.5", shown <= 0.5)
    first = best([sys.executable, "-c", FIRST], 5)
    report("first training step of a process, seconds", first, "<= 5", first <= 5)
