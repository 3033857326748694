"""A run is a folder: what was asked, what was resolved, what happened, what came out. Every file is written atomically."""

from __future__ import annotations

import errno
import json
import os
import shlex
import time
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from augend.checkpoint import Checkpoints, write_bytes, write_json
from augend.contract import AugendError

__all__ = ["Busy", "RunFolder"]


class Busy(AugendError):
    """Another process is working in a folder."""


class RunFolder:
    """Files of a run.

    ``recipe.yaml`` and ``plan.json`` as resolved, ``run.json`` (data, seed, hardware: all that resuming needs),
    ``environment.json``, ``metrics.jsonl``, ``ledger.json``, ``checkpoints/``, and at the end ``model.safetensors``,
    ``predictions.npz`` and ``result.json``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._metrics: IO[bytes] | None = None
        self._lock: IO[str] | None = None
        self._new = False  # whether `create` made it

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    @property
    def done(self) -> bool:
        """Whether the run has ended: its result is written last."""
        return (self.path / "result.json").is_file()

    def check(self, option: str = "--out") -> None:
        """Refuse a place where no folder can be made, before minutes go into what it is for; nothing is made."""
        above = next((one for one in (self.path, *self.path.absolute().parents) if one.exists()), self.path)
        if not above.is_dir():
            raise self._refusal(os.strerror(errno.ENOTDIR), option)
        if not os.access(above, os.W_OK | os.X_OK):
            raise self._refusal(os.strerror(errno.EACCES), option)

    def _refusal(self, why: str | None, option: str = "--out") -> AugendError:
        return AugendError(f"{self.path}: the folder cannot be made ({why}); give another {option}")

    def create(self) -> None:
        """Make the folder."""
        self._new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refusal(error.strerror) from error

    def lock(self, wait: float = 0.0) -> None:
        """Let no second process train in this folder; the lock goes with the process, however that ends.

        Args:
            wait: seconds to wait for a process that is about to end.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such lock; two processes in one folder are then the user's care
            return
        self._lock = (self.path / ".lock").open("w")
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() > until:
                    self._lock.close()
                    self._lock = None  # so that `unlock` takes nothing from who has it
                    raise Busy(
                        f"{self.path}: another process is working on this run; wait for it or stop it"
                    ) from error
                time.sleep(0.1)

    def unlock(self) -> None:
        """Let go of the folder; one that was made for a run that was then refused goes."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if self._new and [file.name for file in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()
                self.path.rmdir()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path / "checkpoints")

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file (or text, when `value` is a str)."""
        if isinstance(value, str):
            write_bytes(self.path / name, value.encode())
        else:
            write_json(self.path / name, value)

    def read(self, name: str) -> Any:
        """A JSON file of the run."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise AugendError(f"{self.path}: no run of augend ({name} is missing)") from error
        except ValueError as error:
            raise AugendError(f"{self.path / name}: damaged ({error})") from error

    @property
    def quoted(self) -> str:
        """The folder as a command names it."""
        return shlex.quote(str(self.path))

    def about(self) -> dict[str, Any]:
        """What ``run.json`` says: the ``job``, the ``hardware``, and a record of the ``data``."""
        found = self.read("run.json")
        if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("job", "data")):
            raise AugendError(f"{self.path / 'run.json'}: damaged (it holds no job with its data)")
        return found

    def open_metrics(self, length: int) -> None:
        """Open ``metrics.jsonl`` to append after `length` bytes: lines past the checkpoint are taken back."""
        path = self.path / "metrics.jsonl"
        path.touch()
        os.truncate(path, min(length, path.stat().st_size))
        self._metrics = path.open("ab")

    def line(self, values: dict[str, Any]) -> None:
        """Append one line of metrics."""
        assert self._metrics is not None
        self._metrics.write((json.dumps(values) + "\n").encode())

    def metrics_length(self) -> int:
        """Bytes of metrics so far, safely on the disk."""
        assert self._metrics is not None
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()
