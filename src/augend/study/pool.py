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

WORKER = "augend.study.worker"


class Pool:
    """Hands trial names to workers and yields their events.

    Workers stand in a session of their own, so a Ctrl-C of the terminal reaches only this process, which then asks them to
    save (`stop`). When this process is killed, their pipes break and they end by themselves; their runs resume. A worker that
    died is replaced when there is something to give it; one that never got ready is not, as the next would not either.

    Args:
        study: the study's folder.
        workers: processes.
        threads: threads of each.
    """

    def __init__(self, study: Path, workers: int, threads: int = 1) -> None:
        self._command = [sys.executable, "-m", WORKER, str(study)]
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "AUGEND_MEMORY": str(resident_limit() // workers),  # each holds pictures of its own
        }
        self._events: queue.Queue[tuple[subprocess.Popen[str], dict[str, Any] | None]] = queue.Queue()
        self._ready: set[subprocess.Popen[str]] = set()
        self._dead: set[subprocess.Popen[str]] = set()  # for good: a pool is asked to run more than once
        self._workers = [self._begin() for _ in range(workers)]

    def _begin(self) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["kind"] == "ready":
                self._ready.add(worker)
            self._events.put((worker, event))
        self._events.put((worker, None))

    def run(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Run trials; yields events as they come, a "lost" event for a trial whose process died.

        A trial that another process is working on is tried once more when all others have ended.
        """
        waiting, later, last = list(names), list[str](), False
        busy: dict[subprocess.Popen[str], str] = {}
        while True:
            self._deal(waiting, busy)
            if not busy and later and not last:
                waiting, later, last = [*waiting, *later], [], True
                self._deal(waiting, busy)
            if not busy:
                break
            try:
                worker, event = self._events.get(timeout=0.5)
            except queue.Empty:
                yield {"trial": "", "kind": "tick"}
                continue
            if event is None:
                self._dead.add(worker)
                if worker in busy:
                    yield {"trial": busy.pop(worker), "kind": "lost", "code": worker.wait()}
                continue
            if event["kind"] != "ended":
                yield event
                continue
            busy.pop(worker, None)
            if event["state"] == "saved":  # asked to, the worker ends with it
                self._dead.add(worker)
            if event["state"] == "busy":
                what = "it is not finished; run the command again" if last else "it is tried again at the end"
                text = f"another process is working on it; {what}"
                yield {"trial": event["trial"], "kind": "note", "text": text}
                if not last:
                    later.append(event["trial"])
                    continue
            yield event
        if waiting:
            text = f"no worker process is left, so these were not run: {', '.join(waiting)}; run the command again"
            yield {"trial": "", "kind": "note", "text": text}

    def _deal(self, waiting: list[str], busy: dict[subprocess.Popen[str], str]) -> None:
        """Give what waits to workers that are free."""
        for number, worker in enumerate(self._workers):
            if not waiting:
                return
            if worker in busy:
                continue
            if worker in self._dead or worker.poll() is not None:
                if worker not in self._ready:
                    continue
                worker = self._workers[number] = self._begin()
            assert worker.stdin is not None
            busy[worker] = waiting.pop(0)
            with contextlib.suppress(BrokenPipeError):  # it died just now; its closing event says so
                worker.stdin.write(busy[worker] + "\n")
                worker.stdin.flush()

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
