"""Shared by all tests: caches of choices and decoded pictures go to a folder of this test run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["AUGEND_CACHE"] = tempfile.mkdtemp(prefix="augend-test-")
# workers of the tests run side by side: each has its share of the cores, and so have the processes that it starts
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))
