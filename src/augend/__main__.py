"""``augend`` and ``python -m augend``."""

import signal

from augend.interrupt import leave


def main() -> None:
    """The command; until its own modules are there, Ctrl-C simply ends the process."""
    signal.signal(signal.SIGINT, leave)
    from augend.cli import main

    main()


if __name__ == "__main__":
    main()
