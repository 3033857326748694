"""Run by test_ranks.py as a script: `python two_ranks.py FOLDER RANKS RECIPE`; every rank leaves what it saw and lost."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from augend import register
from augend.runner import assembly, keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, start


@register.model("no-batch-statistics")
def network(*, shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, classes),
    )  # fmt: skip


def main() -> None:
    folder, ranks, recipe = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    keeper.LINE_EVERY = 1
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
    job = Job(
        data="tilted-digits",
        recipe=recipe,
        budget="24step",
        model="no-batch-statistics",
        settings="quick",
        overrides=("batch=30",),
    )
    start(job, RunFolder(folder / "run"), Hardware(devices=ranks))
    rank = os.environ.get("LOCAL_RANK", "0") if ranks > 1 else "0"
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
