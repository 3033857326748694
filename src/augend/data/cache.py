"""Squares of picture files, decoded once and kept on the disk.

An entry belongs to one folder, size and fit. It is ``rows.u8``, a decoded picture a row, ``greys.u8``, the grey version of
the same pictures, and ``index.jsonl``, a line a file: its name, size and time, and its row or why it cannot be read. All
three are only ever appended to, and a line is written after its row is on the disk. So a killed process loses a second of
work at most, a changed file costs one file, readers need no lock, and writers take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from augend.checkpoint import exclusive, write_bytes
from augend.contract import AugendError
from augend.data.decode import GREYS, HEIC, Fit, Seen, heic, look, reason
from augend.data.rows import RowFile, StoredPixels

__all__ = ["Decoded", "Progress", "decoded"]

#: Called with (files done, files in all).
Progress = Callable[[int, int], None]

SAVE_SECONDS = 1.0  # how often what was decoded is made safe from a kill

_VERSION = 3  # of what `look` makes of a file; a higher one leaves old entries unread
_TASK_FILES, _TASK_BYTES = 32, 4 << 20  # what a thread takes at once

_Result = tuple[Seen | Exception, float]  # of a file: what was seen or what was wrong, and the seconds it took


@dataclass(frozen=True)
class Decoded:
    """What became of a list of files.

    Attributes:
        pixels: the pictures that can be read, still in their file; one channel when every picture is grey, else three.
        index: int64 ``(n,)``, which of the given files each of them is.
        unreadable: file -> why it could not be read.
        digests: for each picture 32 hexadecimal digits over its pixels, equal for equal pictures.
        taken: when each was taken, in seconds, or None.
        sizes: int64 ``(n, 2)``, width and height of each in its file.
        seconds: float64 ``(n,)``, what decoding each took on one thread, whenever that was.
        entry: the folder of the cache's entry.
    """

    pixels: StoredPixels
    index: NDArray[np.int64]
    unreadable: dict[str, str]
    digests: list[str]
    taken: list[int | None]
    sizes: NDArray[np.int64]
    seconds: NDArray[np.float64]
    entry: Path

    def greys(self) -> NDArray[np.uint8]:
        """uint8 ``(n, 32, 32)``: the whole pictures in grey."""
        read = RowFile(self.entry / "greys.u8", GREYS * GREYS).read(self.pixels.rows)
        return read.numpy().reshape(-1, GREYS, GREYS)


def _stamp(folder: Path, name: str, with_heic: bool) -> list[Any] | None:
    """What must be the same for a decoded file to be taken as it is; None where there is no such file."""
    try:
        stat = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - a fifth of what a Path costs
    except OSError:
        return None  # a dangling link: it will be among the unreadable
    # A file that could not be read for want of a package is tried again once the package is there.
    return [name, stat.st_size, stat.st_mtime_ns, *([with_heic] if name.lower().endswith(HEIC) else [])]


class Entry:
    """The three files of an entry."""

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.side = path, side
        self.width = 3 * side * side

    def _rows(self) -> int:
        """How many whole rows there are."""
        files = (("rows.u8", self.width), ("greys.u8", GREYS**2))
        return min((self.path / name).stat().st_size // width for name, width in files)

    def _lines(self) -> list[bytes]:
        return (self.path / "index.jsonl").read_bytes().split(b"\n")

    def known(self) -> dict[str, dict[str, Any]]:
        """The newest line of every file; a line that is cut short or whose row is not there does not count."""
        try:
            rows, lines = (
                self._rows(),
                self._lines(),
            )  # in this order: a writer adds the row first and the line after it
        except OSError:
            return {}
        found: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                read = json.loads(line)
                if read["row"] < rows:
                    found[read["stamp"][0]] = read
            except (ValueError, KeyError, TypeError, IndexError):
                continue
        return found

    def mend(self) -> None:
        """Take away lines that do not count, which only damage or a kill leaves: a new row must not bring them back."""
        try:
            lines = self._lines()
        except OSError:
            return
        known = self.known().values()
        good = {json.dumps(line).encode() for line in known}
        if any(line and line not in good for line in lines) or lines[-1]:
            write_bytes(self.path / "index.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in known))


class _Writer:
    """Appends to an entry that is locked."""

    def __init__(self, entry: Entry) -> None:
        entry.mend()
        self.rows, self.greys, self.index = (
            (entry.path / name).open("ab") for name in ("rows.u8", "greys.u8", "index.jsonl")
        )
        # What a kill left behind the last line is passed over, never overwritten: somebody may be reading it.
        self.row = max(-(-self.rows.tell() // entry.width), -(-self.greys.tell() // GREYS**2))
        for handle, width in ((self.rows, entry.width), (self.greys, GREYS**2)):
            handle.truncate(self.row * width)
            handle.seek(0, os.SEEK_END)
        self.lines: list[bytes] = []
        self.saved = time.monotonic()

    def add(self, stamp: list[Any], seen: Seen, seconds: float) -> None:
        """A file that was decoded, and how long that took."""
        self.rows.write(seen.pixels.data)
        self.greys.write(np.ascontiguousarray(seen.greys).data)
        digest = hashlib.blake2b(seen.pixels.data, digest_size=16)
        digest.update(np.ascontiguousarray(seen.greys).data)
        self._line(
            {
                "stamp": stamp,
                "row": self.row,
                "grey": seen.grey,
                "size": [seen.width, seen.height],
                "taken": seen.taken,
                "seconds": round(seconds, 6),
                "digest": digest.hexdigest(),
            }
        )
        self.row += 1

    def refuse(self, stamp: list[Any], why: str) -> None:
        """A file that cannot be read."""
        self._line({"stamp": stamp, "row": -1, "why": why})

    def _line(self, values: Mapping[str, Any]) -> None:
        self.lines.append(json.dumps(values).encode())

    def save(self, *, now: bool = False) -> None:
        """Make what was added safe, every second or so: first the rows, then the lines that speak of them."""
        if not self.lines or not (now or time.monotonic() - self.saved >= SAVE_SECONDS):
            return
        for handle in (self.rows, self.greys):
            _synced(handle)
        self.index.write(b"".join(line + b"\n" for line in self.lines))
        _synced(self.index)
        self.lines, self.saved = [], time.monotonic()

    def close(self) -> None:
        """Close, saving what can be saved: where it cannot, an error is on its way already."""
        with contextlib.suppress(OSError):
            self.save(now=True)
        for handle in (self.rows, self.greys, self.index):
            with contextlib.suppress(OSError):
                handle.close()


def _synced(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _threads() -> int:
    """Pillow decodes without the interpreter's lock, so threads use all processors this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(allowed or 1, 16)


def _decode(
    entry: Entry, folder: Path, stamps: Sequence[list[Any]], fit: Fit, tell: Callable[[int], None]
) -> dict[str, str]:
    """Decode files and append them; returns those that could not be opened now but may be another time."""
    passing: dict[str, str] = {}
    task_files = max(1, min(_TASK_FILES, _TASK_BYTES // entry.width))

    def task(part: Sequence[list[Any]]) -> list[_Result]:
        result: list[_Result] = []
        for name, *_ in part:
            begun = time.perf_counter()
            try:
                result.append((look(folder / name, entry.side, fit), time.perf_counter() - begun))
            except Exception as error:  # Pillow's plug-ins raise anything, SyntaxError and struct.error among it
                result.append((error, 0.0))
        return result

    parts = [stamps[begin : begin + task_files] for begin in range(0, len(stamps), task_files)]
    waiting: deque[tuple[Sequence[list[Any]], Future[list[_Result]]]] = deque()
    writer, done = _Writer(entry), 0
    pool = ThreadPoolExecutor(_threads())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # large pictures, odd metadata: no business of the user's while they can be read
            for part in [*parts, *([None] * len(parts))]:
                if part is not None:
                    waiting.append((part, pool.submit(task, part)))
                if not waiting or (part is not None and len(waiting) < 2 * _threads()):
                    continue
                finished, future = waiting.popleft()
                for stamp, (seen, seconds) in zip(finished, future.result(), strict=True):
                    if isinstance(seen, Seen):
                        writer.add(stamp, seen, seconds)
                    elif isinstance(seen, OSError) and seen.errno is not None:
                        passing[stamp[0]] = reason(seen)  # a right that is missing, a disk that fails
                    else:
                        writer.refuse(stamp, reason(seen))
                writer.save()
                done += len(finished)
                tell(done)
        writer.save(now=True)
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
    return passing


def check_room(cache: Path, needed: int) -> None:
    """That `needed` bytes have room on the cache's disk: said at once, not after an hour of decoding."""
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise AugendError(
            f"the decoded pictures need {needed / 1e9:.2g} GB in {cache}, where {free / 1e9:.2g} GB are free; set"
            " AUGEND_CACHE to a folder on another disk, or take a smaller size"
        )


def decoded(
    folder: str | Path,
    files: Sequence[str],
    size: int,
    cache: str | Path,
    progress: Progress | None = None,
    *,
    fit: Fit = "crop",
) -> Decoded:
    """Squares of all files that can be read, from the cache, or decoded now and put there.

    Args:
        folder: what the names are relative to.
        files: names of files, "/" between their parts.
        size: side of the squares in pixels.
        cache: the folder that entries are kept in; made when absent. Nothing is ever removed; delete it freely.
        progress: called while decoding, not when the cache has it all.
        fit: how a picture becomes a square.

    Raises:
        AugendError: the cache cannot be written, or the disk is full; what was decoded until then is kept.
    """
    import PIL

    folder, cache, with_heic = Path(folder), Path(cache), heic()
    key = json.dumps([_VERSION, PIL.__version__, size, fit, str(folder.resolve())])
    entry = Entry(cache / hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=12).hexdigest(), size)
    stamps = {name: _stamp(folder, name, with_heic) for name in files}
    failed = {name: "there is no such file" for name, stamp in stamps.items() if stamp is None}
    present = [stamp for stamp in stamps.values() if stamp is not None]

    known = entry.known()

    def missing() -> list[list[Any]]:
        return [stamp for stamp in present if known.get(stamp[0], {}).get("stamp") != stamp]

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(files))

    def waiting() -> None:
        nonlocal known
        known = entry.known()  # another process is decoding them
        tell(len(files) - len(missing()))

    if missing():
        try:
            entry.path.mkdir(parents=True, exist_ok=True)
            with exclusive(entry.path / "lock", waiting):
                known = entry.known()
                todo = missing()
                have = len(files) - len(todo)
                if todo:
                    check_room(entry.path, len(todo) * (entry.width + GREYS**2))
                    failed |= _decode(entry, folder, todo, fit, lambda done: tell(have + done))
                    known = entry.known()
        except OSError as error:
            why = error.strerror or str(error)
            raise AugendError(
                f"cannot keep pictures in {cache} ({why}); make room there or set AUGEND_CACHE to another folder; what is"
                " decoded is kept"
            ) from None
    lines = {name: known[name] for name in files if name not in failed and name in known}
    if len(lines) + len(failed) < len(stamps):
        raise AugendError(f"the decoded pictures in {cache} cannot be read back; set AUGEND_CACHE to another folder")
    unreadable = {name: failed.get(name) or lines[name].get("why") for name in files}
    good = [(i, lines[name]) for i, name in enumerate(files) if unreadable[name] is None]
    rows = torch.tensor([line["row"] for _, line in good], dtype=torch.int64)
    channels = 1 if good and all(line["grey"] for _, line in good) else 3
    file = RowFile(entry.path / "rows.u8" if good else Path(os.devnull), entry.width)
    return Decoded(
        StoredPixels(file, rows, size, channels),
        np.array([i for i, _ in good], np.int64),
        {name: why for name, why in unreadable.items() if why is not None},
        [line["digest"] for _, line in good],
        [line["taken"] for _, line in good],
        np.array([line["size"] for _, line in good], np.int64).reshape(-1, 2),
        np.array([line["seconds"] for _, line in good], np.float64),
        entry.path,
    )
