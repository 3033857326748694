"""Times of steps on a machine whose speed drifts: against a yardstick, what steps cost beside one another stays known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from augend.runner.stopwatch import Stopwatch

UNIT = 0.02


class Machine:
    """A clock that goes on by what is done, on a machine that others slow down."""

    def __init__(self, slow: Callable[[float], float], at: float) -> None:
        self.slow, self.at, self.steps = slow, at, 0

    def now(self) -> float:
        return self.at

    def step(self, seconds: float) -> Callable[[], None]:
        def step() -> None:
            self.at += seconds * self.slow(self.at)
            self.steps += 1

        return step


def swings(at: float) -> float:
    """A third slower or faster within a minute, and within four seconds a tenth."""
    return 1 + 0.3 * math.sin(at / 10) + 0.1 * math.sin(at * 1.6)


BEGINS = range(0, 60, 4)


@pytest.mark.parametrize("ratio", [0.01, 0.4, 1.0, 1.3, 7.0, 40.0])
def test_against_a_yardstick_a_drift_leaves_no_trace(ratio: float) -> None:
    """Where none is taken out, times of the same step are a third apart and more; of the longest, only three are timed."""
    alone, against = [], []
    for begin in BEGINS:
        alone.append(Stopwatch(now=(machine := Machine(swings, begin)).now).of(machine.step(ratio * UNIT)))
        machine = Machine(swings, begin)
        watch = Stopwatch(machine.step(UNIT), now=machine.now)
        machine.at += 7  # whatever else the process does
        against.append(watch.of(machine.step(ratio * UNIT)) / watch.unit)
    assert against == pytest.approx([ratio] * len(against), rel=0.04 if ratio < 40 else 0.1)
    assert max(alone) > 1.3 * min(alone)


def test_a_machine_that_keeps_slowing_down_makes_nothing_dearer() -> None:
    """A block of steps is judged by the yardstick on both sides of it."""
    machine = Machine(lambda at: 1 + at, 0.0)
    watch = Stopwatch(machine.step(UNIT), now=machine.now)
    assert watch.of(machine.step(UNIT)) / watch.unit == pytest.approx(1, rel=0.02)


def test_the_unit_is_what_the_yardstick_takes_as_the_watch_is_made() -> None:
    machine = Machine(lambda at: 2.0 if at < 4 else 1.0, 0.0)
    watch = Stopwatch(machine.step(UNIT), now=machine.now)
    assert watch.unit == pytest.approx(2 * UNIT) and machine.at < 2
    machine.at = 10.0
    assert watch.of(machine.step(3 * UNIT)) == pytest.approx(6 * UNIT)
    assert Stopwatch().unit == 1.0


def test_neither_is_left_alone_for_long() -> None:
    """Blocks of both take about as long, and at least as long as one step of either; a timing is over in a few seconds."""
    for ratio, steps, seconds in ((0.01, 4000, 4), (1.0, 62, 4), (40.0, 30, 9)):
        machine = Machine(lambda at: 1.0, 0.0)
        watch = Stopwatch(machine.step(UNIT), now=machine.now)
        begin, count, own = machine.at, machine.steps, machine.step(ratio * UNIT)
        assert watch.of(own) == pytest.approx(ratio * UNIT)
        assert machine.at - begin < seconds and machine.steps - count >= steps


def test_alone_it_is_a_median() -> None:
    times = iter([0.09] * 3 + [0.010, 0.050, 0.011, 0.012, 0.013] * 20)
    machine = Machine(lambda at: 1.0, 0.0)

    def step() -> None:
        machine.at += next(times)

    assert Stopwatch(now=machine.now).of(step) == pytest.approx(0.012)
