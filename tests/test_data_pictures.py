"""Pictures and Split: fetching, statistics, digests, resizing, records, data sets of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from augend.contract import AugendError
from augend.data import Pictures, Split, from_dataset, load


def some(n: int, channels: int = 3, side: int = 6, seed: int = 0) -> Pictures:
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=g)
    return Pictures(pixels, torch.arange(n) % 3, tuple(f"p{seed}/{i}" for i in range(n)))


def split(**changes: object) -> Split:
    pieces = {"train": some(30), "valid": some(6, seed=1), "test": some(9, seed=2)}
    rest = {"name": "mine", "classes": ("a", "b", "c"), "traits": frozenset({"crop"})}
    return Split(**{**rest, **pieces, **changes})  # type: ignore[arg-type]


def test_fetch_is_indexing() -> None:
    pictures = some(10)
    index = torch.tensor([[3, 3], [0, 9], [5, 1]])
    pixels, labels = pictures.fetch(index)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 2, 3, 6, 6)
    assert torch.equal(pixels, pictures.pixels[index]) and torch.equal(labels, pictures.labels[index])
    with pytest.raises(IndexError):
        pictures.fetch(torch.tensor([[10]]))


def test_take_copies_and_keeps_order() -> None:
    pictures = some(5)
    taken = pictures.take([4, 0])
    assert taken.ids == ("p0/4", "p0/0") and torch.equal(taken.labels, pictures.labels[[4, 0]])
    taken.pixels.zero_()
    assert pictures.pixels[4].any()
    assert len(pictures.take([])) == 0


def test_resized_agrees_with_torchvision() -> None:
    from torchvision.transforms.v2 import functional

    pictures = some(4, side=32)
    for side in (19, 64):
        wanted = functional.resize(pictures.pixels.float(), [side, side], antialias=True).round().clamp(0, 255)
        got = pictures.resized(side).pixels
        assert got.dtype == torch.uint8 and (got.float() - wanted).abs().max() <= 1
        assert (got.float() != wanted).float().mean() < 1e-3
    assert pictures.resized(32) is pictures
    wide = Pictures(torch.zeros(2, 1, 10, 20, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), ("a", "b"))
    assert wide.resized(5).shape == (1, 5, 10)


def test_mean_and_std_are_exact() -> None:
    data = split(train=some(2100))  # over more than one chunk
    x = data.train.pixels.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), x.mean((0, 2, 3)), atol=1e-7, rtol=0)
    torch.testing.assert_close(torch.tensor(data.std).double(), x.std((0, 2, 3), correction=0), atol=1e-7, rtol=0)
    black = some(4)
    black.pixels.zero_()
    flat = split(train=black)
    assert flat.mean == (0.0, 0.0, 0.0) and flat.std == (1 / 255,) * 3


def test_digest_sees_every_pixel_label_and_place() -> None:
    base = split()
    assert base.digest == split().digest and base.ids_digest == split().ids_digest
    pixel = split()
    pixel.test.pixels[8, 2, 5, 5] ^= 1
    label = split()
    label.valid.labels[0] = 2
    swapped = split(valid=some(9, seed=2), test=some(6, seed=1))
    assert len({base.digest, pixel.digest, label.digest, swapped.digest}) == 4
    assert base.ids_digest == pixel.ids_digest != swapped.ids_digest


def test_hold_cuts_from_train_and_is_stable() -> None:
    base = load("digits", seed=3, repeat=1)
    held = base.hold({"external": 0.1, "other": 20})
    assert len(held.held["external"]) == 108 and len(held.held["other"]) == 20
    ids = [set(held.train.ids), set(held.held["external"].ids), set(held.held["other"].ids)]
    assert set.union(*ids) == set(base.train.ids) and sum(map(len, ids)) == len(base.train)
    assert held.held["external"].ids == base.hold({"external": 0.1, "other": 20}).held["external"].ids
    assert min(held.held["external"].counts(10)) >= 10
    assert held.test.ids == base.test.ids and held.digest != base.digest
    with pytest.raises(AugendError, match="hold"):
        base.hold({"external": 5000})


def test_to_and_resized_carry_everything() -> None:
    base = split(shifted={"rotated": some(3, seed=4)}, held={"external": some(3, seed=5)}, notes=("n",))
    digest = base.digest
    moved = base.to("cpu")
    assert moved.digest == digest and set(moved.pieces()) == set(base.pieces()) and moved.notes == ("n",)
    small = base.resized(4)
    assert {p.shape for p in small.pieces().values()} == {(3, 4, 4)} and small.digest != digest


def test_record_is_json_and_says_who_is_where() -> None:
    data = split(shifted={"rotated": some(3, seed=4)})
    record = json.loads(json.dumps(data.record()))
    assert record["counts"] == {"train": [10] * 3, "valid": [2] * 3, "test": [3] * 3, "shifted/rotated": [1] * 3}
    assert record["digest"] == data.digest and record["name"] == "mine" and record["traits"] == ["crop"]


def test_majority() -> None:
    train = some(5)
    train.labels[:] = torch.tensor([1, 1, 1, 0, 2])
    test = some(4)
    test.labels[:] = torch.tensor([1, 0, 0, 2])
    assert split(train=train, test=test).majority() == ("b", 0.25)


@pytest.mark.parametrize(
    "change",
    [
        {"traits": frozenset({"flip"})},
        {"test": some(3, side=7)},
        {"classes": ("a", "b")},
    ],
)
def test_a_split_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AugendError, match="mine"):
        split(**change)


def test_pictures_that_cannot_be_are_refused() -> None:
    good = some(2)
    for pixels, labels, ids in [
        (good.pixels.float(), good.labels, good.ids),
        (good.pixels[0], good.labels, good.ids),
        (good.pixels, good.labels.int(), good.ids),
        (good.pixels, good.labels[:1], good.ids),
        (good.pixels, good.labels, good.ids[:1]),
    ]:
        with pytest.raises(AugendError):
            Pictures(pixels, labels, ids)


# ---------------------------------------------------------------------------------------------- from_dataset


def test_all_kinds_of_pictures_give_the_same_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    chw = torch.from_numpy(array).permute(2, 0, 1)
    kinds = [Image.fromarray(array), array, chw, chw.float() / 255, array.astype(np.float64) / 255]
    data = from_dataset([(k, i % 2) for i, k in enumerate(kinds)], [(array, 1)])
    assert data.shape == (3, 5, 4) and data.train.labels.tolist() == [0, 1, 0, 1, 0]
    assert all(torch.equal(p, chw) for p in data.train.pixels)
    assert len(data.test) == 0 and not data.fixed_test and data.classes == ("0", "1") and "colour" in data.traits
    data.record()
    grey = from_dataset([(array[:, :, 0], 0), (chw[0], torch.tensor(1))], [(Image.fromarray(array[:, :, 0]), 0)])
    assert grey.shape == (1, 5, 4) and torch.equal(grey.train.pixels[0], grey.train.pixels[1])
    assert "colour" not in grey.traits


def test_torchvision_data_set_brings_its_classes() -> None:
    from torchvision.datasets import FakeData

    fake = FakeData(size=6, image_size=(3, 8, 8), num_classes=3)
    fake.classes = ["x", "y", "z"]
    data = from_dataset(fake, fake, test=fake)
    assert data.classes == ("x", "y", "z") and data.fixed_test and len(data.test) == 6
    pictures = some(3)
    assert from_dataset(pictures, pictures).train is pictures


PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "empty"),
        ([PICTURE], "not a pair"),
        ([(PICTURE, 0), (np.zeros((5, 4, 3), np.uint8), 0)], "picture 1"),
        ([(torch.randn(3, 4, 4), 0)], "normalisation"),
        ([(torch.full((3, 4, 4), float("nan")), 0)], "nan"),
        ([(torch.zeros(3, 4, 4, dtype=torch.int64), 0)], "int64"),
        ([(PICTURE.transpose(2, 0, 1), 0)], "shape"),
        ([("cat.jpg", 0)], "shape|str"),
        ([(PICTURE, "cat")], "label 0"),
        ([(PICTURE, -1)], "label 0"),
    ],
)
def test_mistakes_are_one_line(items: list[object], says: str) -> None:
    with pytest.raises(AugendError, match=says) as caught:
        from_dataset(items, [(PICTURE, 0)])
    assert "train" in str(caught.value) and "\n" not in str(caught.value)
