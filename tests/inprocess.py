"""The command in this process: what a new one would do, without the seconds that importing torch takes."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from dataclasses import dataclass
from unittest import mock

import torch

from augend import cli


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, **_: object) -> Done:
    """`augend ARGUMENTS`: exit code and what was printed. Workers of studies are processes all the same."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    try:
        with (
            mock.patch.object(sys, "argv", ["augend", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        signal.signal(signal.SIGINT, before)
        torch.set_num_threads(threads)
    return Done(code, out.getvalue(), err.getvalue())
