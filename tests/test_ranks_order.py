"""Orders on two CPU ranks: scores come from the same running statistics on both, and what cannot be shared is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "two_ranks_order.py"


def _script(folder: Path, order: Any, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), str(ranks), json.dumps(order)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_ranks_score_by_the_same_running_statistics(tmp_path: Path) -> None:
    """Each rank's batch norm has seen its own rows in the step before."""
    done = _script(tmp_path, {"by-loss": {"candidates": 4}})
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"scored-{rank}.json").read_text()) for rank in (0, 1))
    assert len(one) == len(other) == 8
    for mine, theirs in zip(one, other, strict=True):
        assert mine["picks"] == theirs["picks"]
        assert len(mine["statistics"]) == len(theirs["statistics"]) == 2  # candidates are shared out
        assert len({*mine["statistics"], *theirs["statistics"]}) == 1
    assert len({step["statistics"][0] for step in one}) == 8  # and training moves them


def test_ranks_share_what_a_teacher_is_asked(tmp_path: Path) -> None:
    """Each asks about its own pictures, and both have all the scores: those of one rank."""
    order = {"by-score": {"teacher": "net", "candidates": 4}}
    done = _script(tmp_path, order)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"scored-{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    shared = json.loads((tmp_path / "run" / "ledger.json").read_text())["total"]
    (tmp_path / "alone").mkdir()
    done = _script(tmp_path / "alone", order, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "alone" / "scored-0.json").read_text()) == one
    alone = json.loads((tmp_path / "alone" / "run" / "ledger.json").read_text())["total"]
    assert (alone["flops"], alone["forward"]) == (shared["flops"], shared["forward"])


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"by-delta": {"candidates": 2, "trial": "step"}}, "by-delta: trial: step needs the whole batch on one rank"),
        pytest.param(
            {"by-delta": {"candidates": 2, "take": "average"}},
            "by-delta: take: average needs every batch on one rank",
            marks=pytest.mark.slow,
        ),
        pytest.param("infobatch", "order infobatch hears the loss of every row", marks=pytest.mark.slow),
    ],
)
def test_what_two_ranks_cannot_share_is_refused(order: Any, says: str, tmp_path: Path) -> None:
    done = _script(tmp_path, order)
    assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr, done.stderr[-3000:]
