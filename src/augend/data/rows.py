"""Pictures that stay in a file: rows of uint8, read when a step asks for them.

A set that is larger than the memory meant for it is a `StoredPixels` where a small one is a tensor: the shape, slicing
and `index_select` are a tensor's, and each answer is a small tensor. Rows are read at their place in the file instead
of through a mapping: random reads then fetch just these rows, the process never seems to hold the whole file, and a
file that is cut short is an error instead of a crash.
"""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from augend.contract import AugendError

__all__ = ["MEMORY_SHARE", "RowFile", "StoredPixels", "centred", "chunk_of", "resident_limit", "resized_pixels"]

#: Decoded pictures that need more than this share of the physical memory stay in their file.
MEMORY_SHARE = 0.25

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_CHUNK = 1 << 22  # bytes of pictures converted at once: bounds what statistics need beside the pictures themselves


def physical_memory() -> int:
    """Bytes of memory this process may use: the machine's, or what its control group allows where that is less."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 * 10**9
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            most = min(most, int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return most


def resident_limit() -> int:
    """Bytes of decoded pictures that are kept in memory: ``AUGEND_MEMORY`` (as 500MB or 4GB), or a quarter of it all."""
    text = os.environ.get("AUGEND_MEMORY", "").strip()
    if not text:
        return int(MEMORY_SHARE * physical_memory())
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text, re.IGNORECASE)
    if match is None:
        raise AugendError(f"AUGEND_MEMORY is {text!r}; give a number of bytes, as 500MB or 4GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def chunk_of(shape: Sequence[int]) -> int:
    """How many pictures of a shape ``(C, H, W)`` are converted at once."""
    return max(1, min(1024, _CHUNK // max(1, math.prod(shape))))


def resized_pixels(pixels: Tensor, target: tuple[int, int]) -> Tensor:
    """uint8 ``(N, C, H, W)`` at another size: bilinear, antialiased if smaller, rounded."""
    parts = [
        functional.interpolate(part.float(), size=target, mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in torch.split(pixels, chunk_of(pixels.shape[1:]))
    ]
    return torch.cat([pixels.new_empty(0, pixels.shape[1], *target), *parts])


def centred(pixels: Any, size: tuple[int, int]) -> Any:
    """The middle ``size`` of pictures ``(..., H, W)``, without copying; of `StoredPixels`, when they are read."""
    if isinstance(pixels, StoredPixels):
        return pixels.centred(size)
    top, left = ((have - wanted) // 2 for have, wanted in zip(pixels.shape[-2:], size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]


class RowFile:
    """A file of equal rows of bytes, open for reading; the file may be removed meanwhile, but not be cut short.

    Args:
        path: the file.
        width: bytes of a row.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._turn = threading.Lock()
        weakref.finalize(self, os.close, self._handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFile, (self.path, self.width)

    def read(self, rows: Tensor, length: int | None = None, *, pinned: bool = False) -> Tensor:
        """uint8 ``(n, length)``: the first `length` bytes (all) of each row of `rows`, int64 ``(n,)`` on the CPU."""
        length = self.width if length is None else length
        out = torch.empty(len(rows), length, dtype=torch.uint8, pin_memory=pinned)
        view = memoryview(out.numpy().reshape(-1).data)
        numbers = rows.numpy()
        # Rows that follow one another in the file are read at once.
        apart = np.diff(numbers, prepend=-2) != 1 if length == self.width else np.ones(len(numbers), bool)
        starts = np.flatnonzero(apart)
        ends = np.append(starts[1:], len(numbers))[: len(starts)]
        for start, end, row in zip(starts.tolist(), ends.tolist(), numbers[starts].tolist(), strict=True):
            self._fill(view[start * length : end * length], row * self.width)
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        while view.nbytes:
            if hasattr(os, "preadv"):
                got = os.preadv(self._handle, [view], offset)
            else:
                with self._turn:
                    os.lseek(self._handle, offset, os.SEEK_SET)
                    part = os.read(self._handle, view.nbytes)
                got = len(part)
                view[:got] = part
            if not got:
                raise AugendError(f"{self.path} was cut short while it was read; remove it and begin again")
            view, offset = view[got:], offset + got


class StoredPixels:
    """Pictures of a `RowFile`, uint8 ``(N, C, H, W)``, read when asked for.

    Args:
        file: holds a picture a row, channels first.
        rows: int64 ``(N,)``: the row of each picture.
        side: pictures in the file are squares of this side.
        channels: how many channels are taken (1: the first of three equal ones).
        device: where answers are put; the file stays where it is.
        sizes: ``(H, W)`` that pictures are brought to when they are read, one after the other.
        cut: ``(H, W)`` of the middle that is kept in the end; None: all.

    Example:
        >>> file = getfixture("tmp_path") / "rows"
        >>> _ = file.write_bytes(bytes(range(48)))
        >>> pixels = StoredPixels(RowFile(file, 12), torch.tensor([3, 1]), side=2, channels=3)
        >>> tuple(pixels.shape), pixels[1:].flatten().tolist()[:3], len(pixels.take([0]))
        ((2, 3, 2, 2), [12, 13, 14], 1)
    """

    dtype = torch.uint8

    def __init__(
        self,
        file: RowFile,
        rows: Tensor,
        side: int,
        channels: int,
        device: torch.device | str = "cpu",
        sizes: tuple[tuple[int, int], ...] = (),
        cut: tuple[int, int] | None = None,
    ) -> None:
        self.file, self.rows, self.side, self.channels = file, rows, side, channels
        self.device, self.sizes, self.cut = torch.device(device), sizes, cut

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """``(N, C, H, W)``."""
        whole = (self.sizes or ((self.side, self.side),))[-1]
        return torch.Size((len(self.rows), self.channels, *(self.cut or whole)))

    def dim(self) -> int:
        """4."""
        return 4

    def numel(self) -> int:
        """Bytes of all pictures, were they in memory."""
        return self.shape.numel()

    def _new(self, **changes: Any) -> StoredPixels:
        kept = {name: getattr(self, name) for name in ("file", "rows", "side", "channels", "device", "sizes", "cut")}
        return StoredPixels(**{**kept, **changes})

    def take(self, index: Tensor | Sequence[int]) -> StoredPixels:
        """Some of the pictures, still in the file."""
        return self._new(rows=self.rows.index_select(0, torch.as_tensor(index, dtype=torch.int64).cpu()))

    def joined(self, other: StoredPixels) -> StoredPixels:
        """These pictures and then others of the same file."""
        assert self.file is other.file and self.shape[1:] == other.shape[1:]
        return self._new(rows=torch.cat([self.rows, other.rows]))

    def to(self, device: torch.device | str) -> StoredPixels:
        """The same pictures, answered on a device."""
        return self._new(device=torch.device(device))

    def cpu(self) -> StoredPixels:
        """The same pictures, answered on the CPU."""
        return self.to("cpu")

    def resized(self, target: tuple[int, int]) -> StoredPixels:
        """The same pictures, brought to another size each time they are read."""
        assert self.cut is None, "pictures are resized whole, then cut"
        return self._new(sizes=(*self.sizes, target))

    def centred(self, size: tuple[int, int]) -> StoredPixels:
        """The middle of the same pictures."""
        return self._new(cut=size)

    def __getitem__(self, where: int | slice | Sequence[int] | Tensor) -> Tensor:
        rows = self.rows[where]
        return self._read(rows[None])[0] if rows.dim() == 0 else self._read(rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """uint8 ``(n, C, H, W)`` of the pictures `index`, as `torch.Tensor.index_select` with `dim` 0."""
        assert dim == 0
        return self._read(self.rows.index_select(0, index.cpu()))

    def _read(self, rows: Tensor) -> Tensor:
        cuda = self.device.type == "cuda"
        flat = self.file.read(rows, self.channels * self.side * self.side, pinned=cuda)
        pixels = flat.view(len(rows), self.channels, self.side, self.side).to(self.device, non_blocking=cuda)
        for size in self.sizes:
            pixels = resized_pixels(pixels, size)
        return pixels if self.cut is None else centred(pixels, self.cut).contiguous()
