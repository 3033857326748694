"""A plugin that kills its process, and the study above it, at a chosen place: AUGEND_KILL=PLACE:COUNT:MARKER.

The kill is a real SIGKILL, sent once: MARKER is a file that is made just before.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from augend import checkpoint
from augend.runner import banks, keeper
from augend.study import trials

keeper.SAVE_SECONDS = 0.05
place, _, rest = os.environ.get("AUGEND_KILL", "").partition(":")
count, _, marker = rest.partition(":")
_left = int(count or 0)


WORKER = Path(sys.argv[0]).name == "worker.py"


def _die() -> None:
    Path(marker).touch()
    if os.environ.get("AUGEND_KILL_PARENT") and WORKER:  # the study that started this worker
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _counted(here: str) -> bool:
    global _left
    if here != place or Path(marker).exists() or (here == "trial-state" and not WORKER):
        return False
    _left -= 1
    return _left == 0


def _before(owner: Any, name: str, here: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _counted(here):
            _die()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, here: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if _counted(here):
            _die()
        return result

    setattr(owner, name, wrapped)


def _half_written(path: Path, data: bytes) -> None:
    if path.suffix == ".ckpt" and _counted("checkpoint"):
        path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(data[: len(data) // 2])
        _die()
    _write_bytes(path, data)


if not getattr(keeper, "killer_is_here", False):
    keeper.killer_is_here = True  # type: ignore[attr-defined]
    _write_bytes = checkpoint.write_bytes
    checkpoint.write_bytes = _half_written
    _fill = banks.fill

    def _filling(compute: Any, *args: Any, **kwargs: Any) -> Any:
        def counted(rows: Any) -> Any:
            made = compute(rows)
            if _counted("cache"):
                _die()
            return made

        return _fill(counted, *args, **kwargs)

    banks.fill = _filling
    _after(keeper.Keeper, "_judge", "evaluation")
    _before(keeper.Keeper, "finish", "phase-end")
    _after(keeper.Keeper, "finish", "phase-begin")
    _after(keeper.Keeper, "after", "step")
    _before(trials, "write_json", "trial-state")
