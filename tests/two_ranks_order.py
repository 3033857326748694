"""Run by test_ranks_order.py as a script: an order that scores by a network with batch norm.

python two_ranks_order.py FOLDER RANKS ORDER: every rank leaves which running statistics it scored by, step by step, and what
it picked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from augend import AugendError, register
from augend.runner import assembly, sight
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, start


@register.model("batch-statistics")
def network(*, shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, classes)
    )  # fmt: skip


def main() -> None:
    folder, ranks, order = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    steps: list[dict[str, Any]] = []
    looked, picked = sight.Sight.loss, assembly.Scene.picks

    def loss(self: sight.Sight, state: Any, batch: Any) -> Any:
        digest = hashlib.blake2b(digest_size=8)
        for _, buffer in sorted(self.model.named_buffers()):
            digest.update(buffer.numpy().tobytes())
        steps[-1]["statistics"].append(digest.hexdigest())
        return looked(self, state, batch)

    def picks(self: assembly.Scene, *given: Any) -> Any:
        steps.append({"statistics": []})
        found = picked(self, *given)
        steps[-1]["picks"] = found.index[:, 0].tolist()
        return found

    sight.Sight.loss, assembly.Scene.picks = loss, picks  # type: ignore[method-assign]
    recipe: Any = {"phases": [{"name": "warm", "order": json.loads(order)}]}
    job = Job(data="tilted-digits", recipe=recipe, budget="8step", model="batch-statistics", settings="quick",
              overrides=("batch=30",))  # fmt: skip
    try:
        start(job, RunFolder(folder / "run"), Hardware(devices=ranks))
    except AugendError as error:
        sys.exit(str(error))
    (folder / f"scored-{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
