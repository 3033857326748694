"""``augend`` and ``python -m augend``."""

import os
import signal
from types import FrameType

INTERRUPTED = "augend: interrupted; what was finished is kept"


def leave(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while there is nothing to tidy up: say so, and end the process.

    Not by an exception: one that crosses `exec` makes Python end by the signal, whatever the exit code, and in the middle of
    an import others catch it.
    """
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


def main() -> None:
    """The command."""
    signal.signal(signal.SIGINT, leave)
    from augend.cli import main

    main()


if __name__ == "__main__":
    main()
