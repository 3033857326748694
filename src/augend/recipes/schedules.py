"""Learning rates over the life of an optimizer: pure functions of the step, and the one schedule that has a state."""

from __future__ import annotations

import math
from typing import Any

from augend.contract import AugendError, Component
from augend.recipes.components import SCHEDULES, checked_options
from augend.recipes.reading import Place

__all__ = ["OnPlateau", "completed", "rate"]


def completed(schedule: Component, place: Place) -> Component:
    """A schedule with its options checked and made numbers (``warmup: 5%`` is 0.05).

    >>> completed(Component("cosine", {"warmup": "5%"}), Place("quick"))
    Component(word='cosine', options={'warmup': 0.05})
    """
    if schedule.word not in SCHEDULES:
        raise place.unknown(schedule.word, SCHEDULES, "schedule")
    options = {key: _fraction(value) for key, value in schedule.options.items()}
    found = checked_options(Component(schedule.word, options), SCHEDULES[schedule.word], place)
    given = found.options
    inside = place.at(schedule.word)
    for name in ("warmup", "floor"):
        if found.word == "cosine" and not 0 <= given.get(name, 0) < 1:
            raise inside.at(name).found(given[name], "a fraction of the steps (warmup) or of the rate (floor) below 1")
    if "factor" in given and not 0 < given["factor"] < 1:
        raise inside.at("factor").found(given["factor"], "a number between 0 and 1")
    if found.word == "steps":
        points = given["at"]
        whole = isinstance(points, list) and points and all(isinstance(p, float) and 0 < p < 1 for p in points)
        if not whole or points != sorted(points):
            raise inside.at("at").found(points, "fractions of the steps in ascending order, such as [0.5, 0.75]")
    if found.word == "on-plateau":
        watch = given.get("watch", "train/loss")
        if watch.partition("/")[0] not in ("train", "valid"):
            raise inside.at("watch").found(watch, "a metric of train or valid, such as train/loss")
    return found


def _fraction(value: Any) -> Any:
    if isinstance(value, list):
        return [_fraction(item) for item in value]
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return value
    return value


def rate(schedule: Component, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step of the optimizer's life.

    Args:
        schedule: ``constant``; ``cosine`` (linear warm-up over the first `warmup` of the steps, then half a cosine
            down to `floor` times the rate); ``steps`` (times `factor` at each fraction of `at`); ``on-plateau`` (1:
            its state decides, see `OnPlateau`).
        step: from 0.
        steps: all steps that this optimizer serves.

    Example:
        >>> half = Component("steps", {"factor": 0.1, "at": [0.5]})
        >>> [rate(half, step, 4) for step in range(4)]
        [1.0, 1.0, 0.1, 0.1]
        >>> [round(rate(Component("cosine", {"warmup": 0.2}), step, 10), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    options = schedule.options
    if schedule.word in ("constant", "on-plateau"):
        return 1.0
    if schedule.word == "cosine":
        warm, floor = float(options.get("warmup", 0.0)) * steps, float(options.get("floor", 0.0))
        if step + 1 <= warm:
            return (step + 1) / warm
        done = max(step - warm, 0.0) / max(steps - warm, 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if schedule.word == "steps":
        return float(math.prod(options["factor"] for point in options["at"] if step >= math.floor(point * steps)))
    raise AugendError(f"unknown schedule {schedule.word!r} (known: {', '.join(SCHEDULES)})")


class OnPlateau:
    """Multiplies the rate by `factor` when what is watched has made no new best for more than `patience` epochs.

    A new best is better than the best by `threshold` of it (torch's `ReduceLROnPlateau`, relative mode). Losses fall,
    and everything else rises.

    Args:
        schedule: the component ``on-plateau``.
        lr: the optimizer's rate, of which the schedule's `floor` (a rate) makes the lowest multiplier.

    Example:
        >>> plateau = OnPlateau(Component("on-plateau", {"factor": 0.5, "patience": 1}), lr=0.1)
        >>> [plateau.observe(loss) for loss in (1.0, 1.0, 1.0, 0.5)]
        [1.0, 1.0, 0.5, 0.5]
    """

    def __init__(self, schedule: Component, lr: float) -> None:
        options = {**{name: one.default for name, one in SCHEDULES["on-plateau"].items()}, **schedule.options}
        self.watch: str = options["watch"]
        self._factor, self._patience, self._threshold = options["factor"], options["patience"], options["threshold"]
        self._floor = options["floor"] / lr
        self._falls = self.watch.endswith("loss")
        self._best = math.inf if self._falls else -math.inf
        self._bad = 0
        self.rate = 1.0

    def observe(self, value: float) -> float:
        """Take the value of one epoch; returns the multiplier of the rate from now on."""
        bar = self._best * (1 - self._threshold if self._falls else 1 + self._threshold)
        if value < bar if self._falls else value > bar:
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._bad > self._patience:
            self.rate, self._bad = max(self.rate * self._factor, self._floor), 0
        return self.rate

    def state_dict(self) -> dict[str, float]:
        """Numbers only."""
        return {"best": self._best, "bad": self._bad, "rate": self.rate}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from saved numbers."""
        self._best, self._bad, self.rate = state["best"], int(state["bad"]), state["rate"]
