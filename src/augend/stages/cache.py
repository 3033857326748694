"""A frozen trunk's features for a data set of one's own: `augend.cache_trunk`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from augend.checkpoint import digest_of
from augend.contract import AugendError, Augment
from augend.randomness import Draws
from augend.stages.bank import Kept, fill

__all__ = ["CachedTrunk", "cache_trunk"]


class _Sized(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


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
        path: a folder to keep them in, so that a later call only maps the file, and one that was killed goes on. Its key
            holds digests of the weights, the augmentation and 64 sampled pictures, and the batch size; if it differs from
            what is asked for, that is an error, never a hit.
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
    if not len(dataset):
        raise AugendError("cache_trunk: the data set is empty; there is nothing to cache")
    key = {
        "weights": digest_of(trunk.state_dict()),
        "augmentation": "none" if views is None else getattr(views, "describe", lambda: repr(views))(),
        "data": _sampled(dataset),
        "batch_size": batch_size,
        "torch": torch.__version__,
    }
    total = len(dataset) * variants

    def compute(rows: Tensor) -> dict[str, Tensor]:
        pictures, variant = rows // variants, rows % variants
        read = [dataset[int(i)] for i in pictures]
        x = torch.stack([_picture(picture) for picture, _ in read])
        if views is not None:
            params = views.draw(Draws(0, "cache", keys=pictures), 0.0, variant)
            x = views.apply(x, params)
        return {"features": trunk(x.to(device)).cpu(), "labels": torch.tensor([int(label) for _, label in read])}

    modes = {module: module.training for module in trunk.modules()}
    trunk.eval()
    try:
        if path is None:
            return _cached(fill(compute, total, batch_size), variants)
        with Kept(Path(path), key, total) as store:
            return _cached(fill(compute, total, batch_size, store=store), variants)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cached(found: dict[str, Tensor], variants: int) -> CachedTrunk:
    return CachedTrunk(found["features"], found["labels"][::variants], variants)


def _picture(picture: Any) -> Tensor:
    tensor = torch.as_tensor(picture)
    return tensor.float().div(255.0) if tensor.dtype == torch.uint8 else tensor.float()


def _sampled(dataset: _Sized) -> str:
    size = len(dataset)
    picked = torch.linspace(0, size - 1, min(size, 64)).long().tolist() if size else []
    return digest_of({f"{size}/{i}": _picture(dataset[i][0]) for i in picked})
