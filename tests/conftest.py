"""Shared by all tests: caches of choices and decoded pictures go to a folder of this test run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["AUGEND_CACHE"] = tempfile.mkdtemp(prefix="augend-test-")
