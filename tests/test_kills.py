"""Real SIGKILLs: a run and a study end in the same bits and the same table wherever they were killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runs import SMALL, same_run

PLUGIN = Path(__file__).parent / "killer.py"
PLACES = ["checkpoint:3", "cache:2", "evaluation:7", "phase-end:1", "phase-begin:1", "step:67"]
RUN = ["--recipe", "aug-ft", "--budget", "120step", "--threads", "1", "--precision", "32-true", "--plugin", str(PLUGIN)]


def _augend(*arguments: str, kill: str = "", marker: Path | None = None, parent: bool = False) -> int:
    environment = {**os.environ, "AUGEND_KILL": f"{kill}:{marker}" if kill else ""}
    if parent:
        environment["AUGEND_KILL_PARENT"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "augend", *arguments], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode in (0, -9), done.stderr[-2000:]
    return done.returncode


def _train(out: Path, **how: Any) -> int:
    return _augend("train", SMALL, "tune.augment=tilt-5", *RUN, "--out", str(out), **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert _train(out) == 0
    return out


@pytest.mark.parametrize(
    "place", [p if n < 3 else pytest.param(p, marks=pytest.mark.slow) for n, p in enumerate(PLACES)]
)
def test_a_killed_run_ends_in_the_same_bits(place: str, whole: Path, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    assert _train(tmp_path / "run", kill=place, marker=marker) == -9 and marker.exists()
    assert _augend("resume", str(tmp_path / "run")) == 0
    same_run(whole, tmp_path / "run")


KILLS = [
    *("checkpoint:2", "checkpoint:5", "checkpoint:1", "cache:1", "cache:3", "cache:2", "evaluation:3", "evaluation:9"),
    *(
        "phase-end:1",
        "phase-begin:1",
        "phase-end:2",
        "phase-begin:1",
        "trial-state:1",
        "trial-state:2",
        "trial-state:3",
    ),
    *("trial-state:2", "step:40", "step:11", "step:90", "evaluation:1", "checkpoint:3", "evaluation:5"),
]


def _bare(value: Any) -> Any:
    """Results without seconds and what follows from them: cost, and the advice that weighs it."""
    gone = ("cost", "advice", "choice", "advised", "versus_advised", "folder", "curve")
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if k not in gone}
    return [_bare(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_twenty_kills_of_a_study_leave_the_same_table(tmp_path: Path) -> None:
    asked = [
        *(
            "compare",
            SMALL,
            "--recipes",
            "plain,aug-ft",
            "--reference",
            "plain",
            "--repeats",
            "3",
            "--budget",
            "100step",
        ),
        *("--precision", "32-true", "--plugin", str(PLUGIN), "--augment", "tilt-5"),
    ]
    assert _augend(*asked, "--out", str(tmp_path / "whole")) == 0
    out, hit = tmp_path / "killed", 0
    outs = [out]
    busy: list[subprocess.Popen[bytes]] = []
    try:
        for number, place in enumerate(KILLS):
            if number == len(KILLS) // 2:  # the second half under load
                busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
            marker = tmp_path / f"marker-{number}"
            code = _augend(*asked, "--out", str(out), kill=place, marker=marker, parent=True)
            hit += marker.exists()
            assert (code == -9) == marker.exists(), place
            if code == 0:  # all trials were finished before the count was reached: take the next study
                out = tmp_path / f"killed-{number}"
                outs.append(out)
    finally:
        for process in busy:
            process.kill()
    print(f"{hit} kills")
    first = json.loads((tmp_path / "whole" / "results.json").read_text())
    for out in outs:
        assert _augend(*asked, "--out", str(out)) == 0
        assert _bare(first) == _bare(json.loads((out / "results.json").read_text()))
        for trial in sorted(path.name for path in (out / "trials").iterdir()):
            same_run(tmp_path / "whole" / "trials" / trial, out / "trials" / trial)
    assert hit >= 20
