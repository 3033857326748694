"""Two CPU ranks see the pictures of one, lose what it loses, and resume to the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runs import same_run

SCRIPT = Path(__file__).parent / "two_ranks.py"


def _script(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def _run(folder: Path, ranks: int, recipe: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    folder.mkdir()
    done = _script(folder, ranks, recipe)
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


SLOW = [
    pytest.param(recipe, marks=pytest.mark.slow)
    for recipe in (
        "ft",
        "mixup",
        "cutmix",
        "mixup-features",
        "gradual-cascade",
        "cascade-2",
        "loss-ascending",
        "loss-delta",
    )
]


@pytest.mark.parametrize("recipe", ["augmented", *SLOW])
def test_two_ranks_do_what_one_does(recipe: str, tmp_path: Path) -> None:
    one, losses = _run(tmp_path / "one", 1, recipe)
    two, shared = _run(tmp_path / "two", 2, recipe)
    assert one == two  # the same picks, parameters and pixels, bit for bit
    assert len(losses) == len(shared) == 24
    for alone, together in zip(losses[:20], shared[:20], strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_two_ranks_resume_to_the_same_bits(tmp_path: Path) -> None:
    """Killed between two lines of metrics and inside an epoch whose loss steers the learning rate."""
    for name, step in (("whole", 1000), ("killed", 13)):
        (tmp_path / name).mkdir()
        done = _script(tmp_path / name, 2, "augmented", 5, step)
        assert (done.returncode == 0) == (name == "whole"), done.stderr[-3000:]
    assert not (tmp_path / "killed" / "run" / "result.json").exists()
    done = _script(tmp_path / "killed", 2, "augmented", 5)
    assert done.returncode == 0, done.stderr[-3000:]
    same_run(tmp_path / "whole" / "run", tmp_path / "killed" / "run")
