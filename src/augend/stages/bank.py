"""Banks: what a frozen network makes of every picture, computed once, in memory or in a folder that later runs find.

Rows are computed in chunks of one fixed shape, which makes them bit-equal to recomputing them at that batch shape (the bits
of a convolution depend on the shape of the batch, not on a row's position in it).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from augend.checkpoint import exclusive, write_json
from augend.contract import AugendError

__all__ = ["CannotKeep", "Kept", "Resident", "Store", "chunks", "fill"]

SAVE_SECONDS = 1.0  # how often what was computed is made safe from a kill


class CannotKeep(AugendError):
    """A folder cannot hold what is computed; whoever needs no folder goes on without."""


def chunks(total: int, size: int, begin: int = 0) -> Iterator[tuple[Tensor, int]]:
    """Row numbers of `begin` .. total - 1 in chunks of exactly `size` (the last padded with row 0), and how many are real.

    `begin` is a multiple of `size`, or `total`.
    """
    for first in range(begin, total, size):
        real = min(size, total - first)
        rows = torch.zeros(size, dtype=torch.int64)
        rows[:real] = torch.arange(first, first + real)
        yield rows, real


class Store(Protocol):
    """Where rows go as they are computed."""

    done: int

    def put(self, values: Mapping[str, Tensor], real: int) -> None:
        """Add the first `real` rows of tensors ``(size, ...)``."""

    def tensors(self) -> dict[str, Tensor]:
        """All of them, ``(total, ...)``."""


def fill(
    compute: Callable[[Tensor], Mapping[str, Tensor]],
    total: int,
    size: int,
    after: Callable[[int], None] | None = None,
    store: Store | None = None,
) -> dict[str, Tensor]:
    """Tensors ``(total, ...)`` from a function of row numbers ``(size,)``, computed in chunks of one shape.

    Args:
        compute: row numbers -> name -> ``(size, ...)``.
        after: called with the number of rows done, after each chunk.
        store: where rows go (default: memory); one that has some already goes on with the next.
    """
    store = Resident(total) if store is None else store
    with torch.no_grad():
        for rows, real in chunks(total, size, store.done):
            store.put(compute(rows), real)
            if after is not None:
                after(store.done)
    return store.tensors()


def _last(value: Tensor) -> bool:
    """Whether channels lie last in memory: the layers above give other bits, and take longer, in another order."""
    return value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()


class Resident:
    """Rows in memory, on the device they were computed on."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._banks: dict[str, Tensor] = {}

    def put(self, values: Mapping[str, Tensor], real: int) -> None:
        """Add the first `real` rows of tensors ``(size, ...)``."""
        for name, value in values.items():
            if name not in self._banks:
                self._banks[name] = torch.empty(
                    (self.total, *value.shape[1:]),
                    dtype=value.dtype,
                    device=value.device,
                    memory_format=torch.channels_last if _last(value) else torch.contiguous_format,
                )
            self._banks[name][self.done : self.done + real] = value[:real]
        self.done += real

    def tensors(self) -> dict[str, Tensor]:
        """All of them, ``(total, ...)``."""
        return self._banks


class Kept:
    """Rows in a folder, found again by whoever asks for the same; a killed process loses a second of work.

    ``state.json`` says which rows are there and what they took; ``0.rows`` and so on hold them, a file a tensor, in the order
    of their memory. Rows are flushed to the disk before ``state.json`` speaks of them. Use as a context: one process
    computes at a time, the others wait and then find everything.

    Args:
        path: the bank's own folder, made when absent.
        key: everything that the rows depend on, as JSON values; a bank of another key is an error, never taken.
        total: rows in all; None: as many as are put, whoever comes.
        waiting: called every second while another process computes them.

    Attributes:
        done: rows that are there.
        seconds: what they took, whoever computed them.
        found: rows that were there from the start.
    """

    def __init__(
        self, path: Path, key: Mapping[str, Any], total: int | None, waiting: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self.key, self.total, self._waiting = path, json.loads(json.dumps(key)), total, waiting
        self.done = self.found = 0
        self.seconds = 0.0
        self._about: dict[str, dict[str, Any]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._saved = self._last_put = 0.0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Kept:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._exit.enter_context(exclusive(self.path / "lock", self._waiting))
            self._read()
        except OSError as error:
            raise self._refused(error) from None
        self._saved = self._last_put = time.monotonic()
        return self

    def __exit__(self, *raised: object) -> None:
        with contextlib.suppress(OSError):  # an error is on its way already, or everything was saved
            self._save()
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._exit.close()

    def _refused(self, error: OSError) -> CannotKeep:
        return CannotKeep(
            f"cannot keep what a frozen network gives in {self.path} ({error.strerror or error}); make room there or take "
            "another folder (AUGEND_CACHE); what is computed is kept"
        )

    def _read(self) -> None:
        """Take up what is there, if it is this bank, whole and undamaged as far as it goes."""
        try:
            state = json.loads((self.path / "state.json").read_bytes())
            key, about, done, seconds = state["key"], state["tensors"], int(state["done"]), float(state["seconds"])
            sizes = {name: (self.path / one["file"]).stat().st_size for name, one in about.items()}
            whole = all(sizes[name] >= done * int(one["bytes"]) for name, one in about.items())
        except (OSError, ValueError, KeyError, TypeError):
            return  # none, or one that was damaged: it is computed anew
        changed = [name for name in self.key if key.get(name) != self.key[name]]
        if changed or state.get("total") != self.total:
            raise AugendError(
                f"{self.path}: this cache was made with other {', '.join(changed) or 'rows'}; delete it or give another path"
            )
        if not whole or not 0 <= done <= (done if self.total is None else self.total):
            return
        self._about, self.done, self.found, self.seconds = about, done, done, seconds

    def _open(self, values: Mapping[str, Tensor]) -> None:
        """Files to append to, what a kill left behind the last row that counts cut off."""
        if not self._about:
            for number, (name, value) in enumerate(values.items()):
                self._about[name] = {
                    "file": f"{number}.rows",
                    "shape": list(value.shape[1:]),
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "channels_last": _last(value),
                    "bytes": math.prod(value.shape[1:]) * value.element_size(),
                }
            needed = (self.total or 0) * sum(one["bytes"] for one in self._about.values())
            if needed > (free := shutil.disk_usage(self.path).free):
                raise CannotKeep(
                    f"what the frozen network gives needs {needed / 1e9:.2g} GB in {self.path}, where"
                    f" {free / 1e9:.2g} GB are free; take a folder on another disk (AUGEND_CACHE)"
                )
        for name, one in self._about.items():
            if not self.done:
                (self.path / one["file"]).unlink(missing_ok=True)  # others may still read what lay there
            file = (self.path / one["file"]).open("r+b" if self.done else "wb")
            file.truncate(self.done * one["bytes"])
            file.seek(0, os.SEEK_END)
            self._files[name] = file

    def put(self, values: Mapping[str, Tensor], real: int, seconds: float | None = None) -> None:
        """Add the first `real` rows of tensors ``(size, ...)``, and what they took: the time since the last, where unsaid."""
        try:
            if not self._files:
                self._open(values)
            for name, value in values.items():
                one = self._about[name]
                if list(value.shape[1:]) != one["shape"] or str(value.dtype) != f"torch.{one['dtype']}":
                    raise AugendError(
                        f"{self.path}: holds rows of {name!r} {one['shape']} {one['dtype']}, not {list(value.shape[1:])} "
                        f"{value.dtype}; delete it"
                    )
            for name, value in values.items():
                rows = value[:real].detach().cpu()
                rows = rows.permute(0, 2, 3, 1) if self._about[name]["channels_last"] else rows
                self._files[name].write(rows.contiguous().flatten().view(torch.uint8).numpy().data)
            self.done += real
            now = time.monotonic()
            self.seconds += now - self._last_put if seconds is None else seconds
            self._last_put = now
            if now - self._saved >= SAVE_SECONDS or self.done == self.total:
                self._save()
        except OSError as error:
            raise self._refused(error) from None

    def discard(self) -> None:
        """Forget all rows, to begin with others."""
        for file in self._files.values():
            file.close()
        self._about, self._files, self.done, self.found, self.seconds = {}, {}, 0, 0, 0.0
        with contextlib.suppress(OSError):
            (self.path / "state.json").unlink()

    def _save(self) -> None:
        if not self._files:
            return
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        state = {
            "key": self.key,
            "done": self.done,
            "total": self.total,
            "seconds": self.seconds,
            "tensors": self._about,
        }
        write_json(self.path / "state.json", state)
        self._saved = time.monotonic()

    def tensors(self) -> dict[str, Tensor]:
        """All of them, ``(total, ...)``, mapped: rows come into memory as they are read, and may be written to in memory."""
        try:
            self._save()
        except OSError as error:
            raise self._refused(error) from None
        found = {}
        for name, one in self._about.items():
            count = self.done * math.prod(one["shape"])
            dtype: torch.dtype = getattr(torch, one["dtype"])
            flat = torch.from_file(str(self.path / one["file"]), shared=False, size=count, dtype=dtype)
            if one["channels_last"]:
                channels, height, width = one["shape"]
                found[name] = flat.view(self.done, height, width, channels).permute(0, 3, 1, 2)
            else:
                found[name] = flat.view(self.done, *one["shape"])
        return found
