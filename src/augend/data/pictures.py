"""Pictures, and a data set cut into train, validation and test.

Pictures stay uint8 and resident on the device, or in their file where they are too many; `fetch` turns the numbers that
an order picked into pixels. Conversion to float, augmentation and normalisation come later and belong to others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from augend.contract import AugendError
from augend.data.rows import StoredPixels, centred, chunk_of, resized_pixels
from augend.data.splits import Amount, stratified
from augend.randomness import Draws

__all__ = ["TRAITS", "Pictures", "Split"]

#: What a label may survive: a set's `traits` are a subset of these.
TRAITS = frozenset({"hflip", "vflip", "colour", "rotate", "crop"})


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures of one shape, on one device.

    Attributes:
        pixels: uint8 ``(N, C, H, W)``, 0 to 255. Of a streamed set it is an `augend.data.rows.StoredPixels`, which answers
            shape, slices and `index_select` as a tensor does; nothing else should be asked of it.
        labels: int64 ``(N,)``, class numbers.
        ids: a name for every picture that stays the same over runs and machines (a path relative to the data, say).
        groups: int64 ``(N,)`` or None: pictures of one number belong together and never cross a split.
        whole: None, or uint8 ``(N, C, H', W')``, what is known of the pictures around their middle `pixels` (which is then a
            view of it): crops of random size are cut out of it. See `with_margin`.

    Example:
        >>> pictures = Pictures(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b", "c"))
        >>> pictures.take([2, 1]).ids
        ('c', 'b')
    """

    pixels: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    groups: Tensor | None = None
    whole: Tensor | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            found = f"{str(self.pixels.dtype).removeprefix('torch.')} {tuple(self.pixels.shape)}"
            raise AugendError(f"pictures must be uint8 (N, C, H, W), found {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            found = f"{str(self.labels.dtype).removeprefix('torch.')} {tuple(self.labels.shape)}"
            raise AugendError(f"labels must be int64 ({len(self.pixels)},), one a picture, found {found}")
        if len(self.ids) != len(self.pixels):
            raise AugendError(f"there are {len(self.pixels)} pictures but {len(self.ids)} ids")

    @classmethod
    def with_margin(
        cls,
        whole: Tensor,
        size: tuple[int, int],
        labels: Tensor,
        ids: tuple[str, ...],
        groups: Tensor | None = None,
    ) -> Pictures:
        """Pictures that are seen through their middle, ``(H, W)`` of ``whole``; itself where nothing is around it."""
        if tuple(whole.shape[-2:]) == tuple(size):
            return cls(whole, labels, ids, groups)
        return cls(centred(whole, size), labels, ids, groups, whole)

    def _with(self, kept: Any, labels: Tensor, ids: tuple[str, ...], groups: Tensor | None) -> Pictures:
        """Others of the same size and margin."""
        return Pictures.with_margin(kept, self.shape[1:] if self.margin else kept.shape[-2:], labels, ids, groups)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def margin(self) -> bool:
        """Whether more is known of the pictures than is seen of them."""
        return self.whole is not None

    @property
    def kept(self) -> Tensor:
        """What is known of the pictures: uint8 ``(N, C, H', W')``, their `pixels` with the margin."""
        return self.pixels if self.whole is None else self.whole

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every picture."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Pictures:
        """The same pictures on a device (itself when they are there)."""
        return self._with(self.kept.to(device), self.labels.to(device), self.ids, self.groups)

    @property
    def streamed(self) -> bool:
        """Whether the pixels stay in their file, and only what is fetched comes into memory."""
        return isinstance(self.pixels, StoredPixels)

    def resident(self) -> Pictures:
        """The same pictures in memory."""
        return self._with(self.kept[:], self.labels, self.ids, self.groups) if self.streamed else self

    def joined(self, other: Pictures) -> Pictures:
        """These pictures and then the other ones, still in their file where both are."""
        one, two = cast(Any, self.kept), cast(Any, other.kept)
        both = one.joined(two) if self.streamed and other.streamed else torch.cat([one[:], two[:]])
        groups = None if self.groups is None or other.groups is None else torch.cat([self.groups, other.groups])
        return self._with(both, torch.cat([self.labels, other.labels]), (*self.ids, *other.ids), groups)

    def parts(self, *, whole: bool = False) -> Iterator[Tensor]:
        """The pixels in order (`whole`: with their margin), uint8 ``(n, C, H, W)`` at a time, at most 4 MB."""
        pixels = self.kept if whole else self.pixels
        size = chunk_of(pixels.shape[1:])
        for begin in range(0, len(self), size):
            yield pixels[begin : begin + size]

    def take(self, index: Tensor | Sequence[int]) -> Pictures:
        """A copy of some pictures, in the order of their numbers `index`, ``(n,)``; streamed pictures stay in their file."""
        number = torch.as_tensor(index, dtype=torch.int64).cpu()
        here = number.to(self.labels.device)
        kept: Any = self.kept
        return self._with(
            kept.take(number) if self.streamed else kept.index_select(0, here),
            self.labels.index_select(0, here),
            tuple(self.ids[i] for i in number.tolist()),
            None if self.groups is None else self.groups.index_select(0, number),
        )

    def fetch(self, index: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor]:
        """What a step trains on.

        Args:
            index: int64 ``(rows, sources)``, picture numbers, on any device.
            whole: with the margin, where there is one.

        Returns:
            Pixels, uint8 ``(rows, sources, C, H, W)``, and labels, int64 ``(rows, sources)``, both on the pictures'
            device.
        """
        flat = index.reshape(-1)
        flat = flat.cpu() if self.streamed else flat.to(self.labels.device)
        pixels = (self.kept if whole else self.pixels).index_select(0, flat)
        labels = self.labels.index_select(0, flat.to(self.labels.device))
        return pixels.view(*index.shape, *pixels.shape[1:]), labels.view(index.shape)

    def resized(self, side: int) -> Pictures:
        """The same pictures with a short side of `side` pixels: bilinear, antialiased if smaller, rounded to uint8.

        A margin is resized with them.
        """
        height, width = self.pixels.shape[2:]
        if side < 1:
            raise AugendError(f"size must be at least 1 pixel, found {side}")
        short = min(height, width)
        target = (round(height * side / short), round(width * side / short))
        if target == (height, width):
            return self
        kept: Any = self.kept
        size = (round(kept.shape[2] * target[0] / height), round(kept.shape[3] * target[1] / width))
        smaller = kept.resized(size) if self.streamed else resized_pixels(kept, size)
        return Pictures.with_margin(smaller, target, self.labels, self.ids, self.groups)

    def counts(self, classes: int) -> list[int]:
        """How many pictures each of `classes` classes has."""
        return torch.bincount(self.labels, minlength=classes).tolist()


@dataclass(frozen=True, eq=False)
class Split:
    """A data set cut into pieces, with what is known about it.

    Attributes:
        name: the word or path that was asked for.
        classes: names, by class number.
        train, valid, test: the pieces; `test` is empty where a set given in Python has none.
        traits: what labels survive, a subset of `TRAITS` (``rotate``: by up to about 30 degrees; ``crop``: losing an
            edge; ``colour``: other light and hue).
        shifted: further fixed test sets, reported beside the test set, never deciding.
        held: pieces cut from train under a name of their own (`hold`).
        fixed_test: whether the test set is the same in every repeat (the set's own), or was redrawn.
        seed, repeat: what the split was drawn with.
        fit: how pictures of other shapes become squares, "crop" or "pad".
        decoding: seconds that decoding a picture's file took on one thread, the mean, whenever that was; 0 for other sets.
        notes: one line each, for the user: what was left out, how the folder was understood.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    valid: Pictures
    test: Pictures
    traits: frozenset[str]
    shifted: Mapping[str, Pictures] = field(default_factory=dict)
    held: Mapping[str, Pictures] = field(default_factory=dict)
    fixed_test: bool = False
    seed: int = 0
    repeat: int = 0
    notes: tuple[str, ...] = ()
    fit: str = "crop"
    decoding: float = 0.0

    def __post_init__(self) -> None:
        unknown = sorted(self.traits - TRAITS)
        if unknown:
            raise AugendError(f"{self.name}: unknown trait {unknown[0]!r} (known: {', '.join(sorted(TRAITS))})")
        for piece, pictures in self.pieces().items():
            if pictures.shape != self.train.shape or pictures.kept.shape[1:] != self.train.kept.shape[1:]:
                raise AugendError(f"{self.name}: {piece} is {pictures.shape} but train is {self.train.shape}")
            if len(pictures) and not 0 <= int(pictures.labels.min()) <= int(pictures.labels.max()) < len(self.classes):
                raise AugendError(f"{self.name}: {piece} has a label outside 0 .. {len(self.classes) - 1}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every picture."""
        return self.train.shape

    @property
    def resize(self) -> int:
        """The short side that a picture is resized to before its middle, `shape`, is cut out."""
        return min(self.train.kept.shape[-2:])

    def pieces(self) -> dict[str, Pictures]:
        """Every piece by name: train, valid, test, ``held/NAME``, ``shifted/NAME``."""
        return {
            "train": self.train,
            "valid": self.valid,
            "test": self.test,
            **{f"held/{name}": pictures for name, pictures in self.held.items()},
            **{f"shifted/{name}": pictures for name, pictures in self.shifted.items()},
        }

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        # Integers all the way to the last division: the same floats for any chunk, device and number of threads.
        total = torch.zeros(self.shape[0], dtype=torch.int64)
        squares = torch.zeros_like(total)
        for part in self.train.parts():
            wide = part.to(torch.int32)
            total += wide.sum((0, 2, 3), dtype=torch.int64).cpu()
            squares += (wide * wide).sum((0, 2, 3), dtype=torch.int64).cpu()
        n = max(1, len(self.train) * self.shape[1] * self.shape[2])
        mean = [value / n for value in total.tolist()]
        std = [math.sqrt(max(0.0, value / n - m * m)) for value, m in zip(squares.tolist(), mean, strict=True)]
        return tuple(m / 255 for m in mean), tuple(max(s, 1.0) / 255 for s in std)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the training pixels in [0, 1], one a channel."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the training pixels in [0, 1], one a channel; never below one grey level, 1/255."""
        return self._moments[1]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits (blake2b) over the pixels and labels of every piece."""
        digest = hashlib.blake2b(digest_size=16)
        for piece, pictures in self.pieces().items():
            margin = f" of {tuple(pictures.kept.shape)}" if pictures.margin else ""
            digest.update(f"{piece} {tuple(pictures.pixels.shape)}{margin}\n".encode(errors="surrogateescape"))
            for part in pictures.parts(whole=True):
                digest.update(part.cpu().contiguous().numpy().data)
            digest.update(pictures.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @cached_property
    def ids_digest(self) -> str:
        """32 hexadecimal digits (blake2b) over the ids of every piece: which picture is where."""
        digest = hashlib.blake2b(digest_size=16)
        for piece, pictures in self.pieces().items():
            digest.update("\0".join((piece, *pictures.ids, "\n")).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Split:
        """The same split with every piece on a device."""
        moved = self._with({piece: pictures.to(device) for piece, pictures in self.pieces().items()})
        known = {"_moments", "digest", "ids_digest"}  # the contents are the same, so what was computed still holds
        moved.__dict__.update({name: value for name, value in self.__dict__.items() if name in known})
        return moved

    def resized(self, side: int) -> Split:
        """The same split with pictures of another size, see `Pictures.resized`."""
        return self._with({piece: pictures.resized(side) for piece, pictures in self.pieces().items()})

    def _with(self, pieces: Mapping[str, Pictures]) -> Split:
        return dataclasses.replace(
            self,
            train=pieces["train"],
            valid=pieces["valid"],
            test=pieces["test"],
            held={name: pieces[f"held/{name}"] for name in self.held},
            shifted={name: pieces[f"shifted/{name}"] for name in self.shifted},
        )

    def hold(self, parts: Mapping[str, Amount]) -> Split:
        """Cut named pieces from train, stratified, drawn with the split's own seed and repeat; groups stay together.

        Args:
            parts: name -> number of pictures (int) or fraction of train (float), as ``hold: {external: 10%}``.

        Example:
            >>> from augend.data import load
            >>> split = load("digits").hold({"external": 0.1})
            >>> len(split.train), len(split.held["external"])
            (971, 108)
        """
        draws = Draws(self.seed, "data/hold/" + "/".join(parts), self.repeat)
        index = stratified(
            self.train.labels, (None, *parts.values()), draws, what=f"{self.name}: hold", groups=self.train.groups
        )
        held = {name: self.train.take(part) for name, part in zip(parts, index[1:], strict=True)}
        return dataclasses.replace(self, train=self.train.take(index[0]), held={**self.held, **held})

    def poorer(self, fraction: float = 1.0, false_labels: float = 0.0) -> Split:
        """The same split with fewer training pictures, or with false labels among them; drawn with its seed and repeat.

        Validation and test pictures and their labels stay as they are.

        Args:
            fraction: of the training pictures that are kept, above 0 up to 1; stratified, groups stay together.
            false_labels: probability for a training label to be drawn anew from all classes, its own included (so of C
                classes a share of ``false_labels * (C - 1) / C`` is wrong).

        Example:
            >>> from augend.data import load
            >>> split = load("digits").poorer(fraction=0.5, false_labels=0.2)
            >>> len(split.train), split.notes[-1]
            (540, '89 of 540 training labels are false (each drawn anew with probability 0.2)')
        """
        for option, value, fits, span in (
            ("fraction", fraction, 0 < fraction <= 1, "above 0 up to 1"),
            ("false-labels", false_labels, 0 <= false_labels <= 1, "from 0 to 1"),
        ):
            if not fits:
                raise AugendError(f"--{option} is {value:g}; it is a share {span}")
        train, notes = self.train, list(self.notes)
        if fraction < 1:
            draws = Draws(self.seed, "data/fraction", self.repeat)
            train = train.take(
                stratified(train.labels, (None, fraction), draws, what=self.name, groups=train.groups)[1]
            )
            notes.append(f"{len(train)} of {len(self.train)} training pictures are used")
        if false_labels > 0:
            draws = Draws(self.seed, "data/false-labels", self.repeat, len(train))
            anew = draws.integers(len(self.classes))[:, 0].to(train.labels.device)
            drawn = draws.child("which").bernoulli(false_labels)[:, 0].to(train.labels.device)
            labels = torch.where(drawn, anew, train.labels)
            wrong = int((labels != train.labels).sum())
            train = dataclasses.replace(train, labels=labels)
            how = f"each drawn anew with probability {false_labels:g}"
            notes.append(f"{wrong} of {len(train)} training labels are false ({how})")
        return dataclasses.replace(self, train=train, notes=tuple(notes))

    def majority(self, piece: str = "test") -> tuple[str, float]:
        """The largest class of train, and the accuracy in `piece` of always answering it."""
        largest = max(range(len(self.classes)), key=self.train.counts(len(self.classes)).__getitem__)
        pictures = self.pieces()[piece]
        right = int((pictures.labels == largest).sum())
        return self.classes[largest], right / len(pictures) if len(pictures) else math.nan

    def record(self) -> dict[str, Any]:
        """What a study stores about its data, as JSON values; no picture, no path of this machine beyond `name`."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "resize": self.resize,
            "decoding": self.decoding,
            "traits": sorted(self.traits),
            "seed": self.seed,
            "repeat": self.repeat,
            "fixed_test": self.fixed_test,
            "counts": {piece: pictures.counts(len(self.classes)) for piece, pictures in self.pieces().items()},
            "mean": list(self.mean),
            "std": list(self.std),
            "digest": self.digest,
            "ids_digest": self.ids_digest,
            "notes": list(self.notes),
        }
