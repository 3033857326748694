"""Atomic, checksummed files of tensors and plain numbers; nothing is ever unpickled.

A file is a magic line, a BLAKE2b digest of the rest, the length of a JSON text, the JSON text and a safetensors blob. It is
written to a temporary name, flushed to the disk and renamed, so a kill at any moment leaves the old file or the new one.
JSON keeps Python floats exactly (shortest round-trip form), tensors keep their bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError

__all__ = [
    "Checkpoints",
    "digest_of",
    "exclusive",
    "file_word",
    "plain",
    "read",
    "read_arrays",
    "read_described",
    "write",
    "write_bytes",
    "write_json",
]

_MAGIC = b"augend checkpoint 1\n"
_DIGEST = 32


def file_word(text: str) -> str:
    """A text as part of a file's name: its last 60 characters, what names should not hold as a dash.

    >>> file_word("cifar10:test=100"), file_word("../my pictures/")
    ('cifar10-test-100', 'my-pictures')
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[-60:]


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers see all of the old content or all of the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` file by name, all of them or `names`; nothing is unpickled.

    Raises:
        AugendError: the file is damaged or lacks one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (file.files if names is None else names)}
    except ValueError as error:  # numpy's own words advise to unpickle it
        raise AugendError(f"{path}: damaged (it is no archive of plain arrays)") from error
    except Exception as error:  # of damage there is no list: zlib, zipfile and numpy have each their own
        raise AugendError(f"{path}: damaged ({error})") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def exclusive(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One process at a time in this block; the lock goes with the process, however that ends.

    Args:
        file: the lock; made when absent.
        waiting: called every second while another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; two processes that write into one folder are then the user's care
        yield
        return
    with file.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(1.0)
        yield


def digest_of(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """32 hexadecimal digits (blake2b) over tensors with their names, dtypes and shapes, and a text."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies where needed: safetensors refuses channels-last and shared tensors."""
    seen: set[int] = set()
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.numel() and value.data_ptr() in seen:
            value = value.clone()
        seen.add(value.data_ptr())
        out[name] = value
    return out


def read_described(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; what cannot be read is one error that names the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise AugendError(f"{path}: cannot be read as safetensors ({error}); get the file anew") from error


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """Write tensors and a JSON state; returns the hexadecimal digest of the content."""
    from safetensors.torch import save

    text = json.dumps(state).encode()
    body = struct.pack("<Q", len(text)) + text + save(plain(tensors))
    digest = hashlib.blake2b(body, digest_size=_DIGEST)
    write_bytes(path, _MAGIC + digest.digest() + body)
    return digest.hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state that `write` was given; a damaged or foreign file is an error."""
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise AugendError(f"{path}: cannot be read ({error.strerror})") from error
    head, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
    if head != _MAGIC:
        raise AugendError(f"{path}: not a checkpoint of augend")
    if hashlib.blake2b(body, digest_size=_DIGEST).digest() != digest:
        raise AugendError(f"{path}: damaged (its checksum does not match its content)")
    (length,) = struct.unpack("<Q", body[:8])
    return load(body[8 + length :]), json.loads(body[8 : 8 + length])


class Checkpoints:
    """The checkpoints of a run: the newest two are kept, and a damaged newest one falls back to the one before.

    Args:
        folder: where the files are; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bests: list[str | None] = []  # what the newest two name, as far as they were written here
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):  # what a kill inside a write left behind
            left.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """The checkpoint files, newest first."""
        return sorted(self.folder.glob("step-*.ckpt"), reverse=True)

    def save(self, phase: int, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove those older than the one before it, and best weights that neither of the two names.

        Non-finite weights are never saved.
        """
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise AugendError(
                    f"training diverged: {name} is not finite at phase {phase}, step {step}; lower the learning rate "
                    "(optimizer.lr=0.3x) or set clip; the last good checkpoint is kept"
                )
        path = self.folder / f"step-{phase:03d}-{step:09d}.ckpt"
        write(path, tensors, state)
        for old in self.paths()[2:]:
            old.unlink(missing_ok=True)
        self._bests = [*self._bests[-1:], state.get("place", {}).get("best", {}).get("file")]
        if len(self._bests) == 2:  # what a checkpoint of before a resume names is not known
            for old in self.folder.glob("best-*.ckpt"):
                if old.name not in self._bests:
                    old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """Tensors and state of the newest intact checkpoint, with a line for each damaged one passed over."""
        said: list[str] = []
        for path in self.paths():
            try:
                tensors, state = read(path)
            except AugendError as error:
                said.append(f"{error}; falling back to the checkpoint before")
                continue
            return tensors, state, said
        if said:
            raise AugendError(f"{self.folder}: every checkpoint is damaged; start the run anew in another folder")
        return None
