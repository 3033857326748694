"""`augend compare` on the embedded digits, set-up done: at most 60 s on two cores.

python bench/compare_digits.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, report

if __name__ == "__main__":
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "augend", "compare", "--out", str(Path(folder) / "study")], check=True)
        seconds = time.perf_counter() - begin
    report("augend compare, seconds", seconds, "<= 60", seconds <= 60)
