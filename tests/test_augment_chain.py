"""Chains: stability of draws, finite variants, mixing, uint8, descriptions; the grid of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from augend import augment, pixels
from augend.augment.chain import Chain
from augend.augment.colour import Brightness, Erase, Grayscale, Jitter, Noise
from augend.augment.geometry import HFlip, PaddedCrop, ResizedCrop, Rotate, Rotations, VFlip
from augend.augment.grid import grid
from augend.augment.network import Apply
from augend.augment.trivial import Trivial
from augend.contract import AugendError, Augment, Component, Mixing
from augend.randomness import Draws

KEYS = Draws(0, "test", 2, 32)


class Mean:
    """Sums of k pictures, k falling over the phase."""

    word = "mean"
    variants: int | None = None

    def sources(self, progress: float) -> int:
        return 3 if progress < 0.5 else 2

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        return draws.uniform(2)

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack(list(x)).mean(0), torch.stack(list(targets)).mean(0)


def levels(rows: int = 32, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randint(
        0, 256, (rows, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def test_is_an_augmentation() -> None:
    assert isinstance(Chain([]), Augment) and isinstance(Mean(), Mixing) and not isinstance(Chain([]), Mixing)


def test_empty_chain_is_the_identity() -> None:
    chain, x = Chain(), pixels.to_float(levels())
    params = chain.draw(KEYS, 0.0)
    assert chain.variants == 1 and torch.equal(params, torch.zeros(32, 1))
    assert torch.equal(chain.apply(x, params), x) and chain.sources(0.0) == 1


def test_applies_in_order_what_each_drew() -> None:
    ops: list[Augment] = [PaddedCrop(2), HFlip(), Brightness(0.5), Erase()]
    chain, x = Chain(ops), pixels.to_float(levels())
    params = chain.draw(KEYS, 0.3)
    assert params.shape == (32, 2 + 1 + 1 + 23) and chain.variants is None
    expected = x
    for op, name in zip(ops, ["0:crop", "1:hflip", "2:brightness", "3:erase"], strict=True):
        expected = op.apply(expected, op.draw(KEYS.child(name), 0.3))
    assert torch.equal(chain.apply(x, params), expected)


def test_an_operation_added_later_changes_no_earlier_draw() -> None:
    short, long = Chain([PaddedCrop(), Rotate()]), Chain([PaddedCrop(), Rotate(), HFlip(), Noise()])
    assert torch.equal(long.draw(KEYS, 0.0)[:, :3], short.draw(KEYS, 0.0))
    flip, both = Chain([HFlip()]), Chain([HFlip(), Rotations()])
    assert torch.equal(both.draw(KEYS, 0.0) % 2, flip.draw(KEYS, 0.0))
    twice = Chain([PaddedCrop(), PaddedCrop()]).draw(KEYS, 0.0)
    assert not torch.equal(twice[:, :2], twice[:, 2:])  # equal operations draw different numbers


def test_draws_depend_on_the_row_alone() -> None:
    rows = torch.tensor([30, 2, 9])
    for chain in (Chain([PaddedCrop(), HFlip()]), Chain([HFlip(), Rotations()]), Chain([PaddedCrop(), Mean()])):
        assert torch.equal(chain.draw(KEYS.rows(rows), 0.0), chain.draw(KEYS, 0.0)[rows])


def test_finite_chain_counts_its_variants() -> None:
    flip, turn, grey = HFlip(), Rotations([0, 90, -45]), Grayscale(0.5)
    chain, x = Chain([flip, turn, grey]), pixels.to_float(levels(12))
    assert chain.variants == 12
    params = chain.draw(Draws(0, "any", keys=12), 0.0, torch.arange(12))
    assert params[:, 0].tolist() == list(range(12))
    shown = chain.apply(x[:1].expand(12, -1, -1, -1), params)
    for number in range(12):
        expected = flip.apply(x[:1], torch.tensor([[number % 2]]))
        expected = turn.apply(expected, torch.tensor([[number // 2 % 3]]))
        expected = grey.apply(expected, torch.tensor([[number // 6]]))
        assert torch.equal(shown[number], expected[0])
    assert torch.equal(shown[0], x[0])
    drawn = chain.draw(Draws(1, "many", keys=2400), 0.0)
    assert drawn.shape == (2400, 1)
    assert float((drawn[:, 0].long().bincount(minlength=12) / 2400 - 1 / 12).abs().max()) < 0.03
    with pytest.raises(AugendError, match="chain: copy must be 3 variant numbers from 0 to 11"):
        chain.draw(Draws(0, "any", keys=3), 0.0, torch.tensor([0, 1, 12]))


def test_too_many_variants_to_count_are_infinite() -> None:
    many = Chain([Rotations([float(angle) for angle in range(200)])] * 4)
    assert many.variants is None and many.draw(KEYS, 0.0).shape == (32, 4)
    x = pixels.to_float(levels(4, 1, 5))
    assert many.apply(x, torch.zeros(4, 4)).equal(x)


def test_chains_nest() -> None:
    chain = Chain([Chain([HFlip(), VFlip()]), Rotations([0, 10])])
    assert chain.variants == 8
    x, copy = pixels.to_float(levels(8)), torch.arange(8)
    flat = Chain([HFlip(), VFlip(), Rotations([0, 10])])
    assert torch.equal(chain.apply(x, chain.draw(KEYS.rows(copy), 0.0, copy)), flat.apply(x, copy.float()[:, None]))


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [PaddedCrop(), HFlip()],
        [HFlip(), VFlip()],
        [HFlip(), Jitter(), VFlip()],
        [ResizedCrop(), HFlip(), Trivial()],
        [Apply().bind(lambda x: 1 - x)],
    ],
    ids=lambda ops: "+".join(op.word for op in ops) or "none",
)
def test_bytes_give_the_bits_of_floats(ops: Sequence[Augment]) -> None:
    chain, x = Chain(ops), levels()
    params = chain.draw(KEYS, 0.0)
    out = chain.apply(x, params)
    assert out.dtype == torch.float32 and torch.equal(out, chain.apply(pixels.to_float(x), params))


@pytest.mark.slow
def test_compiled_gives_the_bits_of_eager() -> None:
    chain, x = Chain([PaddedCrop(), HFlip(), VFlip()]), levels()
    params = chain.draw(KEYS, 0.0)
    compiled = torch.compile(chain.apply, dynamic=False, fullgraph=True)
    assert torch.equal(compiled(x, params), chain.apply(x, params))


def test_mixing_is_kept_apart() -> None:
    chain, plain, x = Chain([PaddedCrop(2), HFlip(), Mean()]), Chain([PaddedCrop(2), HFlip()]), levels(32)
    assert chain.mixing is not None and len(chain.ops) == 2 and chain.variants is None
    for progress, sources in ((0.0, 3), (0.9, 2)):
        assert chain.sources(progress) == sources
        rows = Draws(0, "test", 2, 8)
        params = chain.draw(rows, progress)
        own, mixing = chain.split(params, sources)
        assert own.shape == (8 * sources, 3) and torch.equal(mixing, rows.child("2:mean").uniform(2))
        assert torch.equal(own[::sources], plain.draw(rows, progress))  # the first picture as without mixing
        assert not torch.equal(own[1::sources], own[::sources])  # the others by themselves
        made = chain.apply(x[: 8 * sources], own)
        assert torch.equal(made, plain.apply(x[: 8 * sources], own))
    alone = Chain([Mean()])
    own, mixing = alone.split(alone.draw(rows, 0.0), 3)
    assert own.shape == (24, 0) and mixing.shape == (8, 2)
    assert torch.equal(alone.apply(x[:24], own), pixels.to_float(x[:24]))


def test_mixing_comes_once_and_last() -> None:
    with pytest.raises(AugendError, match="mix pictures only once, found mean, mean"):
        Chain([Mean(), Mean()])
    with pytest.raises(AugendError, match="mean mixes pictures, so it must be the last"):
        Chain([Mean(), HFlip()])


def test_description() -> None:
    chain = augment.chain([Component("crop"), Component("hflip", {"p": 0.2})])
    assert json.loads(chain.describe()) == [{"crop": {"padding": 4}}, {"hflip": {"p": 0.2}}]
    assert Chain([Mean()]).describe() == Chain([Mean()]).describe() != Chain([]).describe()


@pytest.mark.parametrize("mixing", [False, True])
def test_grid(mixing: bool) -> None:
    pictures = levels(3, 3, 8)
    chain = Chain([HFlip(1.0), Mean()]) if mixing else Chain([HFlip(1.0)])
    page = grid(pictures, chain, Draws(0, "grid"), columns=2)
    assert page.dtype == torch.uint8 and page.shape == (3, 3 * 10 + 2, 3 * 10 + 2)
    assert (page[:, :2] == 255).all() and (page[:, :, :2] == 255).all() and (page[:, :, 10:12] == 255).all()
    for line in range(3):
        tiles = [page[:, 2 + 10 * line : 10 + 10 * line, 2 + 10 * c : 10 + 10 * c] for c in range(3)]
        assert torch.equal(tiles[0], pictures[line])
        flipped = pictures.flip(-1).float()
        expected = flipped[[line, (line + 1) % 3, (line + 2) % 3]].mean(0) if mixing else flipped[line]
        for tile in tiles[1:]:
            assert float((tile.float() - expected).abs().max()) <= 0.5 + 1e-3
