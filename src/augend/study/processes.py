"""Pieces of one long run in processes of their own, side by side. A piece comes to the same bits wherever it is done, as
long as all processes have equally many threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from augend.contract import AugendError
from augend.runner.hardware import keep_pages

__all__ = ["WORTH", "side_by_side"]

WORTH = 20.0  # seconds of work that are worth processes of their own, which take a few to begin
Task = TypeVar("Task")
Said = TypeVar("Said")


def side_by_side(
    work: Callable[[Task], Iterable[Said]], tasks: Iterable[Task], out: Path, *, workers: int, threads: int
) -> Iterator[Said]:
    """Each worker is given a task, and the next one when it is done; whatever one says comes out here, in time's order.

    Args:
        work: what a worker does with a task; pickled once, so it may keep something from task to task.
        tasks: taken one by one as workers are free for them.
        out: the run's folder, for the message when a worker dies.
        threads: of each process.
    """
    context, left = multiprocessing.get_context("spawn"), iter(tasks)
    busy: dict[Any, Any] = {}  # this side of a worker's pipe -> its process
    try:
        for _, task in zip(range(workers), left, strict=False):
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(work, threads, theirs), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends when the worker does
            busy[mine] = process
            mine.send(task)
        while busy:
            ready: list[Any] = multiprocessing.connection.wait(list(busy))
            for pipe in ready:
                said = pipe.recv()
                if said is not None:
                    yield said[0]
                    continue
                try:
                    pipe.send(next(left))
                except StopIteration:
                    pipe.close()  # and the worker ends
                    busy.pop(pipe).join()
    except (EOFError, ConnectionError):
        raise AugendError(
            f"{out}: a process that tried a start has died (out of memory?); the starts that are done are kept, "
            "repeat the command to go on"
        ) from None
    finally:
        for process in busy.values():
            process.terminate()
            process.join()


def _work(work: Callable[[Any], Iterable[Any]], threads: int, pipe: Any) -> None:
    """A worker's life: tasks come by its pipe; what is said of them goes back, and None as each is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    torch.set_num_threads(threads)
    keep_pages()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            for said in work(pipe.recv()):
                pipe.send((said,))
            pipe.send(None)
