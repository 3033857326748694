"""Run by test_ranks.py as a script; every rank leaves what it saw and lost.

python two_ranks.py FOLDER RANKS RECIPE [LINE_EVERY [STEP]]: with STEP rank 0 is killed after it, without it the run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import nn

from augend import register
from augend.runner import assembly, curve, keeper, sight
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resume, start


@register.model("no-batch-statistics")
def network(*, shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, classes),
    )  # fmt: skip


def kill_after(step: int) -> None:
    """Save whenever that is allowed, and SIGKILL rank 0 after a step."""
    keeper.SAVE_SECONDS = 0.0
    after = keeper.Keeper.after

    def killing(self: keeper.Keeper, terms: Any) -> bool:
        ended = after(self, terms)
        if self.at.global_step == step and self.fabric.is_global_zero:
            os.kill(os.getpid(), signal.SIGKILL)
        return ended

    keeper.Keeper.after = killing  # type: ignore[method-assign]


def main() -> None:
    folder, ranks, recipe = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    keeper.LINE_EVERY = 1
    if len(sys.argv) > 4:  # an evaluation writes a line, too
        keeper.LINE_EVERY, curve.POINTS = int(sys.argv[4]), 1
    if len(sys.argv) > 5:
        kill_after(int(sys.argv[5]))
    seen: list[dict[str, Any]] = []
    batch_of = assembly.Scene.batch

    def batch(self: assembly.Scene, picks: Any, draws: Any, progress: float) -> Any:
        made = batch_of(self, picks, draws, progress)
        pictures = [
            [hashlib.blake2b(row.numpy().tobytes(), digest_size=8).hexdigest() for row in x.contiguous()]
            for x in made.views.values()
        ]
        seen.append({"rows": draws.keys.tolist(), "ids": made.ids.tolist(), "pictures": pictures})
        return made

    assembly.Scene.batch = batch  # type: ignore[method-assign]
    look = sight.Sight.batch

    def looked(self: sight.Sight, picks: Any, *, redrawn: bool = False) -> Any:
        before = len(seen)
        made = look(self, picks, redrawn=redrawn)
        del seen[before:]  # candidates are shared out; what is trained on is not
        return made

    sight.Sight.batch = looked  # type: ignore[method-assign]
    job = Job(
        data="tilted-digits",
        recipe=recipe,
        budget="24step",
        model="no-batch-statistics",
        settings="quick",
        overrides=(
            "batch=30",
            *(["schedule.lr=on-plateau"] if len(sys.argv) > 4 else []),
            *(["warm.until=20step"] if recipe.startswith("loss-") else []),
        ),
    )
    run = RunFolder(folder / "run")
    # by what the script was told: rank 1 starts when rank 0 has made the folder already
    if len(sys.argv) == 5:
        resume(run.path)
        return
    start(job, run, Hardware(devices=ranks))
    rank = os.environ.get("LOCAL_RANK", "0") if ranks > 1 else "0"
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
