"""Rows of a frozen network that are found again by what entered it: the pictures as they were shown, whoever showed them.

A study's trials split the same pictures in other ways and show them in other orders; a shelf knows them one by one, so each
passes a frozen network once. Keys are digests of the pixels that enter, which says size, augmentation and draws in one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augend.checkpoint import exclusive
from augend.contract import AugendError
from augend.stages.bank import Kept, chunks, last

__all__ = ["Placed", "Shelf", "prune"]

_ENTERED = "entered"  # the column of digests
_DIGEST = 16


class Placed:
    """Rows of a mapped tensor in another order, read as they are asked for: ``placed[rows]`` is a tensor in memory.

    Args:
        tensor: ``(n, ...)``.
        where: int64 ``(total,)``, the row of `tensor` that each of ours is.
    """

    def __init__(self, tensor: Tensor, where: Tensor) -> None:
        self.tensor, self.where = tensor, where

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows on the device of `rows`."""
        return self.tensor[self.where[rows.cpu()]].to(rows.device)

    def resident(self, device: torch.device | str = "cpu") -> Tensor:
        """All of them in memory."""
        layout = torch.channels_last if last(self.tensor[:1]) else torch.contiguous_format
        out = torch.empty((len(self), *self.tensor.shape[1:]), dtype=self.tensor.dtype, memory_format=layout)
        for begin in range(0, len(self), 4096):
            out[begin : begin + 4096] = self.tensor[self.where[begin : begin + 4096]]
        return out.to(device)


class Shelf:
    """A folder of rows that runs share; use as a context: one process at a time, the others wait and then find more.

    Args:
        path: the shelf's own folder, made when absent.
        key: everything that a row depends on beside the pixels that enter, as JSON values.
        waiting: called every second while another process has it.

    Attributes:
        seconds: what the rows of the last `fill` take to compute, whoever computed them.
        found: how many of them were there.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], waiting: Callable[[], None] = lambda: None) -> None:
        self._kept = Kept(path, key, None, waiting)
        self._places: dict[bytes, int] = {}
        self.seconds, self.found = 0.0, 0

    def __enter__(self) -> Shelf:
        self._kept.__enter__()
        with contextlib.suppress(OSError):  # the one used last is pruned last
            os.utime(self._kept.path)
        if self._kept.done:
            known: Tensor = self._kept.tensors()[_ENTERED]
            self._places = {row.tobytes(): number for number, row in enumerate(known.numpy())}
        return self

    def __exit__(self, *raised: object) -> None:
        self._kept.__exit__(*raised)

    def fill(
        self,
        show: Callable[[Tensor], Tensor],
        compute: Callable[[Tensor], Mapping[str, Tensor]],
        total: int,
        size: int,
        after: Callable[[int], None] | None = None,
    ) -> dict[str, Placed]:
        """Rows ``(total, ...)`` by name; only what is not there yet is computed, in batches of one shape.

        Args:
            show: row numbers ``(size,)`` -> what enters, ``(size, ...)``.
            compute: what enters ``(size, ...)`` -> name -> ``(size, ...)``, each row by itself (no batch statistics).
            after: called with the number of rows done, after each chunk.
        """
        where = torch.zeros(total, dtype=torch.int64)
        begun, known = time.perf_counter(), len(self._places)
        hits = 0
        waiting: Tensor | None = None  # rows that are to be computed, in the shape and layout of a batch
        names: list[bytes] = []
        spent = 0.0

        def flush() -> None:
            nonlocal spent, names
            assert waiting is not None
            start = time.perf_counter()
            values = dict(compute(waiting))
            values[_ENTERED] = torch.from_numpy(
                np.frombuffer(b"".join(names).ljust(size * _DIGEST, b"\0"), np.uint8).copy()
            ).view(size, _DIGEST)
            spent += time.perf_counter() - start
            self._kept.put(values, len(names), spent)
            names, spent = [], 0.0

        with torch.no_grad():
            done = 0
            for rows, real in chunks(total, size):
                start = time.perf_counter()
                entering = show(rows)
                if waiting is None:
                    waiting = torch.empty_like(entering)
                digests = _digests(entering[:real])
                fresh = 0
                for number, digest in enumerate(digests):
                    place = self._places.get(digest)
                    if place is None:
                        fresh += 1
                        place = self._places[digest] = self._kept.done + len(names)
                        waiting[len(names)] = entering[number]
                        names.append(digest)
                        if len(names) == size:
                            spent += (time.perf_counter() - start) * fresh / real
                            flush()
                            start, fresh = time.perf_counter(), 0
                    elif place < known:
                        hits += 1
                    where[done + number] = place
                spent += (time.perf_counter() - start) * fresh / real
                done += real
                if after is not None:
                    after(done)
            if names:
                flush()
        self.found = hits
        self.seconds = total * self._kept.seconds / max(1, self._kept.done)
        self.elapsed = time.perf_counter() - begun
        return {name: Placed(tensor, where) for name, tensor in self._kept.tensors().items() if name != _ENTERED}


def _digests(rows: Tensor) -> list[bytes]:
    """A digest of each row's values, whatever their order in memory."""
    plain = rows.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row.data, digest_size=_DIGEST).digest() for row in plain]


def prune(folder: Path, most: int, keep: Path | None = None) -> None:
    """Delete the shelves used longest ago until `folder` holds at most `most` bytes; `keep` and those in use stay."""

    def busy() -> None:
        raise BlockingIOError

    found = []
    for shelf in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            found.append((shelf.stat().st_mtime, sum(file.stat().st_size for file in shelf.iterdir()), shelf))
    total = sum(size for _, size, _ in found)
    for _, size, shelf in sorted(found):
        if total <= most:
            return
        if shelf == keep:
            continue
        with contextlib.suppress(OSError, AugendError), exclusive(shelf / "lock", busy):
            shutil.rmtree(shelf)
            total -= size
