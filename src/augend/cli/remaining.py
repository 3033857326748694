"""How long a study still takes, from the trials it has finished and those that are running."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Remaining"]


LEAST = 0.05  # of a trial: what less says about the whole is noise
_RATE = re.compile(r"-\d+(\.\d+)?(e[+-]?\d+)?$")  # also one that is written as 3.33e-05


def recipe_of(trial: str) -> str:
    """The recipe of a trial by name: ``aug-ft-r3``, ``refit/aug-ft``, ``tuning/aug-ft-0.01``."""
    folder, _, name = trial.rpartition("/")
    if folder == "tuning":
        return _RATE.sub("", name)
    return name if folder == "refit" else name.rpartition("-")[0]


@dataclass
class Remaining:
    """Hears a study's events and estimates the seconds that are left.

    Args:
        trials: all that are to run, by name, in order.
        steps: of a trial, by recipe.
        workers: trials side by side.
        predicted: seconds of a trial by recipe, where they were timed before.
        work: of a trial by recipe, such as its FLOPs; empty: its steps.
        clock: seconds.
    """

    trials: Sequence[str]
    steps: Mapping[str, int]
    workers: int
    predicted: Mapping[str, float] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, float] = field(default_factory=dict)
    _from: dict[str, float] = field(default_factory=dict)  # where a trial that is resumed stood then
    _progress: dict[str, float] = field(default_factory=dict)
    _took: dict[str, list[float]] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take an event of a worker in."""
        trial, kind = str(event.get("trial", "")), event["kind"]
        if not trial:
            return
        self._begun.setdefault(trial, self.clock())
        if "global_step" in event:
            self._progress[trial] = int(event["global_step"]) / max(1, self.steps.get(recipe_of(trial), 1))
            if kind == "phase":
                self._from.setdefault(trial, self._progress[trial])
        if kind in ("ended", "lost"):
            self._over.add(trial)
            if kind == "ended" and event["state"] == "finished" and trial in self.trials and self._part(trial) > LEAST:
                self._took.setdefault(recipe_of(trial), []).append(self._spent(trial) / self._part(trial))

    def _spent(self, trial: str) -> float:
        """Seconds since it began or was resumed."""
        return self.clock() - self._begun[trial]

    def _part(self, trial: str) -> float:
        """Which part of it is trained from there on."""
        return 1 - self._from.get(trial, 0.0)

    def _seen(self, trial: str) -> float:
        """Which part of it has been trained since then."""
        return self._progress.get(trial, 0.0) - self._from.get(trial, 0.0)

    def each(self, recipe: str) -> float | None:
        """Seconds of one trial of a recipe: measured, or predicted and corrected, or by its work."""
        took = self._took.get(recipe)
        if took:
            return sum(took) / len(took)
        known = {name: sum(times) / len(times) for name, times in self._took.items()}
        if recipe in self.predicted:
            both = [name for name in known if self.predicted.get(name)]
            mean = sum(self.predicted.values()) / len(self.predicted)  # so that a first short trial does not say it all
            right = (mean + sum(known[n] for n in both)) / (mean + sum(self.predicted[n] for n in both))
            return right * self.predicted[recipe]
        work = self.work or self.steps
        if known and recipe in work:
            return sum(known.values()) / max(1, sum(work.get(name, 0) for name in known)) * work[recipe]
        running = [t for t in self._running() if self._seen(t) > LEAST]
        found = [self._spent(t) / self._seen(t) / max(1, work.get(recipe_of(t), 1)) for t in running]
        return sum(found) / len(found) * work.get(recipe, 0) if found else None

    def _running(self) -> list[str]:
        return [trial for trial in self._begun if trial not in self._over and trial in self.trials]

    def seconds(self) -> float | None:
        """Seconds until the last trial ends; None while nothing is known."""
        free = []
        for trial in self._running():
            each = self.each(recipe_of(trial))
            if each is None:
                return None
            free.append(max(0.0, each * self._part(trial) - self._spent(trial)))
        free += [0.0] * max(0, self.workers - len(free))
        for trial in self.trials:
            if trial in self._begun or trial in self._over:
                continue
            each = self.each(recipe_of(trial))
            if each is None:
                return None
            free.sort()
            free[0] += each
        return max(free)
