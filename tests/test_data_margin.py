"""A margin around what is seen of larger pictures: crops are cut out of it, everything else sees the middle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as v2

import augend
import photos
from augend.augment.chain import Chain
from augend.augment.geometry import HFlip, ResizedCrop, Rotate
from augend.data import Pictures, Split, load
from augend.data.rows import centred
from augend.evaluate.pictures import read_picture
from augend.randomness import Draws
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, start

SIDE, STORED = 32, 37  # 1.15 * 32 = 36.8

RECIPE = """
phases:
- {name: views, until: 6step, batch: 8, augment: {views: {a: [{resized-crop: {}}, {hflip: {}}], b: {rotate: {}}}}}
- {name: plain, until: 4step, batch: 8}
"""


def big(base: Path, size: tuple[int, int] = (120, 90)) -> Path:
    return photos.fill(base, {"a": 20, "b": 20}, size=size)


def test_larger_files_keep_a_margin_and_small_ones_none(tmp_path: Path) -> None:
    split = load(big(tmp_path / "data"), size=SIDE)
    assert split.shape == (3, SIDE, SIDE) and split.train.kept.shape[1:] == (3, STORED, STORED)
    assert split.resize == STORED and split.record()["resize"] == STORED
    name = split.test.ids[3]
    with Image.open(tmp_path / "data" / name) as opened:
        whole = v2.pil_to_tensor(opened.convert("RGB").copy())
    # as torchvision's Resize and CenterCrop show it (Pillow's own antialiased filter rounds differently)
    oracle = v2.center_crop(v2.resize(whole, [STORED], antialias=True), [SIDE, SIDE])
    assert (split.test.pixels[3].float() - oracle.float()).abs().max() <= 6
    assert (split.test.pixels[3].float() - oracle.float()).abs().mean() < 0.6
    assert load(tmp_path / "data", size=88).resize == 88  # hardly larger: 90 pixels are nearer to 88 than to 101
    assert load(tmp_path / "data", size=80).resize == 92
    assert load(tmp_path / "data", size=SIDE, fit="pad").resize == SIDE
    assert load(big(tmp_path / "small", (32, 40)), size=SIDE).resize == SIDE


def test_everything_keeps_its_margin(tmp_path: Path) -> None:
    split = load(big(tmp_path / "data"), size=SIDE)
    stored = load(tmp_path / "data", size=SIDE, memory=0)
    assert stored.train.streamed and stored.digest == split.digest
    for pictures in (split.train, stored.train):
        index = torch.tensor([[3], [0]])
        seen, labels = pictures.fetch(index)
        whole, same = pictures.fetch(index, whole=True)
        assert seen.shape == (2, 1, 3, SIDE, SIDE) and whole.shape == (2, 1, 3, STORED, STORED)
        assert torch.equal(seen, whole[..., 2:34, 2:34]) and torch.equal(labels, same)
        taken = pictures.take([5, 1])
        assert taken.margin and torch.equal(taken.pixels[:], split.train.pixels[[5, 1]])
        joined = pictures.joined(split.valid if pictures is split.train else stored.valid)
        assert joined.margin and joined.shape == pictures.shape and len(joined) == 32
        half = pictures.resized(16)
        assert half.shape == (3, 16, 16) and half.kept.shape[1:] == (3, 18, 18)
        assert torch.equal(half.pixels[:], centred(half.kept[:], (16, 16)))
        assert pictures.resident().margin and torch.equal(torch.cat([*pictures.parts()]), split.train.pixels)
        assert torch.equal(torch.cat([*pictures.parts(whole=True)]), split.train.kept)
    held = split.hold({"external": 4}).held["external"]
    assert held.margin and held.shape == (3, SIDE, SIDE)
    # The margin is part of what is trained on, so it is part of the digest.
    other = Pictures.with_margin(split.train.kept.roll(1, 0), (SIDE, SIDE), split.train.labels, split.train.ids)
    edges = split.train.kept.clone()
    edges[0, 0, 0, 0] ^= 1
    touched = Pictures.with_margin(edges, (SIDE, SIDE), split.train.labels, split.train.ids)
    made = [
        Split("x", ("a", "b"), train, split.valid, split.test, frozenset()).digest
        for train in (split.train, other, touched)
    ]
    assert len(set(made)) == 3 and torch.equal(touched.pixels, split.train.pixels)


def test_crops_come_out_of_the_whole_as_torchvisions_do(tmp_path: Path) -> None:
    train = load(big(tmp_path / "data"), size=SIDE).train
    chain = Chain([HFlip(p=1.0), ResizedCrop(scale=(0.2, 1.0))], (SIDE, SIDE))
    assert chain.reaches
    params = chain.draw(Draws(0, "margin", keys=len(train)), 0.0)
    made = chain.apply(train.kept, params)
    assert made.shape == (len(train), 3, SIDE, SIDE)
    boxes = ResizedCrop(scale=(0.2, 1.0)).boxes(params[:, 1:], STORED, STORED)
    beyond = 0
    for row, (top, left, high, wide) in enumerate(boxes.tolist()):
        flipped = v2.horizontal_flip(train.kept[row]).float() / 255
        oracle = v2.resized_crop(flipped, top, left, high, wide, [SIDE, SIDE], antialias=False)
        assert torch.allclose(made[row], oracle, atol=2e-5)
        beyond += top < 2 or left < 2 or top + high > 34 or left + wide > 34
    assert beyond > len(train) / 3  # of the boxes many reach into the margin


def test_other_chains_are_given_the_middle() -> None:
    assert not Chain([Rotate(10.0), ResizedCrop()], (SIDE, SIDE)).reaches
    assert not Chain([HFlip()], (SIDE, SIDE)).reaches and not Chain([], (SIDE, SIDE)).reaches
    assert not Chain([ResizedCrop()]).reaches
    same, x = Chain([ResizedCrop()], (SIDE, SIDE)), torch.rand(4, 3, SIDE, SIDE)
    params = same.draw(Draws(0, "margin", keys=4), 0.0)
    assert torch.equal(same.apply(x, params), Chain([ResizedCrop()]).apply(x, params))


@pytest.mark.parametrize("memory", ["", "1k"])
def test_a_run_on_large_files_ends_in_a_model_that_reads_them(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))
    if memory:
        monkeypatch.setenv("AUGEND_MEMORY", memory)
    data = big(tmp_path / "data")
    (tmp_path / "two.yaml").write_text(RECIPE)
    job = Job(data=str(data), recipe=str(tmp_path / "two.yaml"), model="small", size=SIDE)
    start(job, RunFolder(tmp_path / "run"), Hardware(threads=1))
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    spent = ledger["total"]["seconds"]["decoding"]
    assert spent > 0 and ledger["phases"]["plain"]["seconds"]["decoding"] == 0
    assert ledger["total"]["training_seconds"] - ledger["total"]["marginal_seconds"] == pytest.approx(spent)
    model = augend.load(tmp_path / "run")
    assert model.resize == STORED and model.shape == (3, SIDE, SIDE)
    with np.load(tmp_path / "run" / "predictions.npz") as stored:
        rows = {name: p for name, p, s in zip(stored["ids"], stored["probabilities"], stored["split"]) if s == "test"}  # noqa: B905
    for name in list(rows)[:4]:
        shown = model.probabilities(read_picture(model, data / name)[None])[0]
        assert torch.allclose(shown, torch.from_numpy(rows[name]), atol=1e-5)
        with Image.open(data / name) as opened:
            tensor = v2.pil_to_tensor(opened.convert("RGB"))
        assert model.fitted(tensor).shape == (1, 3, SIDE, SIDE)
        assert torch.allclose(model.probabilities(tensor)[0], shown, atol=0.05)  # torch's filter instead of Pillow's
