"""A process that runs trials: ``python -m augend.study.worker STUDY``.

Names of trials come on stdin, one a line: a folder in the study's ``trials``, or with a "/" in it one in the study itself
(``refit/plain``); ``time:NAME`` times a recipe's phases. Events go to stdout as JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["main"]

HEARD = ("phase", "line", "valid", "cache", "note", "done")


def main() -> int:
    """Run the trials named on stdin, one a line, until it closes; a signal saves and ends the process."""
    study = Path(sys.argv[1])
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's print must not look like an event

    def tell(trial: str, kind: str, values: Mapping[str, Any]) -> None:
        plain = {k: v for k, v in values.items() if isinstance(v, str | int | float | bool | type(None))}
        events.write(json.dumps({"trial": trial, "kind": kind, **plain}) + "\n")
        events.flush()  # a study that is gone is noticed here: the pipe is broken, and the worker ends

    from augend.contract import AugendError, Saved
    from augend.study.sizing import time_job
    from augend.study.trials import run_trial, trial_folder

    tell("", "ready", {})
    for name in map(str.strip, sys.stdin):
        timed = name.startswith("time:")
        folder = study / "time" / name.removeprefix("time:") if timed else trial_folder(study, name)

        def listen(kind: str, values: Mapping[str, Any], name: str = name) -> None:
            if kind in HEARD:
                tell(name, kind, values)

        try:
            if timed:
                time_job(folder)
                tell(name, "ended", {"state": "finished", "reason": ""})
                continue
            state, reason = run_trial(folder, listen, wait=20.0), ""
            if state == "failed":
                reason = json.loads((folder / "state.json").read_text(encoding="utf-8"))["reason"]
            tell(name, "ended", {"state": state, "reason": reason})
        except AugendError as error:
            tell(name, "ended", {"state": "failed", "reason": str(error)})
        except Saved as saved:
            with contextlib.suppress(BrokenPipeError):
                tell(name, "ended", {"state": "saved", "reason": ""})
            return saved.code
        except BrokenPipeError:
            os._exit(1)
        except OSError as error:  # not even the reason could be written: the disk is full
            tell(name, "ended", {"state": "failed", "reason": f"{error.strerror or error}; run the command again"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
