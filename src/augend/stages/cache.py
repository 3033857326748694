"""The frozen part is paid for once: its outputs for every picture and every variant of a finite augmentation.

Chunks of one fixed shape make cached features bit-equal to recomputing them at that batch shape (the bits of a convolution
depend on the shape of the batch, not on a row's position in it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from augend.checkpoint import write_json
from augend.contract import AugendError, Augment
from augend.randomness import Draws

__all__ = ["CachedTrunk", "cache_trunk", "chunks", "fill"]


class _Sized(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


def chunks(total: int, size: int) -> Iterator[tuple[Tensor, int]]:
    """Row numbers of 0 .. total - 1 in chunks of exactly `size` (the last one padded with row 0), and how many are real."""
    for begin in range(0, total, size):
        real = min(size, total - begin)
        rows = torch.zeros(size, dtype=torch.int64)
        rows[:real] = torch.arange(begin, begin + real)
        yield rows, real


def _format(value: Tensor) -> torch.memory_format:
    """The memory format of a tensor: the layers above give other bits, and take longer, in another one."""
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def fill(
    compute: Callable[[Tensor], dict[str, Tensor]],
    total: int,
    size: int,
    after: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Tensors ``(total, ...)`` from a function of row numbers ``(size,)``, computed in chunks of one shape.

    Args:
        compute: row numbers -> name -> ``(size, ...)``.
        after: called with the number of rows done, after each chunk.
    """
    banks: dict[str, Tensor] = {}
    done = 0
    with torch.no_grad():
        for rows, real in chunks(total, size):
            for name, value in compute(rows).items():
                if name not in banks:
                    banks[name] = torch.empty(
                        (total, *value.shape[1:]), dtype=value.dtype, device=value.device, memory_format=_format(value)
                    )
                banks[name][done : done + real] = value[:real]
            done += real
            if after is not None:
                after(done)
    return banks


class CachedTrunk(Dataset[tuple[Tensor, Tensor]]):
    """What `cache_trunk` returns: item i is (features, label) of picture i // variants under variant i % variants.

    Attributes:
        features: ``(pictures * variants, ...)``; memory-mapped when a path was given.
        labels: int64 ``(pictures,)``.
        variants: outcomes of the augmentation (1 without one).
    """

    def __init__(self, features: Tensor, labels: Tensor, variants: int) -> None:
        self.features, self.labels, self.variants = features, labels, variants

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.labels[index // self.variants]


def cache_trunk(
    trunk: nn.Module,
    dataset: _Sized,
    views: Augment | None = None,
    path: str | Path | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> CachedTrunk:
    """Compute a frozen trunk's features once for every picture of a data set, under every outcome of an augmentation.

    Args:
        trunk: called in eval mode, without gradients, on float32 ``(batch_size, C, H, W)`` in [0, 1]; left in the mode
            it was in.
        dataset: map-style, of (picture, label); pictures are uint8 or float tensors ``(C, H, W)`` of one shape.
        views: an augmentation with a finite number of outcomes (`variants`), or None.
        path: a folder for ``features.npy``, ``labels.npy`` and ``key.json``, so that a later call only maps the file. The
            key holds digests of the weights, the augmentation and 64 sampled pictures, and the batch size; if it differs
            from what is asked for, that is an error, never a hit.
        batch_size: fixed shape of every forward; the features equal recomputed ones, bit for bit, at this shape.

    Returns:
        A data set of ``len(dataset) * variants`` items (features, label).

    Example:
        >>> pictures = [(torch.rand(3, 8, 8), 1) for _ in range(5)]
        >>> cached = cache_trunk(nn.Flatten(), pictures)
        >>> len(cached), cached[0][0].shape
        (5, torch.Size([192]))
    """
    variants = 1 if views is None else views.variants
    if variants is None:
        raise AugendError(
            "cache_trunk: the augmentation has infinitely many outcomes; give one whose `variants` is finite"
        )
    key = {
        "weights": _digest(trunk.state_dict()),
        "augmentation": "none" if views is None else getattr(views, "describe", lambda: repr(views))(),
        "data": _sampled(dataset),
        "batch_size": batch_size,
        "torch": torch.__version__,
    }
    folder = None if path is None else Path(path)
    if folder is not None and (folder / "key.json").is_file():
        return _mapped(folder, key, variants)

    def compute(rows: Tensor) -> dict[str, Tensor]:
        pictures, variant = rows // variants, rows % variants
        x = torch.stack([_picture(dataset[int(i)][0]) for i in pictures])
        if views is not None:
            params = views.draw(Draws(0, "cache", keys=pictures), 0.0, variant)
            x = views.apply(x, params)
        return {"features": trunk(x.to(device)).cpu()}

    modes = {module: module.training for module in trunk.modules()}
    trunk.eval()
    try:
        features = fill(compute, len(dataset) * variants, batch_size)["features"]
    finally:
        for module, mode in modes.items():
            module.training = mode
    labels = torch.tensor([int(dataset[i][1]) for i in range(len(dataset))])
    if folder is None:
        return CachedTrunk(features, labels, variants)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", features.numpy())
    np.save(folder / "labels.npy", labels.numpy())
    write_json(folder / "key.json", key)  # last: a cache without its key does not exist
    return _mapped(folder, key, variants)


def _mapped(folder: Path, key: dict[str, Any], variants: int) -> CachedTrunk:
    found = json.loads((folder / "key.json").read_text())
    changed = [name for name in key if found.get(name) != key[name]]
    if changed:
        raise AugendError(
            f"{folder}: this cache was made with other {', '.join(changed)}; delete it or give another path"
        )
    features = torch.from_numpy(np.load(folder / "features.npy", mmap_mode="r+"))
    return CachedTrunk(features, torch.from_numpy(np.load(folder / "labels.npy")), variants)


def _picture(picture: Any) -> Tensor:
    tensor = torch.as_tensor(picture)
    return tensor.float().div(255.0) if tensor.dtype == torch.uint8 else tensor.float()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sampled(dataset: _Sized) -> str:
    size = len(dataset)
    picked = torch.linspace(0, size - 1, min(size, 64)).long().tolist() if size else []
    return _digest({f"{size}/{i}": _picture(dataset[i][0]) for i in picked})
