"""Embeddings of a frozen network that are found again by what entered it: pictures as they were shown, whoever showed them.

A study's trials split the same pictures in other ways and show them in other orders; a shelf knows them one by one, so each
passes a frozen network once. A row's name is a digest of the pixels that enter: they say size, augmentation and draws in one.
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
from augend.stages.bank import CannotKeep, Kept, chunks

__all__ = ["Placed", "Shelf", "prune"]

_ENTERED = "entered"  # the column of digests
_DIGEST = 16


class Placed:
    """Rows of a mapped tensor in another order, read as they are asked for: ``placed[rows]`` is a tensor in memory.

    Args:
        tensor: ``(n, d)``.
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
        return self.tensor[self.where].to(device)


class Shelf:
    """A folder of rows that runs share; use as a context: one process at a time, the others wait and then find more.

    Args:
        path: the shelf's own folder, made when absent; its lock lies beside it, so that deleting it is safe.
        key: everything that a row depends on beside the pixels that enter, as JSON values.
        waiting: called every second while another process has it.
        most: bytes; a shelf that would grow beyond is begun anew.

    Attributes:
        seconds: what the rows of the last `fill` take to compute, whoever computed them.
        found: how many of them were there.
    """

    def __init__(
        self,
        path: Path,
        key: Mapping[str, Any],
        waiting: Callable[[], None] = lambda: None,
        most: int | None = None,
    ) -> None:
        self.path, self.key, self.most, self._waiting = path, key, most, waiting
        self._exit = contextlib.ExitStack()
        self.seconds, self.found = 0.0, 0

    def __enter__(self) -> Shelf:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._exit.enter_context(exclusive(_lock(self.path), self._waiting))
        except OSError as error:
            raise CannotKeep(f"cannot keep embeddings in {self.path} ({error.strerror or error})") from None
        try:
            self._open()
        except BaseException:
            self._exit.close()
            raise
        return self

    def _open(self) -> None:
        self._kept = self._exit.enter_context(Kept(self.path, self.key, None))
        self._places: dict[bytes, int] = {}
        with contextlib.suppress(OSError):  # the one used last is pruned last
            os.utime(self.path)
        if self._kept.done:
            known = self._kept.tensors()[_ENTERED]
            self._places = {row.tobytes(): number for number, row in enumerate(known.numpy())}

    def __exit__(self, *raised: object) -> None:
        self._exit.__exit__(*raised)  # type: ignore[arg-type]

    def _begin_anew(self) -> None:
        """Forget all rows; the lock stays ours."""
        self._kept.discard()
        self._places = {}

    def fill(
        self,
        show: Callable[[Tensor], Tensor],
        compute: Callable[[Tensor], Mapping[str, Tensor]],
        total: int,
        size: int,
        after: Callable[[int], None] | None = None,
        first: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Placed]:
        """Rows ``(total, d)`` by name; only what is not there yet is computed, in batches of one shape.

        Args:
            show: row numbers ``(size,)`` -> what enters, ``(size, ...)``.
            compute: what enters ``(size, ...)`` -> name -> ``(size, d)``, each row by itself (no batch statistics).
            after: called with the number of rows done, after each chunk.
            first: what `compute` gives for rows 0 to ``size - 1``, where that is known: a shelf that holds any of these rows
                with other bits was filled by other code, and is begun anew.
        """
        if first is not None:
            self._check(show(torch.arange(size)), first, size, total)
        where = torch.zeros(total, dtype=torch.int64)
        known, hits, done = len(self._places), 0, 0
        waiting: Tensor | None = None  # rows that are to be computed, in the shape and layout of a batch
        names: list[bytes] = []
        spent = 0.0  # seconds of showing what waits

        def flush() -> None:
            nonlocal spent
            assert waiting is not None
            start = time.perf_counter()
            values = {name: value.cpu() for name, value in compute(waiting).items()}  # waits for a GPU
            taken = time.perf_counter() - start
            values[_ENTERED] = _column(names, size)
            self._kept.put(values, len(names), spent + taken * len(names) / size)  # padding is nobody's
            names.clear()
            spent = 0.0

        with torch.no_grad():
            for rows, real in chunks(total, size):
                start = time.perf_counter()
                entering = show(rows)
                if waiting is None:
                    waiting = torch.empty_like(entering)
                digests = _digests(entering[:real])
                each = (time.perf_counter() - start) / real
                for number, digest in enumerate(digests):
                    place = self._places.get(digest)
                    if place is None:
                        place = self._places[digest] = self._kept.done + len(names)
                        waiting[len(names)] = entering[number]
                        names.append(digest)
                        spent += each
                        if len(names) == size:
                            flush()
                    elif place < known:
                        hits += 1
                    where[done + number] = place
                done += real
                if after is not None:
                    after(done)
            if names:
                flush()
        self.found = hits
        self.seconds = total * self._kept.seconds / max(1, self._kept.done)
        return {name: Placed(tensor, where) for name, tensor in self._kept.tensors().items() if name != _ENTERED}

    def _check(self, entering: Tensor, first: Mapping[str, Tensor], size: int, total: int) -> None:
        row = sum(value[0].numel() * value.element_size() for value in first.values()) + _DIGEST
        if self.most is not None and self._kept.done * row + total * row > self.most:
            self._begin_anew()
        places = [self._places.get(digest) for digest in _digests(entering)]
        held = [(number, place) for number, place in enumerate(places) if place is not None]
        if not held:
            return
        mine, theirs = (torch.tensor(part) for part in zip(*held, strict=True))
        tensors = self._kept.tensors()
        for name, value in first.items():
            if name not in tensors or not torch.equal(value.cpu()[mine], tensors[name][theirs]):
                self._begin_anew()
                return


def _column(names: list[bytes], size: int) -> Tensor:
    """uint8 ``(size, 16)``: digests, and zeros below them."""
    return torch.from_numpy(np.frombuffer(b"".join(names).ljust(size * _DIGEST, b"\0"), np.uint8).copy()).view(
        size, _DIGEST
    )


def _digests(rows: Tensor) -> list[bytes]:
    """A digest of each row's values, whatever their order in memory."""
    plain = rows.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row.data, digest_size=_DIGEST).digest() for row in plain]


def _lock(shelf: Path) -> Path:
    return shelf.parent / f"{shelf.name}.lock"


def prune(folder: Path, most: int) -> None:
    """Delete the shelves used longest ago until `folder` holds at most `most` bytes; those in use stay."""

    def busy() -> None:
        raise BlockingIOError

    found = []
    for shelf in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if shelf.is_dir():
                found.append((shelf.stat().st_mtime, sum(file.stat().st_size for file in shelf.iterdir()), shelf))
    total = sum(size for _, size, _ in found)
    for _, size, shelf in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError), exclusive(_lock(shelf), busy):
            shutil.rmtree(shelf)
            total -= size
