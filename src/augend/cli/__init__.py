"""The command `augend`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import typer

from augend.cli import compare, data, model, recipes, reproduce, sensitivity, train
from augend.contract import AugendError, Saved
from augend.interrupt import leave

__all__ = ["app", "main"]

PATIENCE = 2.0  # seconds for tidying up after Ctrl-C, which libraries may also swallow

app = typer.Typer(
    name="augend",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Can what data augmentation buys be had for less? Compare training procedures on your pictures.",
)
compare.add_to(app)
train.add_to(app)
model.add_to(app)
reproduce.add_to(app)
sensitivity.add_to(app)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _about(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from augend import __version__

        typer.echo(f"augend {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 2, never a traceback."""
    heard = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if not heard:
            late = threading.Timer(PATIENCE, leave, (number,))
            late.daemon = True
            late.start()
        heard = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        app()
    except Saved as saved:
        print(f"augend: {saved}", file=sys.stderr)
        sys.exit(saved.code)
    except BaseException as error:
        # Where the interrupt came in the middle of an import, it may arrive as another error, or be swallowed.
        if heard:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            leave(signal.SIGINT)
        _end(error)


def _end(error: BaseException) -> NoReturn:
    if isinstance(error, AugendError):
        print(f"augend: {error}", file=sys.stderr)
        sys.exit(2)
    if isinstance(error, BrokenPipeError):  # the reader of our output is gone
        sys.exit(0)
    if isinstance(error, OSError):  # a full disk, a folder that may not be written: what was saved stands
        where = f"{error.filename}: " if error.filename else ""
        print(f"augend: {where}{error.strerror or error}; what was finished is kept", file=sys.stderr)
        sys.exit(2)
    raise error
