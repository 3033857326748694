"""Two CPU ranks see the pictures of one, and lose what it loses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _run(folder: Path, ranks: int, recipe: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    folder.mkdir()
    script = Path(__file__).parent / "two_ranks.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(ranks), recipe], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(ranks)]
    steps = []
    for step in zip(*parts, strict=True):
        rows = [row for part in step for row in part["rows"]]
        ids = [i for part in step for i in part["ids"]]
        views = [[p for part in step for p in part["pictures"][v]] for v in range(len(step[0]["pictures"]))]
        steps.append({"rows": rows, "ids": ids, "pictures": views})
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return steps, [line for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("recipe", ["augmented", pytest.param("ft", marks=pytest.mark.slow)])
def test_two_ranks_do_what_one_does(recipe: str, tmp_path: Path) -> None:
    one, losses = _run(tmp_path / "one", 1, recipe)
    two, shared = _run(tmp_path / "two", 2, recipe)
    assert one == two  # the same picks, parameters and pixels, bit for bit
    assert len(losses) == len(shared) == 24
    for alone, together in zip(losses[:20], shared[:20], strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
