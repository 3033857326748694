"""``augend`` and ``python -m augend``."""

import signal


def main() -> None:
    """The command; until there is something to keep, Ctrl-C simply ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from augend.cli import main

    main()


if __name__ == "__main__":
    main()
