"""Worker processes that run trials side by side; on a CPU one thread each, so that a device is one core."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from augend.data.rows import resident_limit

__all__ = ["Pool"]


class Pool:
    """Hands trial names to workers and yields their events.

    Workers stand in a session of their own, so a Ctrl-C of the terminal reaches only this process, which then asks them to
    save (`stop`). When this process is killed, their pipes break and they end by themselves; their runs resume.

    Args:
        study: the study's folder.
        workers: processes.
        threads: threads of each.
    """

    def __init__(self, study: Path, workers: int, threads: int = 1) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "AUGEND_MEMORY": str(resident_limit() // workers),  # each holds pictures of its own
        }
        self._events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._workers = [
            subprocess.Popen(
                [sys.executable, "-m", "augend.study.worker", str(study)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
            for _ in range(workers)
        ]
        for number, worker in enumerate(self._workers):
            threading.Thread(target=self._listen, args=(number, worker), daemon=True).start()

    def _listen(self, number: int, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            try:
                self._events.put((number, json.loads(line)))
            except ValueError:
                continue
        self._events.put((number, None))

    def run(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Run trials; yields events as they come, a "lost" event for a trial whose process died."""
        waiting = list(names)
        busy: dict[int, str] = {}
        alive = set(range(len(self._workers)))
        for number in sorted(alive):
            self._give(number, waiting, busy)
        while busy and alive:
            try:
                number, event = self._events.get(timeout=0.5)
            except queue.Empty:
                yield {"trial": "", "kind": "tick"}
                continue
            if event is None:
                alive.discard(number)
                if number in busy:
                    yield {"trial": busy.pop(number), "kind": "lost", "code": self._workers[number].wait()}
                continue
            yield event
            if event["kind"] == "ended":
                busy.pop(number, None)
                self._give(number, waiting, busy)

    def _give(self, number: int, waiting: list[str], busy: dict[int, str]) -> None:
        if not waiting:
            return
        stdin = self._workers[number].stdin
        assert stdin is not None
        name = waiting.pop(0)
        busy[number] = name
        try:
            stdin.write(name + "\n")
            stdin.flush()
        except BrokenPipeError:  # it died; its closing event says so
            pass

    def stop(self, timeout: float = 60.0) -> None:
        """Ask every worker to save and end, and wait for it."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()  # one whose trial ended just before the signal waits for the next name
        for worker in self._workers:
            try:
                worker.wait(timeout)
            except subprocess.TimeoutExpired:
                worker.kill()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        for worker in self._workers:
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
