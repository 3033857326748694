"""A run that is asked to stop does so at the next step, when everything is saved."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stop"]


class Stop:
    """Ctrl-C, SIGTERM and SIGUSR1 ask a run to stop; a second Ctrl-C stops at once.

    Attributes:
        asked: the signal's number, None while nobody has asked.
    """

    def __init__(self) -> None:
        self.asked: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals in this block; whoever heard them before hears them again afterwards."""

        def heard(number: int, frame: FrameType | None) -> None:
            if self.asked is not None and number == signal.SIGINT:
                earlier = before.get(number)
                if callable(earlier):
                    earlier(number, frame)
                raise KeyboardInterrupt
            self.asked = number

        wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
        before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: whoever started it handles signals
            before = {number: signal.signal(number, heard) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
