"""How a command ends when Ctrl-C comes and there is nothing to save."""

import os
from types import FrameType

__all__ = ["leave"]


def leave(number: int, frame: FrameType | None = None) -> None:
    """Say so, and end the process with 128 and the signal's number.

    Not by an exception: one that crosses `exec` makes Python end by the signal, whatever the exit code, and in the middle of
    an import others catch it.
    """
    os.write(2, b"augend: interrupted; what was finished is kept\n")
    os._exit(128 + number)
