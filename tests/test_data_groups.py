"""What belongs together never crosses a split: copies, near-duplicates, bursts, groups of the user's."""

from __future__ import annotations

import hashlib
import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import photos
from augend.contract import AugendError
from augend.data import Pictures, Split, load, stratified
from augend.data.alike import BANDS, BITS, Union, find_links, hashes, most_together, near_pairs, together
from augend.data.decode import look
from augend.data.listing import grouped_by
from augend.randomness import Draws
from augend.runner.job import Job, load_splits

ROOT = os.environ.get("AUGEND_DATA")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))


def places(split: Split) -> dict[str, str]:
    """Which piece each picture is in."""
    return {name: piece for piece, pictures in split.pieces().items() for name in pictures.ids}


def greys_of(images: list[Image.Image], folder: Path) -> np.ndarray:
    found = []
    for i, image in enumerate(images):
        image.save(folder / f"{i}.png")
        found.append(look(folder / f"{i}.png", 32).greys)
    return np.stack(found)


# ---------------------------------------------------------------------------------------------- looks


def test_the_hash_is_the_cosine_transforms() -> None:
    from scipy.fft import dctn

    greys = np.random.default_rng(0).integers(0, 256, (200, 32, 32), np.uint8)
    low = dctn(greys.astype(float), axes=(1, 2), norm="ortho")[:, 1:9, 1:9].reshape(200, 64)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    assert (np.unpackbits(bits) != np.unpackbits(hashes(greys).view(np.uint8))).mean() < 1e-3
    assert len(np.unique(hashes(greys))) == 200 and hashes(greys[:0]).shape == (0,)


def test_near_duplicates_are_found_and_others_not(tmp_path: Path) -> None:
    images: list[Image.Image] = []
    for seed in range(30):
        image = photos.photo(seed, (90, 70))
        images += [image, image.resize((45, 35)), image.resize((300, 240), Image.Resampling.LANCZOS)]
        brighter = Image.fromarray((np.asarray(image, float) * 0.97 + 3).clip(0, 255).astype(np.uint8))
        brighter.save(tmp_path / "x.jpg", quality=55)
        images.append(Image.open(tmp_path / "x.jpg").convert("RGB"))
    greys = greys_of(images, tmp_path)
    union = Union(len(images))
    union.join(near_pairs(greys, np.arange(len(images))))
    scene = np.arange(len(images)) // 4
    assert (union.roots() // 4 == scene).all()  # nothing is joined to another scene
    assert (union.roots() == 4 * scene).mean() > 0.95


def test_every_pair_within_the_distances_is_joined() -> None:
    """Against all pairs: a walk in small steps, so that hashes differ by 0, 1, 2, … bits."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (40, 32, 32)).astype(float)
    walks = [base]
    for _ in range(14):
        walks.append((walks[-1] + rng.normal(0, 3.5, base.shape)).clip(0, 255))
    greys = np.concatenate(walks).round().astype(np.uint8)
    n, own = len(greys), hashes(greys)
    bits = np.unpackbits(own.view(np.uint8).reshape(n, 8), axis=1).astype(int)
    apart = (bits[:, None] != bits[None]).sum(2)
    wide = greys.astype(int).reshape(n, -1)
    near = [(i, j) for i, j in combinations(range(n), 2) if apart[i, j] <= 4 and np.abs(wide[i] - wide[j]).mean() < 4]
    assert {apart[i, j] for i, j in near} >= {0, 2, 4}
    wanted, got = Union(n), Union(n)
    wanted.join(np.array(near))
    got.join(near_pairs(greys, np.arange(n)))
    assert np.array_equal(wanted.roots(), got.roots()) and len(np.unique(wanted.roots())) > 40


def test_bands_hold_every_bit_and_are_more_than_the_bits_that_may_differ() -> None:
    """So that two hashes that differ in so many bits are equal in at least one band."""
    assert [bit for shift, width in BANDS for bit in range(shift, shift + width)] == list(range(64))
    assert len(BANDS) > BITS


def test_thousands_of_frames_of_one_scene_are_quick_and_flat_pictures_are_alike_to_none() -> None:
    rng = np.random.default_rng(2)
    scene = rng.integers(30, 220, (32, 32))
    frames = (scene + rng.integers(-2, 3, (6000, 32, 32))).astype(np.uint8)
    union = Union(len(frames))
    union.join(near_pairs(frames, np.arange(len(frames))))
    assert not union.roots().any()
    flat = (rng.integers(0, 256, (50, 1, 1)) + rng.integers(0, 2, (50, 32, 32))).clip(0, 255).astype(np.uint8)
    assert len(near_pairs(flat, np.arange(50))) == 0


@pytest.mark.skipif(ROOT is None or not Path(ROOT, "MNIST").is_dir(), reason="AUGEND_DATA has no MNIST")
def test_hashes_alone_chain_digits_and_greys_tell_them_apart() -> None:
    pictures = load("mnist:train=100", root=ROOT).test
    resized = torch.nn.functional.interpolate(
        pictures.pixels[:2000].float(), size=(32, 32), mode="bilinear", antialias=True
    )
    greys = resized.round().to(torch.uint8)[:, 0].numpy()
    bits = np.unpackbits(hashes(greys).view(np.uint8).reshape(2000, 8), axis=1).astype(np.float32)
    apart = bits @ (1 - bits).T
    pairs = np.argwhere(np.triu(apart + apart.T <= 4, 1))
    alone, confirmed = Union(2000), Union(2000)
    alone.join(pairs)
    confirmed.join(near_pairs(greys, np.arange(2000)))
    largest = [np.unique(union.roots(), return_counts=True)[1].max() for union in (alone, confirmed)]
    assert largest[0] > 3 * largest[1]


# ---------------------------------------------------------------------------------------------- joining


def test_a_set_that_is_too_large_falls_back_to_exact_copies() -> None:
    assert [most_together(n) for n in (3, 5, 10, 40, 100, 1000)] == [1, 2, 2, 8, 10, 50]
    rng = np.random.default_rng(3)
    greys = rng.integers(0, 256, (200, 32, 32), np.uint8)
    greys[:30] = greys[0] + rng.integers(0, 2, (30, 32, 32), np.uint8) * (greys[0] < 250)  # 30 of the 100 of class 0
    greys[100:104] = greys[100]  # 4 of the 100 of class 1
    digests = [str(i) for i in range(200)]
    digests[3] = digests[2]
    files = [f"{'ab'[i // 100]}/{i}.jpg" for i in range(200)]
    labels = np.arange(200) // 100
    found = together(find_links(greys, digests, [None] * 200, files), labels)
    assert found.groups[3] == 2 and sorted(found.unlike[0].tolist()) == list(range(30)) and len(found.unlike) == 1
    assert len(np.unique(found.groups[:100])) == 99 and (found.groups[100:104] == 100).all()
    assert found.copies == 1 and found.alike == 3

    taken = [1000 + i if i < 60 else 5000 + 100 * i for i in range(200)]  # an endless burst in class 0
    bursts = together(find_links(greys, digests, taken, files), labels)
    assert bursts.bursts == [] and sorted(bursts.endless[0].tolist()) == list(range(60))
    assert np.array_equal(bursts.groups, found.groups)


def test_bursts_lie_in_one_folder_and_ten_seconds() -> None:
    greys = np.random.default_rng(4).integers(0, 256, (8, 32, 32), np.uint8)
    taken = [100, 110, 121, 105, None, 130, 131, 9]
    files = ["a/0.jpg", "a/1.jpg", "a/2.jpg", "b/3.jpg", "a/4.jpg", "a/5.jpg", "b/6.jpg", "c/7.jpg"]
    links = find_links(greys, list("abcdefgh"), taken, files)
    assert links.bursts.tolist() == [[0, 1], [2, 5]]


def test_names_of_groups() -> None:
    files = ["cat/p12_a.jpg", "cat/p12_b.jpg", "dog/p3_a.jpg"]
    assert grouped_by(r"p\d+", files) == ["p12", "p12", "p3"]
    assert grouped_by(r"/p(\d+)_|nothing", files) == ["12", "12", "3"]
    assert grouped_by("parent", files) == ["cat", "cat", "dog"]
    assert grouped_by(r".*?(p12)|.*", files) == ["p12", "p12", "dog/p3_a.jpg"]
    for wrong, says in (
        ("p(12", "no regular expression"),
        ("p12", r"in 1 of 3 paths \(first: dog/p3_a.jpg\).*'\.\*\?\(p12\)\|\.\*'"),
    ):
        with pytest.raises(AugendError, match=says) as caught:
            grouped_by(wrong, files)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- splits


def test_without_groups_splits_are_what_they_always_were() -> None:
    digest = hashlib.blake2b(digest_size=8)
    for seed, (counts, parts) in enumerate(
        [
            ([50, 30, 20], (None, 0.2, 0.2)),
            ([997, 3, 11, 400], (None, 0.2)),
            ([7] * 13, (20, 13)),
            ([5, 1, 2], (None, 3)),
        ]
    ):
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        plain = stratified(labels, parts, Draws(seed, "pinned"))
        single = stratified(labels, parts, Draws(seed, "pinned"), groups=torch.randperm(len(labels)))
        assert all(torch.equal(a, b) for a, b in zip(plain, single, strict=True))
        for part in plain:
            digest.update(part.numpy().tobytes() + b"|")
    assert digest.hexdigest() == "faab7a1850bbcdcd"  # taken before there were groups


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("parts", [(None, 0.2, 0.2), (None, 0.25), (60, 40)])
def test_groups_stay_whole_and_classes_everywhere(parts: tuple[float | None, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(12, 90, 5).tolist()
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    n = len(labels)
    groups = torch.arange(n)
    for start in rng.integers(0, n - 6, n // 6).tolist():
        groups[start : start + int(rng.integers(2, 6))] = groups[start].clone()  # some reach into the next class
    result = stratified(labels, parts, Draws(seed, "t"), groups=groups)
    again = stratified(labels, parts, Draws(seed, "t"), groups=groups)
    plain = stratified(labels, parts, Draws(seed, "t"))
    assert all(torch.equal(a, b) for a, b in zip(result, again, strict=True))
    for one, other in combinations(result, 2):
        assert not set(groups[one].tolist()) & set(groups[other].tolist())
        assert not set(one.tolist()) & set(other.tolist())
    for part, ideal in zip(result, plain, strict=True):
        assert abs(len(part) - len(ideal)) <= 5 and torch.equal(part, part.sort().values)
        have, want = (torch.bincount(labels[index], minlength=5) for index in (part, ideal))
        assert have.min() > 0 and (have - want).abs().max() <= 5
    if None in parts:
        assert sum(map(len, result)) == n


def test_a_class_in_few_groups_is_in_every_part_and_large_groups_train() -> None:
    labels = torch.tensor([0] * 30 + [1] * 60)
    groups = torch.tensor([0] * 10 + [1] * 10 + [2] * 10 + list(range(3, 63)))
    for seed in range(20):
        train, valid, test = stratified(labels, (None, 0.2, 0.2), Draws(seed, "t"), groups=groups)
        assert all(bool((labels[part] == 0).any()) for part in (train, valid, test))
    one = torch.tensor([0] * 30 + list(range(3, 63)))
    for seed in range(20):
        train, valid, test = stratified(labels, (None, 0.2, 0.2), Draws(seed, "t"), groups=one)
        assert {0} == set(groups[train].tolist()) & {0} and (labels[train] == 0).sum() == 30


def test_small_groups_are_dealt_out_in_proportion() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    groups = torch.arange(1000)
    groups[:200] = torch.arange(200) // 2
    shares = torch.zeros(3)
    for seed in range(30):
        parts = stratified(labels, (None, 0.2, 0.2), Draws(seed, "t"), groups=groups)
        shares += torch.tensor([float((part < 200).sum()) for part in parts])
    assert (shares / shares.sum() - torch.tensor([0.6, 0.2, 0.2])).abs().max() < 0.02


def test_where_one_group_goes_is_drawn_in_proportion() -> None:
    groups = torch.arange(100)
    groups[1] = 0
    hits = [0, 0, 0]
    for seed in range(200):
        parts = stratified(torch.zeros(100, dtype=torch.int64), (None, 0.2, 0.2), Draws(seed, "t"), groups=groups)
        hits[next(k for k, part in enumerate(parts) if 0 in part.tolist())] += 1
    assert abs(hits[0] - 120) < 28 and abs(hits[1] - 40) < 23 and abs(hits[2] - 40) < 23  # four standard deviations


def test_hold_keeps_groups_together_and_take_carries_them() -> None:
    n = 60
    groups = torch.arange(n) // 3
    pictures = Pictures(
        torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n) // 30, tuple(map(str, range(n))), groups
    )
    split = Split("s", ("a", "b"), pictures, pictures.take([0]), pictures.take([]), frozenset())
    held = split.hold({"external": 0.3})
    assert held.train.groups is not None and held.held["external"].groups is not None
    assert not set(held.train.groups.tolist()) & set(held.held["external"].groups.tolist())
    assert len(held.held["external"]) == 18 and held.resized(1).to("cpu").train.groups is not None


# ---------------------------------------------------------------------------------------------- folders


def awkward(base: Path) -> Path:
    """Two classes of 60: 5 copies, 6 near-duplicates, 3 bursts of 4, one copy under the other label."""
    data = photos.fill(base, {"a": 60, "b": 60})
    for i in range(5):
        shutil.copy(data / f"a/{i:03d}.jpg", data / f"a/copy{i}.jpg")
    for i in range(10, 16):
        photos.photo(i).resize((200, 150)).save(data / f"a/small{i}.jpg", quality=60)
    for i in range(12):
        taken = f"2024:05:01 12:0{i // 4}:0{i % 4}"
        photos.photo(500 + i).save(data / f"b/burst{i:02d}.jpg", exif=photos.exif(taken=taken))
    shutil.copy(data / "a/030.jpg", data / "b/wrong.jpg")
    return data


def test_a_folders_copies_near_duplicates_and_bursts_never_cross(tmp_path: Path) -> None:
    data = awkward(tmp_path / "data")
    pairs = [(f"a/{i:03d}.jpg", f"a/copy{i}.jpg") for i in range(5)]
    pairs += [(f"a/{i:03d}.jpg", f"a/small{i}.jpg") for i in range(10, 16)] + [("a/030.jpg", "b/wrong.jpg")]
    pairs += [(f"b/burst{i:02d}.jpg", f"b/burst{i + 1:02d}.jpg") for i in range(11) if i % 4 != 3]
    crossed = 0
    for repeat in range(6):
        split = load(data, size=16, repeat=repeat)
        where = places(split)
        assert all(where[one] == where[other] for one, other in pairs), repeat
        crossed += len({where["b/burst00.jpg"], where["b/burst04.jpg"], where["b/burst08.jpg"]}) > 1
        assert [abs(len(p) - n) <= 2 for p, n in zip(split.pieces().values(), (86, 29, 29), strict=True)] == [True] * 3
    assert crossed  # three bursts are three, not one
    notes = "\n".join(split.notes)
    assert "6 exact copies, 6 near-duplicates and 3 bursts (12 pictures) are kept on one side of every split" in notes
    assert "one picture has two labels: a/030.jpg ('a') and b/wrong.jpg ('b') are the same; correct the labels" in notes
    assert len(split.notes) == 2
    assert load(data, size=16).notes == split.notes  # found again beside the decoded pictures
    assert len(list((tmp_path / "cache").rglob("alike-*.npz"))) == 1
    next((tmp_path / "cache").rglob("alike-*.npz")).write_bytes(b"damaged")
    assert load(data, size=16, repeat=5).ids_digest == split.ids_digest


def test_a_copy_in_train_and_test_is_said_and_not_moved(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data/train", {"a": 20, "b": 20})
    photos.fill(tmp_path / "data/test", {"a": 6, "b": 6}, start=900)
    shutil.copy(data / "a/003.jpg", tmp_path / "data/test/a/003.jpg")
    split = load(tmp_path / "data", size=16)
    assert "test/a/003.jpg" in split.test.ids and len(split.test) == 12
    (note,) = (note for note in split.notes if "flatters" in note)
    assert "1 picture of test belong" in note and "test/a/003.jpg to train/a/003.jpg" in note
    assert not any("kept on one side" in note for note in split.notes)
    photos.fill(tmp_path / "data/val", {"a": 6, "b": 6}, start=400)
    shutil.copy(data / "b/001.jpg", tmp_path / "data/val/b/copy.jpg")
    notes = load(tmp_path / "data", size=16).notes
    assert sum("flatters every score on val" in note for note in notes) == 1 and len(notes) == 2


def test_groups_by_path(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        for patient in range(8):
            photos.fill(tmp_path / "data" / name, {f"patient{patient}": 4}, start=100 * k + 10 * patient)
    data = tmp_path / "data"
    with pytest.raises(AugendError, match=r"lies too deep.*--group parent"):
        load(data)
    for group in ("parent", r"patient(\d)", "patient."):
        split = load(data, size=16, group=group)
        where = places(split)
        for patient in range(8):  # one patient has pictures of both classes
            assert len({place for name, place in where.items() if f"patient{patient}/" in name}) == 1
        assert "8 groups that you named are kept on one side of every split" in split.notes
        assert all(min(piece.counts(2)) > 0 for piece in split.pieces().values())
    with pytest.raises(
        AugendError, match=r"class 'a' has too few pictures that do not belong together, 1 \(at least 3\)"
    ):
        load(data, size=16, group="^(.)")
    with pytest.raises(AugendError, match=r"--group patient.* is for folders and tables"):
        load("digits", group="patient")


def test_a_job_hands_the_group_on_and_old_files_load(tmp_path: Path) -> None:
    for patient in range(5):
        for k, name in enumerate(("a", "b")):
            photos.fill(tmp_path / "data" / name, {f"p{patient}": 3}, start=50 * patient + 10 * k)
    job = Job(data=str(tmp_path / "data"), recipe="plain", size=16, group="parent")
    where = places(load_splits(job)["main"])
    assert all(len({p for n, p in where.items() if f"/p{patient}/" in n}) == 1 for patient in range(5))
    old = job.to_json()
    assert Job.from_json(old) == job
    del old["group"]
    assert Job.from_json(old).group is None
