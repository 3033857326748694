"""Any map-style data set of (picture, label) as a `Split`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augend.contract import AugendError
from augend.data.decode import eight_bits
from augend.data.pictures import Pictures, Split
from augend.data.splits import stratified
from augend.randomness import Draws

__all__ = ["Labelled", "from_dataset"]


class Labelled(Protocol):
    """What is needed of a data set: its length, and ``dataset[i] == (picture, label)``."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def _pixels(picture: Any, where: str) -> Tensor:
    """uint8 ``(C, H, W)`` of a PIL picture, an array ``(H, W[, C])`` or a tensor ``([C, ]H, W)``."""
    if isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
        tensor = tensor[None] if tensor.dim() == 2 else tensor
    else:
        array = np.asarray(eight_bits(picture) if isinstance(picture, Image.Image) else picture)
        if array.dtype.kind not in "uif":
            raise AugendError(f"{where} is a {type(picture).__name__}; give a PIL picture, an array or a tensor")
        tensor = torch.from_numpy(np.array(array))  # a copy: PIL's own memory is read-only
        tensor = tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1) if tensor.dim() == 3 else tensor
    if tensor.dim() != 3 or tensor.shape[0] not in {1, 3}:
        order = "(C, H, W)" if isinstance(picture, Tensor) else "(H, W, C)"
        raise AugendError(f"{where}: found shape {tuple(picture.shape)}; give {order} with 1 or 3 channels, or (H, W)")
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise AugendError(f"{where} is {str(tensor.dtype).removeprefix('torch.')}; give uint8, or floats in [0, 1]")
    low, high = float(tensor.min()), float(tensor.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise AugendError(
            f"{where} has values from {low:.3g} to {high:.3g}; give uint8 or floats in [0, 1], without normalisation"
        )
    return (tensor * 255).round().to(torch.uint8)


def _gathered(dataset: Labelled, piece: str) -> Pictures:
    if isinstance(dataset, Pictures):
        return dataset
    if len(dataset) == 0:
        raise AugendError(f"{piece}: the data set is empty")
    pictures: Tensor | None = None
    labels = torch.empty(len(dataset), dtype=torch.int64)
    for i in range(len(dataset)):
        item = dataset[i]
        if not isinstance(item, Sequence) or len(item) != 2:
            raise AugendError(f"{piece}: item {i} is a {type(item).__name__}, not a pair (picture, label)")
        pixels = _pixels(item[0], f"{piece}: picture {i}")
        if pictures is None:
            pictures = torch.empty(len(dataset), *pixels.shape, dtype=torch.uint8)
        if pixels.shape != pictures.shape[1:]:
            shapes = f"{tuple(pixels.shape)}, not {tuple(pictures.shape[1:])} as the first"
            raise AugendError(f"{piece}: picture {i} is {shapes}; resize them to one shape")
        pictures[i] = pixels
        try:
            label = int(item[1])
        except (TypeError, ValueError):
            raise AugendError(f"{piece}: label {i} is {item[1]!r}; give a class number") from None
        if label < 0:
            raise AugendError(f"{piece}: label {i} is {label}; class numbers start at 0")
        labels[i] = label
    assert pictures is not None
    return Pictures(pictures, labels, tuple(f"{piece}/{i:05d}" for i in range(len(labels))))


def from_dataset(
    train: Labelled,
    valid: Labelled | None,
    test: Labelled | None = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "dataset",
    traits: frozenset[str] | None = None,
    seed: int = 0,
) -> Split:
    """A split of one's own map-style data sets, read once into memory.

    Args:
        train, valid, test: ``dataset[i]`` is (picture, class number). A picture is a PIL picture, an array ``(H, W)``
            or ``(H, W, C)`` or a tensor ``(H, W)`` or ``(C, H, W)``, uint8 or float in [0, 1], all of one shape,
            without augmentation and normalisation. Without `valid` a stratified fifth of `train` is held out for it;
            without `test` the split's test piece is empty. `Pictures` are
            taken as they are.
        classes: their names, by number; by default ``train.classes`` where there is such a thing, else the numbers.
        traits: what labels survive; by default those of photographs: hflip, colour (three channels), rotate, crop.
        seed: what held-out pieces are drawn with.

    Raises:
        AugendError: an item is no such pair, shapes differ, floats are outside [0, 1], a label is no class number.

    Example:
        >>> pictures = [(torch.rand(3, 8, 8), i % 2) for i in range(6)]
        >>> from_dataset(pictures[:4], pictures[4:], classes=["cat", "dog"]).shape
        (3, 8, 8)
    """
    main = _gathered(train, "train")
    if valid is None:
        draws = Draws(seed, "dataset/valid")
        rest, held = stratified(main.labels, (None, 0.2), draws, what=name)
        main, checked = main.take(rest), main.take(held)
    else:
        checked = _gathered(valid, "valid")
    exam = checked.take([]) if test is None else _gathered(test, "test")
    if classes is None:
        highest = max(int(pictures.labels.max()) for pictures in (main, checked, exam) if len(pictures))
        own = getattr(train, "classes", None)
        classes = own if own is not None and len(own) > highest else [str(i) for i in range(highest + 1)]
    if traits is None:
        traits = frozenset({"hflip", "rotate", "crop"} | ({"colour"} if main.shape[0] == 3 else set()))
    fixed = test is not None
    return Split(name, tuple(map(str, classes)), main, checked, exam, traits, fixed_test=fixed, seed=seed)
