"""A study's lock: one process at a time changes its record, takes trials for it and runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from augend.runner.folder import Busy, RunFolder

__all__ = ["hold", "holding", "let_go"]

_HELD: WeakValueDictionary[Path, RunFolder] = WeakValueDictionary()


def hold(study: Path, wait: float = 2.0, *, new: bool = False) -> RunFolder:
    """The study's folder, locked by this process until it is let go or forgotten; asked again, the same one.

    Args:
        study: an existing folder.
        wait: seconds to wait for another process that only looks at it.
        new: of a study that is just begun: refuse also where this process has it.

    Raises:
        Busy: another process has it.
    """
    path = study.resolve()
    folder = _HELD.get(path)
    if folder is None:
        folder = RunFolder(path)
        try:
            folder.lock(wait)
        except Busy:
            raise _busy(study) from None
        _HELD[path] = folder
    elif new:
        raise _busy(study)
    return folder


@contextlib.contextmanager
def holding(study: Path) -> Iterator[RunFolder]:
    """`hold` that outlives the block; where the block fails, what it took is let go."""
    before = study.resolve() in _HELD
    folder = hold(study)
    try:
        yield folder
    except BaseException:
        if not before:
            let_go(folder)
        raise


def let_go(folder: RunFolder) -> None:
    """Let others have the study."""
    _HELD.pop(folder.path, None)
    folder.unlock()


def _busy(study: Path) -> Busy:
    return Busy(f"{study}: another process is working on this study; wait for it or stop it")
