"""The tilt data of the factoring paper (Moseley and Singh, section 5): digits tilted once, and copies rotated further.

A picture x becomes R(x, u) once and for all, u uniform in (-30, 30) degrees; this is *tilt*. Its five copies rotated
by -30, -15, 0, 15 and 30 degrees more are *tilt+*, which `augmented` trains on (the augmentation ``rotations``).

Two protocols. ``standard``: all of MNIST, bilinear rotation. ``authors``: what the published code does: the 10,000
pictures of MNIST's test file alone, shuffled and cut into 8,500, 500 and 1,000; rotation to the nearest pixel on an
enlarged canvas that is then shrunk back (so that copies change scale), twice; validation and test consist of all five
copies. Deviation from
that code: it draws whole degrees from -30 to 30 (its upper end is 31, exclusive), here angles are continuous.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from augend import pixels
from augend.contract import AugendError
from augend.data.digits import DIGIT_TRAITS, DIGITS, embedded_digits
from augend.data.named import mnist_pictures
from augend.data.pictures import Pictures, Split
from augend.data.splits import Amount, limited, stratified, two_ways
from augend.names import nearest
from augend.randomness import Draws

__all__ = ["ANGLES", "copies", "mnist_tilt", "tilted", "tilted_digits"]

#: Degrees of the five copies, in the order of the augmentation ``rotations``.
ANGLES = (-30.0, -15.0, 0.0, 15.0, 30.0)
_SEED = 1  # the tilts belong to the data: the same in every study, whatever its seed
_CHUNK = 4096


def _turned(x: Tensor, degrees: Tensor, authors: bool) -> Tensor:
    """uint8 to uint8 ``(N, C, H, W)``, by `degrees` ``(N,)`` counter-clockwise, what comes from outside black."""
    pairs = list(zip(torch.split(x, _CHUNK), torch.split(degrees, _CHUNK), strict=True))
    if authors:
        return torch.cat([pixels.rotate(part, angle, mode="nearest", expand=True) for part, angle in pairs])
    turned = (pixels.rotate(pixels.to_float(part), angle) for part, angle in pairs)
    return torch.cat([part.mul(255).round_().clamp_(0, 255).to(torch.uint8) for part in turned])


def tilted(pictures: Pictures, stream: str, *, limit: float = 30.0, authors: bool = False) -> Pictures:
    """Every picture rotated once, uniform in (-limit, limit) degrees: a pure function of its number and `stream`."""
    angle = Draws(_SEED, f"data/tilt/{stream}", keys=len(pictures)).uniform(1, -limit, limit)[:, 0]
    return Pictures(_turned(pictures.pixels, angle, authors), pictures.labels, pictures.ids)


def copies(pictures: Pictures, *, authors: bool = False) -> Pictures:
    """The five copies of every picture, N x 5 in a row, ids ``ID@-30`` to ``ID@+30`` (tilt+)."""
    angle = torch.tensor(ANGLES).repeat(len(pictures))
    repeated = pictures.pixels.repeat_interleave(len(ANGLES), 0)
    ids = tuple(f"{name}@{angle:+.0f}" for name in pictures.ids for angle in ANGLES)
    return Pictures(_turned(repeated, angle, authors), pictures.labels.repeat_interleave(len(ANGLES)), ids)


def mnist_tilt(
    protocol: str = "standard",
    train: int | None = None,
    valid: Amount | None = None,
    test: int | None = None,
    upright: bool = False,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
) -> Split:
    """The word ``mnist-tilt``.

    ``standard``: 55,000 train, 5,000 validation (redrawn out of train with each repeat) and the official 10,000 test,
    each picture tilted once; ``shifted["rotated"]`` is the test set's tilt+, 50,000 pictures.
    ``authors``: train 8,500 tilted, validation 2,500 and test 5,000 (tilt+ of 500 and 1,000 pictures);
    ``shifted["tilted"]`` is the test set's tilt alone. The test pictures are drawn by seed, validation with each
    repeat.

    Args:
        protocol: ``standard`` or ``authors``.
        train, valid, test: numbers of pictures before copying, where they shall differ from the protocol's.
        upright: the training pictures are not tilted, validation and test pictures are (the appendix on distillation).
    """
    if protocol not in ("standard", "authors"):
        raise AugendError(
            f"mnist-tilt: unknown protocol {protocol!r}{nearest(str(protocol), ['standard', 'authors'])}"
            " (known: standard, authors)"
        )
    own_train, own_test = mnist_pictures(root)
    notes: tuple[str, ...] = ()
    if protocol == "authors":
        everything = tilted(own_test, "mnist/authors", authors=True)
        # Plain shuffling, not stratified, as published: with one label for all, a stratified split is just that.
        alike = torch.zeros_like(everything.labels)
        count = 1000 if test is None else test
        rest, exam = stratified(alike, (None, count), Draws(seed, "data/test"), what="mnist-tilt: test")
        parts = stratified(
            alike[rest],
            (train, 500 if valid is None else valid),
            Draws(seed, "data/split", repeat),
            what="mnist-tilt: train + valid",
        )
        tilt = everything.take(exam)
        source = own_test if upright else everything
        pieces = source.take(rest[parts[0]]), copies(everything.take(rest[parts[1]]), authors=True)
        final, shifted = copies(tilt, authors=True), {"tilted": tilt}
        notes = ("validation and test hold five rotated copies of each picture; 'tilted' is the test set without them",)
    else:
        amount = 5000 if valid is None else valid
        pool = tilted(own_train, "mnist/train")
        pieces = two_ways(pool, amount, train, seed, repeat, what="mnist-tilt")
        if upright:  # the same pictures, untilted
            pieces = two_ways(own_train, amount, train, seed, repeat, what="mnist-tilt")[0], pieces[1]
        final = limited(tilted(own_test, "mnist/test"), test, seed, what="mnist-tilt: test")
        shifted = {"rotated": copies(final)}
    return Split(
        "mnist-tilt",
        DIGITS,
        *pieces,
        final,
        traits=DIGIT_TRAITS,
        shifted=shifted,
        fixed_test=True,
        seed=seed,
        repeat=repeat,
        notes=notes,
    )


def tilted_digits(train: int = 200, valid: Amount = 200, *, seed: int = 0, repeat: int = 0) -> Split:
    """The word ``tilted-digits``: the embedded digits, each tilted once by up to 30 degrees.

    400 pictures (`train` + `valid`) are drawn by seed, and divided anew with each repeat; the other 1,397 are the
    fixed test set, their five copies ``shifted["rotated"]``. Small data where rotations matter: the default of
    ``augend compare``.

    Example:
        >>> split = tilted_digits()
        >>> len(split.train), len(split.valid), len(split.test), len(split.shifted["rotated"])
        (200, 200, 1397, 6985)
    """
    everything = tilted(embedded_digits(), "digits")
    if isinstance(valid, float):
        valid = round(valid * train)
    pool, exam = stratified(
        everything.labels, (train + valid, None), Draws(seed, "data/test"), what="tilted-digits: train + valid"
    )
    pieces = two_ways(everything.take(pool), valid, train, seed, repeat, what="tilted-digits")
    test = everything.take(exam)
    return Split(
        "tilted-digits",
        DIGITS,
        *pieces,
        test,
        traits=DIGIT_TRAITS,
        shifted={"rotated": copies(test)},
        fixed_test=True,
        seed=seed,
        repeat=repeat,
    )
