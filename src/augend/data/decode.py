"""Picture files to squares of uint8, decoded once and kept in the cache.

The cache is one ``.npy``, memory-mapped when read, and one ``.json`` beside it, written last: where the json is, the
entry is whole. Its name is a digest of the paths, sizes and times of all files and of the settings, so a changed
folder is decoded anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from augend.contract import AugendError

__all__ = ["Decoded", "Progress", "decode_file", "decoded", "eight_bits", "unreadable_note"]

#: Called with (files done, files in all).
Progress = Callable[[int, int], None]

_VERSION = 1  # of what `square` makes of a file; a higher one leaves old cache entries unread
_TASK = 32  # files a thread takes at once
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}


@dataclass(frozen=True)
class Decoded:
    """What became of a list of files.

    Attributes:
        pixels: uint8 ``(n, C, size, size)``, memory-mapped; C is 1 when every picture is grey, else 3.
        index: int64 ``(n,)``, which of the given files each row is.
        unreadable: file -> why it could not be read.
    """

    pixels: NDArray[np.uint8]
    index: NDArray[np.int64]
    unreadable: dict[str, str]


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture as 8-bit L or RGB: 16 bits scaled, transparent parts white. ValueError for floating-point numbers."""
    if image.mode == "F":
        raise ValueError("pictures of floating-point numbers have no known range")
    if image.mode.startswith("I"):
        # Pillow's own conversion would clip 16 bits to 255, which turns all but the darkest pictures white.
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}
    if transparent:
        grey = image.mode in {"1", "L", "LA", "La"}
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("L" if grey else "RGB")
    return image if image.mode in {"L", "RGB"} else image.convert("L" if image.mode == "1" else "RGB")


def decode_file(file: str | Path, size: int) -> tuple[NDArray[np.uint8], bool]:
    """One picture, turned as its EXIF says, its short side resized to `size` (bilinear, antialiased), centre-cropped.

    16-bit greys are scaled to 8 bits, palettes, CMYK and the like become RGB, transparent pixels white; of an
    animation the first frame is taken.

    Returns:
        uint8 ``(3, size, size)``, and whether the file has one channel (the three are then equal).

    Raises:
        Exception: of many kinds, whatever Pillow raises for a file that is damaged or no picture.
    """
    with Image.open(file) as opened:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 as long as twice the wanted size is left to resize from.
        opened.draft(None, (2 * size, 2 * size))
        grey = opened.mode in _GREY
        turned = ImageOps.exif_transpose(opened)
        image = ImageOps.fit(eight_bits(turned), (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), grey


def _key(folder: Path, files: Sequence[str], size: int) -> str:
    import PIL

    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([_VERSION, PIL.__version__, size, str(folder.resolve())]).encode())
    for name in files:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue  # a dangling link: it will be among the unreadable
        digest.update(json.dumps([name, stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()


def _heic() -> None:
    """Lets Pillow open .heic and .heif where the package for it is installed."""
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()


def _threads() -> int:
    """Pillow decodes without the interpreter's lock, so threads use all processors this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(allowed or 1, 16)


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not a picture that Pillow can read" if isinstance(error, UnidentifiedImageError) else text


def _decode_all(
    folder: Path, files: Sequence[str], size: int, out: NDArray[np.uint8], progress: Progress | None
) -> tuple[NDArray[np.bool_], bool, dict[str, str]]:
    """Fills `out`; returns which rows are good, whether all of them are grey, and why the others are not."""
    good = np.zeros(len(files), bool)
    colour = np.zeros(len(files), bool)
    unreadable: dict[str, str] = {}

    def task(start: int) -> None:
        for i in range(start, min(start + _TASK, len(files))):
            try:
                out[i], grey = decode_file(folder / files[i], size)
            except Exception as error:  # Pillow's plug-ins raise anything, SyntaxError and struct.error among it
                unreadable[files[i]] = _reason(error)
            else:
                good[i], colour[i] = True, not grey

    _heic()
    starts = range(0, len(files), _TASK)
    with warnings.catch_warnings(), ThreadPoolExecutor(_threads()) as pool:
        warnings.simplefilter("ignore")  # large pictures, odd metadata: not the user's business while they can be read
        for done, _ in enumerate(pool.map(task, starts), 1):
            if progress is not None:
                progress(min(done * _TASK, len(files)), len(files))
    return good, bool(good.any()) and not colour.any(), {name: unreadable[name] for name in files if name in unreadable}


def _read(entry: Path) -> Decoded | None:
    """A whole cache entry, or None."""
    try:
        meta: dict[str, Any] = json.loads(entry.with_suffix(".json").read_text(encoding="utf-8"))
        # Copy on write, so that a tensor may be made of it without a copy and nobody can change the file.
        pixels = np.load(entry.with_suffix(".npy"), mmap_mode="c")
    except (OSError, ValueError):
        return None
    index = np.asarray(meta["index"], np.int64)
    return Decoded(pixels, index, meta["unreadable"]) if list(pixels.shape) == meta["shape"] else None


def decoded(
    folder: str | Path, files: Sequence[str], size: int, cache: str | Path, progress: Progress | None = None
) -> Decoded:
    """Squares of all files of a folder that can be read, from the cache, or decoded now and put there.

    Args:
        folder: what the names are relative to.
        files: names of files, "/" between their parts.
        size: side of the squares in pixels.
        cache: the folder that entries are kept in; made when absent. An entry is never removed; delete the folder
            freely.
        progress: called while decoding, not when the cache has it.

    Raises:
        AugendError: the cache cannot be written.
    """
    folder, cache = Path(folder), Path(cache)
    entry = cache / _key(folder, files, size)
    found = _read(entry)
    if found is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Everything is made aside and moved in whole, the json last: a kill leaves no entry, two processes agree.
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            draft = Path(aside) / "draft.npy"
            out = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=(len(files), 3, size, size))
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and not a crash while the map is filled
                with draft.open("r+b") as handle:
                    os.posix_fallocate(handle.fileno(), 0, draft.stat().st_size)
            good, grey, unreadable = _decode_all(folder, files, size, out, progress)
            if not good.any():
                return Decoded(np.empty((0, 3, size, size), np.uint8), np.empty(0, np.int64), unreadable)
            if grey or not good.all():
                draft = Path(aside) / "kept.npy"
                kept = out[good][:, :1] if grey else out[good]
                np.save(draft, kept)
                shape = kept.shape
            else:
                out.flush()
                shape = out.shape
            meta = {"shape": list(shape), "index": np.flatnonzero(good).tolist(), "unreadable": unreadable}
            text = Path(aside) / "meta.json"
            text.write_text(json.dumps(meta), encoding="utf-8")
            draft.replace(entry.with_suffix(".npy"))
            text.replace(entry.with_suffix(".json"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise AugendError(f"cannot keep pictures in {cache} ({reason}); set AUGEND_CACHE to another folder") from None
    written = _read(entry)
    if written is None:
        raise AugendError(f"the decoded pictures in {cache} cannot be read back; set AUGEND_CACHE to another folder")
    return written


def unreadable_note(unreadable: dict[str, str]) -> str:
    """One line: how many files of which suffix were left out, the first reason, the package that may help."""
    suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in unreadable)
    ranked = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    counted = ", ".join(f"{n} {suffix}" for suffix, n in ranked)
    first, reason = next(iter(unreadable.items()))
    package = "; install pillow-heif for .heic" if {".heic", ".heif"} & suffixes.keys() else ""
    return f"left out as unreadable: {counted} (first: {first}: {reason}){package}"
