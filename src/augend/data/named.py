"""MNIST, CIFAR-10 and CIFAR-100 in the layouts of their own sites, found on disk or fetched by torchvision.

A set is looked for under `root` (``--data-root``; without one: ``AUGEND_DATA``), then in the cache's ``data`` folder,
and is otherwise downloaded there, unless ``AUGEND_OFFLINE=1``. Train and test are the official ones; validation is
carved from train.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pickle
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from augend.contract import AugendError
from augend.data.classes import CIFAR10, CIFAR100
from augend.data.digits import DIGIT_TRAITS, DIGITS
from augend.data.pictures import Pictures, Split
from augend.data.splits import Amount, limited, two_ways

__all__ = ["cache_folder", "cifar10", "cifar100", "mnist", "mnist_pictures"]

_PHOTO_TRAITS = frozenset({"hflip", "colour", "rotate", "crop"})
_Read = Callable[[Path], tuple[Pictures, Pictures] | None]


def cache_folder() -> Path:
    """``AUGEND_CACHE``, by default ``~/.cache/augend``: the only place outside a study's folder that is written to."""
    return Path(os.environ.get("AUGEND_CACHE") or Path.home() / ".cache" / "augend")


def _find(word: str, root: str | Path | None, read: _Read, expected: str, dataset: str) -> tuple[Pictures, Pictures]:
    """Train and test from the first place that has them; `read` returns None where a folder lacks the set."""
    given = root if root is not None else os.environ.get("AUGEND_DATA")
    if given and not Path(given).is_dir():
        name = "--data-root" if root is not None else "AUGEND_DATA"
        raise AugendError(f"{word}: {name} is {str(given)!r}, and there is no such folder")
    cached = cache_folder() / "data"
    places = [*([Path(given)] if given else []), cached]
    for place in places:
        found = read(place)
        if found is not None:
            return found
    looked = f"{word}: no {expected} in {' or '.join(map(str, places))}"
    if os.environ.get("AUGEND_OFFLINE", "") not in {"", "0"}:
        raise AugendError(
            f"{looked}; set --data-root to the folder that holds it (AUGEND_OFFLINE=1 forbids the download)"
        )
    _download(dataset, cached, looked)
    found = read(cached)
    if found is None:
        raise AugendError(f"{looked}; the download is incomplete, remove {cached} and try again")
    return found


def _download(dataset: str, into: Path, looked: str) -> None:
    import torchvision

    try:
        into.mkdir(parents=True, exist_ok=True)
        # Fetched aside and then moved, so that neither a kill nor a second process leaves half a set to be read.
        with tempfile.TemporaryDirectory(dir=into) as aside, contextlib.redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, dataset)(aside, download=True)
            for folder in Path(aside).iterdir():
                if folder.is_dir() and not (into / folder.name).exists():
                    shutil.move(folder, into / folder.name)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AugendError(
            f"{looked}, and the download failed ({reason}); set --data-root to a folder that holds it"
        ) from None


def _idx(file: Path, magic: int) -> NDArray[np.uint8] | None:
    """The array of an idx file, plain or .gz; None where there is neither."""
    zipped = file.with_name(file.name + ".gz")
    try:
        if file.is_file():
            raw = file.read_bytes()
        elif zipped.is_file():
            raw = gzip.decompress(zipped.read_bytes())
        else:
            return None
    except (OSError, EOFError) as error:
        raise AugendError(f"mnist: cannot read {file}: {error}") from None
    dims = magic & 0xFF
    if len(raw) < 4 + 4 * dims or struct.unpack(">I", raw[:4])[0] != magic:
        raise AugendError(f"mnist: {file} is no idx file of {dims} dimensions; fetch it again")
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims)
    if body.size != int(np.prod(shape)):
        raise AugendError(
            f"mnist: {file} is damaged: {body.size:,} bytes of pixels or labels for {shape}; fetch it again"
        )
    return body.reshape(shape)


def _mnist_piece(raw: Path, stem: str) -> Pictures | None:
    images, labels = _idx(raw / f"{stem}-images-idx3-ubyte", 0x803), _idx(raw / f"{stem}-labels-idx1-ubyte", 0x801)
    if images is None or labels is None:
        return None
    return _pictures(images[:, None], labels, "test" if stem == "t10k" else stem)


def _pictures(pixels: NDArray[np.uint8], labels: NDArray[Any], piece: str) -> Pictures:
    names = tuple(f"{piece}/{i:05d}" for i in range(len(pixels)))
    return Pictures(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.astype(np.int64)), names)


def mnist_pictures(root: str | Path | None = None) -> tuple[Pictures, Pictures]:
    """MNIST's 60,000 training and 10,000 test pictures, uint8 ``(N, 1, 28, 28)``, from ``MNIST/raw``."""

    def read(place: Path) -> tuple[Pictures, Pictures] | None:
        train, test = (_mnist_piece(place / "MNIST" / "raw", stem) for stem in ("train", "t10k"))
        return (train, test) if train is not None and test is not None else None

    return _find("mnist", root, read, "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]", "MNIST")


def _binary(file: Path, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels ``(N, 3, 32, 32)`` and labels (the last label byte: CIFAR-100's fine class) of a CIFAR binary file."""
    raw = np.fromfile(file, np.uint8)
    record = label_bytes + 3072
    if raw.size == 0 or raw.size % record:
        raise AugendError(f"{file} is damaged: {raw.size:,} bytes are no multiple of {record:,}; fetch it again")
    raw = raw.reshape(-1, record)
    return raw[:, label_bytes:].reshape(-1, 3, 32, 32), raw[:, label_bytes - 1]


def _pickled(file: Path, md5: str, key: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The same of a python-layout file. A pickle can run code, so only the published bytes are ever loaded."""
    raw = file.read_bytes()
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
        raise AugendError(
            f"{file} is not the published file (its MD5 is not {md5}), and a pickle is read only if it is"
        )
    table = pickle.loads(raw, encoding="bytes")
    return table[b"data"].reshape(-1, 3, 32, 32), np.asarray(table[key], np.int64)


def _cifar(dataset: str, word: str, root: str | Path | None) -> tuple[Pictures, Pictures]:
    hundred = word == "cifar100"
    binary, python = (
        ("cifar-100-binary", "cifar-100-python") if hundred else ("cifar-10-batches-bin", "cifar-10-batches-py")
    )
    train_bin = ["train.bin"] if hundred else [f"data_batch_{i}.bin" for i in range(1, 6)]
    test_bin = ["test.bin"] if hundred else ["test_batch.bin"]

    def joined(parts: list[tuple[NDArray[np.uint8], NDArray[Any]]], piece: str) -> Pictures:
        return _pictures(np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts]), piece)

    def read(place: Path) -> tuple[Pictures, Pictures] | None:
        folder = place / binary
        if all((folder / name).is_file() for name in [*train_bin, *test_bin]):
            train, test = ([_binary(folder / name, 1 + hundred) for name in names] for names in (train_bin, test_bin))
            return joined(train, "train"), joined(test, "test")
        folder = place / python
        if not folder.is_dir():
            return None
        import torchvision

        official = getattr(torchvision.datasets, dataset)
        if not all((folder / name).is_file() for name, _ in [*official.train_list, *official.test_list]):
            return None
        key = b"fine_labels" if hundred else b"labels"
        pieces = [
            joined([_pickled(folder / name, md5, key) for name, md5 in files], piece)
            for piece, files in (("train", official.train_list), ("test", official.test_list))
        ]
        return pieces[0], pieces[1]

    return _find(word, root, read, f"{binary} or {python}", dataset)


def cifar10_pictures(root: str | Path | None = None) -> tuple[Pictures, Pictures]:
    """CIFAR-10's 50,000 training and 10,000 test pictures, uint8 ``(N, 3, 32, 32)``."""
    return _cifar("CIFAR10", "cifar10", root)


def _official(
    word: str,
    pieces: tuple[Pictures, Pictures],
    classes: tuple[str, ...],
    traits: frozenset[str],
    amounts: tuple[int | None, Amount, int | None],
    seed: int,
    repeat: int,
) -> Split:
    pool, official_test = pieces
    train, valid = two_ways(pool, amounts[1], amounts[0], seed, repeat, what=word)
    test = limited(official_test, amounts[2], seed, what=f"{word}: test")
    return Split(word, classes, train, valid, test, traits, fixed_test=True, seed=seed, repeat=repeat)


def mnist(
    train: int | None = None,
    valid: Amount = 5000,
    test: int | None = None,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
) -> Split:
    """The word ``mnist``: 55,000 train, 5,000 validation out of train, the official 10,000 test (LeCun et al. 1998)."""
    return _official("mnist", mnist_pictures(root), DIGITS, DIGIT_TRAITS, (train, valid, test), seed, repeat)


def cifar10(
    train: int | None = None,
    valid: Amount = 5000,
    test: int | None = None,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
) -> Split:
    """The word ``cifar10``: 45,000 train, 5,000 validation out of train, the official 10,000 test (Krizhevsky 2009)."""
    return _official("cifar10", cifar10_pictures(root), CIFAR10, _PHOTO_TRAITS, (train, valid, test), seed, repeat)


def cifar100(
    train: int | None = None,
    valid: Amount = 5000,
    test: int | None = None,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
) -> Split:
    """The word ``cifar100``: as ``cifar10``, with the 100 fine classes."""
    pieces = _cifar("CIFAR100", "cifar100", root)
    return _official("cifar100", pieces, CIFAR100, _PHOTO_TRAITS, (train, valid, test), seed, repeat)
