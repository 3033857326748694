"""The tilt data: drawn once, the same everywhere, tilt+ and the two protocols."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from augend.data import load
from augend.data.digits import embedded_digits
from augend.data.tilt import ANGLES, copies, tilted
from augend.randomness import Draws

ROOT = os.environ.get("AUGEND_DATA")
needs_mnist = pytest.mark.skipif(
    ROOT is None or not Path(ROOT, "MNIST", "raw").is_dir(), reason="AUGEND_DATA has no MNIST/raw"
)


def test_tilt_turns_each_picture_once_by_up_to_30_degrees() -> None:
    from torchvision.transforms.v2 import InterpolationMode, functional

    upright = embedded_digits().take(range(40))
    got = tilted(upright, "t")
    angles = Draws(1, "data/tilt/t", keys=40).uniform(1, -30, 30)[:, 0]
    assert angles.min() < -20 and angles.max() > 20
    for i, angle in enumerate(angles.tolist()):
        wanted = functional.rotate(upright.pixels[i].float() / 255, angle, InterpolationMode.BILINEAR)
        assert (got.pixels[i].float() - wanted * 255).abs().max() < 0.51 + 255 * 1e-4
    assert torch.equal(got.labels, upright.labels) and got.ids == upright.ids


def test_a_tilt_belongs_to_the_picture_not_to_its_neighbours() -> None:
    upright = embedded_digits()
    assert torch.equal(tilted(upright, "t").pixels[:5], tilted(upright.take(range(5)), "t").pixels)


def test_copies_hold_the_picture_itself_in_the_middle() -> None:
    upright = embedded_digits().take(range(7))
    five = copies(upright)
    assert len(five) == 35 and five.ids[:5] == tuple(f"digits/0000@{a:+.0f}" for a in ANGLES)
    assert torch.equal(five.pixels[2::5], upright.pixels) and five.labels[:6].tolist() == [0] * 5 + [1]
    assert not torch.equal(five.pixels[0::5], five.pixels[4::5])


def test_authors_rotation_is_pillows_enlarged_canvas_shrunk_back() -> None:
    upright = embedded_digits().take(range(12))
    five = copies(upright, authors=True)
    assert torch.equal(five.pixels[2::5], upright.pixels)
    differ = []
    for i in range(12):
        picture = Image.fromarray(upright.pixels[i, 0].numpy())
        for k, angle in enumerate(ANGLES):
            turned = picture.rotate(angle, resample=Image.Resampling.NEAREST, expand=True)
            wanted = np.asarray(turned.resize((28, 28), Image.Resampling.NEAREST))
            differ.append(float((five.pixels[5 * i + k, 0].numpy() != wanted).mean()))
    assert max(differ) < 0.02  # a neighbour now and then, by Pillow's fixed-point steps


def test_tilted_digits_keep_their_test_set_over_repeats() -> None:
    splits = [load("tilted-digits", repeat=r) for r in range(3)]
    first = splits[0]
    assert (len(first.train), len(first.valid), len(first.test)) == (200, 200, 1397) and first.fixed_test
    assert len({*first.train.ids, *first.valid.ids, *first.test.ids}) == 1797
    assert min(first.train.counts(10)) >= 19 and max(first.train.counts(10)) <= 21
    for other in splits[1:]:
        assert other.test.ids == first.test.ids and torch.equal(other.test.pixels, first.test.pixels)
        assert other.train.ids != first.train.ids
        assert {*other.train.ids, *other.valid.ids} == {*first.train.ids, *first.valid.ids}
    assert len(first.shifted["rotated"]) == 5 * 1397
    assert torch.equal(first.shifted["rotated"].pixels[2::5], first.test.pixels)
    # the tilts belong to the data: another seed draws another split of the same pictures
    other = load("tilted-digits", seed=1)
    where = {name: i for i, name in enumerate(other.test.ids)}
    common = [(i, where[name]) for i, name in enumerate(first.test.ids) if name in where]
    assert 0 < len(common) < 1397
    assert all(torch.equal(first.test.pixels[i], other.test.pixels[j]) for i, j in common)
    assert not first.traits & {"hflip", "vflip", "colour"} and {"rotate", "crop"} <= first.traits


def test_tilted_digits_are_the_same_in_another_process() -> None:
    code = "from augend.data import load; print(load('tilted-digits', seed=2, repeat=1).digest)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == load("tilted-digits", seed=2, repeat=1).digest


@needs_mnist
def test_standard_protocol() -> None:
    # Fewer pictures than the protocol's, so that the test is short; the default numbers are MNIST's own.
    split = load("mnist-tilt:train=1000,valid=500,test=200")
    assert [len(p) for p in split.pieces().values()] == [1000, 500, 200, 1000]
    upright = load("mnist:train=1000,valid=500,test=200")
    assert split.train.ids == upright.train.ids and split.test.ids == upright.test.ids
    assert not torch.equal(split.train.pixels, upright.train.pixels)
    assert torch.equal(split.shifted["rotated"].pixels[2::5], split.test.pixels)


@needs_mnist
def test_authors_protocol() -> None:
    split = load("mnist-tilt:protocol=authors")
    sizes = {name: len(pictures) for name, pictures in split.pieces().items()}
    assert sizes == {"train": 8500, "valid": 2500, "test": 5000, "shifted/tilted": 1000}
    assert all(name.startswith("test/") for name in split.train.ids)  # the MNIST test file alone
    apart = [{name.split("@")[0] for name in p.ids} for p in (split.train, split.valid, split.test)]
    assert [len(a) for a in apart] == [8500, 500, 1000] and len(set.union(*apart)) == 10000
    assert torch.equal(split.test.pixels[2::5], split.shifted["tilted"].pixels)
    again = load("mnist-tilt:protocol=authors", repeat=1)
    assert again.test.ids == split.test.ids and again.train.ids != split.train.ids
    # copies shrink: the ink of a digit turned by 30 degrees more covers less
    ink = split.test.pixels.float().mean((1, 2, 3)).view(-1, 5).mean(0)
    assert ink[0] < ink[2] and ink[4] < ink[2]


@needs_mnist
@pytest.mark.parametrize("protocol", ["standard", "authors"])
def test_upright_changes_the_training_pictures_alone(protocol: str) -> None:
    few = "train=200,valid=50,test=60"
    tilted_, upright = (load(f"mnist-tilt:protocol={protocol},{few},upright={word}") for word in ("false", "true"))
    assert tilted_.train.ids == upright.train.ids and tilted_.valid.ids == upright.valid.ids
    assert torch.equal(tilted_.valid.pixels, upright.valid.pixels) and torch.equal(
        tilted_.test.pixels, upright.test.pixels
    )
    assert not torch.equal(tilted_.train.pixels, upright.train.pixels)
    raw = load("mnist:train=200").train.pixels.sum() / 200  # upright pictures have the brightness of MNIST
    assert upright.train.pixels.sum() / 200 == pytest.approx(float(raw), rel=0.05)
