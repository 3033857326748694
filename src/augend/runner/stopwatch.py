"""How long a step takes, on a machine that others share: the median of some, told in steps of something that is timed
in turn with them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

__all__ = ["Stopwatch"]

WARM, TIMED = 5, 20
WARM_LEAST, TIMED_LEAST = 1, 3
PHASE_SECONDS = 2.0
SHORT_SECONDS = 0.5  # 20 steps of a small network are over before their neighbours have been felt
BLOCK_SECONDS = 0.05  # of steps in a row between two looks at the yardstick: a step alone would find the caches cold
BLOCK_MOST = 50  # steps of the yardstick in a row, however long those are that it is beside


class Stopwatch:
    """Times steps, alone or against a yardstick.

    A machine that others share is a third faster or slower for minutes, and for seconds. Against a yardstick, what
    is measured are ratios of neighbours in time, blocks of steps between blocks of the yardstick's: what slows both
    leaves no trace.

    Args:
        yardstick: a step of the same kind of work, the same one for all times that shall be compared.
        now: a clock, in seconds.

    Attributes:
        unit: seconds that a step of the yardstick took as the watch was made: all times are those of a machine as fast
            as it was then. Times of two watches compare once each is divided by its unit. 1 without a yardstick.

    >>> import itertools
    >>> clock = itertools.count()
    >>> Stopwatch(now=lambda: next(clock)).of(lambda: None)
    1.0
    """

    def __init__(
        self, yardstick: Callable[[], object] | None = None, *, now: Callable[[], float] | None = None
    ) -> None:
        self.now, self.yardstick = now or time.perf_counter, yardstick
        self.unit = 1.0
        if yardstick is not None:
            self._warm(yardstick)
            self.unit = statistics.median(self._turns(lambda: self._block(yardstick, 1)))

    def of(self, step: Callable[[], object]) -> float:
        """Seconds of a step, the median of 20 after up to 5 of warm-up: of more where these are over in half a second, of
        fewer where they take more than two, but of 3 after 1 at least. Against a yardstick, of as many blocks.
        """
        latest = self._warm(step)
        if self.yardstick is None:
            return _middle(self._turns(lambda: self._block(step, 1)))
        block = max(BLOCK_SECONDS, self.unit)
        steps, units = math.ceil(block / max(latest, 1e-9)), math.ceil(max(block, latest) / self.unit)
        units = min(units, BLOCK_MOST)
        yardstick, before = self.yardstick, self._block(self.yardstick, units)

        def against() -> float:
            nonlocal before
            own, after = self._block(step, steps), self._block(yardstick, units)
            ratio = 2 * own / (before + after)
            before = after
            return ratio

        return self.unit * _middle(self._turns(against))

    def _warm(self, step: Callable[[], object]) -> float:
        """Seconds of the last one."""
        begin, latest = self.now(), 0.0
        for number in range(WARM):
            if number >= WARM_LEAST and self.now() - begin > PHASE_SECONDS / 4:
                break
            latest = self._block(step, 1)
        return latest

    def _block(self, step: Callable[[], object], count: int) -> float:
        """Seconds of each of so many in a row."""
        begin = self.now()
        for _ in range(count):
            step()
        return (self.now() - begin) / count

    def _turns(self, turn: Callable[[], float]) -> list[float]:
        turns: list[float] = []
        begin = self.now()
        while len(turns) < TIMED_LEAST or self.now() - begin < (PHASE_SECONDS if len(turns) < TIMED else SHORT_SECONDS):
            turns.append(turn())
        return turns


def _middle(turns: list[float]) -> float:
    return sorted(turns)[len(turns) // 2]
