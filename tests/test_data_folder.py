"""Folders of class folders: real JPEGs, nasty files, layouts, the cache, one-line errors."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from augend.contract import AugendError
from augend.data import Split, load
from augend.data.decode import decode_file
from augend.data.own import own

ROOT = os.environ.get("AUGEND_DATA")
needs_pictures = pytest.mark.skipif(
    ROOT is None or not Path(ROOT, "tiny-imagenet-20").is_dir(), reason="AUGEND_DATA has no tiny-imagenet-20"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def write(file: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def fill(base: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    for k, (name, n) in enumerate(classes.items()):
        for i in range(n):
            write(base / name / f"{i}{suffix}", (50 * k, 10 * i, 7))
    return base


@needs_pictures
def test_real_jpegs(tmp_path: Path) -> None:
    from torchvision.transforms.v2 import functional

    assert ROOT is not None
    source = Path(ROOT, "tiny-imagenet-20", "train")
    for name in sorted(p.name for p in source.iterdir())[:6]:
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in sorted((source / name).iterdir())[:50]:
            (tmp_path / "data" / name / file.name).symlink_to(file)
    split = load(tmp_path / "data")
    assert [len(p) for p in split.pieces().values()] == [180, 60, 60] and split.shape == (3, 64, 64)
    assert split.train.counts(6) == [30] * 6 and split.test.counts(6) == [10] * 6 and split.notes == ()
    for i in (0, 77, 179):
        name = split.train.ids[i]
        wanted = np.asarray(Image.open(tmp_path / "data" / name).convert("RGB")).transpose(2, 0, 1)
        assert torch.equal(split.train.pixels[i], torch.from_numpy(wanted.copy()))
        assert split.classes[int(split.train.labels[i])] == name.split("/")[0]
    small = load(tmp_path / "data", size=32)
    assert small.train.ids == split.train.ids
    resized = functional.resize(split.train.pixels, [37, 37], antialias=True)
    assert (small.train.kept.float() - resized.float()).abs().max() <= 1
    assert torch.equal(small.train.pixels, functional.center_crop(small.train.kept, [32, 32]))
    assert load(tmp_path / "data", repeat=1).test.ids != split.test.ids
    assert load(tmp_path / "data", train=30, valid=12).train.counts(6) == [5] * 6


# ---------------------------------------------------------------------------------------------- single files


def pixels(file: Path, size: int = 16) -> np.ndarray:
    return decode_file(file, size)[0].astype(int)


def halves(left: int = 250, right: int = 20, width: int = 64, height: int = 64) -> Image.Image:
    array = np.full((height, width), right, np.uint8)
    array[:, : width // 2] = left
    return Image.fromarray(array)


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: what is left comes to the top
    halves().convert("RGB").save(tmp_path / "a.jpg", exif=exif, quality=95)
    got = pixels(tmp_path / "a.jpg")
    assert got[:, :6].mean() > 230 and got[:, 10:].mean() < 40


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    array = np.full((20, 20), 65535, np.uint16)
    array[:, :10] = 32768
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        got, grey = decode_file(tmp_path / name, 20)
        assert grey and (got[:, :, :10] == 128).all() and (got[:, :, 10:] == 255).all()


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    rgba.paste((255, 0, 0, 255), (0, 0, 10, 20))
    rgba.save(tmp_path / "rgba.png")
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.paste(0, (0, 0, 10, 20))
    palette.save(tmp_path / "palette.png", transparency=1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    for name in ("rgba.png", "palette.png", "palette.gif"):
        got = pixels(tmp_path / name, 20)
        assert (got[:, :, :10] == np.array([255, 0, 0])[:, None, None]).all(), name
        assert (got[:, :, 10:] == 255).all(), name
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "la.png")
    got, grey = decode_file(tmp_path / "la.png", 8)
    assert grey and (got == 255).all()


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red = pixels(tmp_path / "red.jpg")
    assert red[0].min() > 240 and red[1:].max() < 15
    Image.new("1", (16, 16), 1).save(tmp_path / "one.png")
    assert (pixels(tmp_path / "one.png") == 255).all()


def test_short_side_is_resized_and_the_middle_kept(tmp_path: Path) -> None:
    noise = Image.effect_noise((90, 30), 80)
    noise.save(tmp_path / "wide.png")
    noise.rotate(90, expand=True).save(tmp_path / "high.png")
    wanted = np.asarray(noise.resize((60, 20), Image.Resampling.BILINEAR), int)[:, 20:40]
    assert np.abs(pixels(tmp_path / "wide.png", 20)[0] - wanted).max() <= 1
    assert np.abs(pixels(tmp_path / "high.png", 20)[0] - np.rot90(wanted)).max() <= 1
    # a large JPEG goes through the decoder's own downscaling; the result is that of the full picture
    smooth = np.linspace(0, 255, 1024).astype(np.uint8)
    Image.fromarray(np.tile(smooth, (1024, 1))).save(tmp_path / "large.jpg", quality=95)
    full = Image.open(tmp_path / "large.jpg").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(pixels(tmp_path / "large.jpg", 32)[0] - np.asarray(full, int)).max() <= 3


# ---------------------------------------------------------------------------------------------- folders


def test_nasty_files_are_left_out_and_counted(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"Äpfel": 5, "birnen & co": 5, "桃": 5})
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((300, 300), 60).convert("RGB").save(whole)
    (data / "Äpfel" / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (data / "桃" / "text.jpg").write_text("this is no picture")
    (data / "桃" / "empty.png").touch()
    (data / "桃" / "dangling.png").symlink_to("nowhere")
    (data / "桃" / "LIES.PNG").write_bytes(whole.read_bytes())  # a JPEG under another name can be read
    Image.fromarray(np.zeros((9, 9), np.float32)).save(data / "桃" / "float.tif")
    (data / "birnen & co" / "notes.txt").write_text("x")
    (data / "birnen & co" / ".DS_Store").write_text("x")
    (data / ".git").mkdir()
    (data / "empty").mkdir()
    write(data / "loose.png")
    seen: list[tuple[int, int]] = []
    split = own(data, 16, progress=lambda done, total: seen.append((done, total)))
    assert split.classes == ("birnen & co", "Äpfel", "桃")
    everything = {*split.train.ids, *split.valid.ids, *split.test.ids}
    assert len(everything) == 16 and "桃/LIES.PNG" in everything and "Äpfel/0.png" in everything
    notes = "\n".join(split.notes)
    assert "2 .jpg, 2 .png, 1 .tif" in notes and "1 .txt" in notes and "empty" in notes and "left out: 1" in notes
    assert len(split.notes) == 4 and seen[-1] == (21, 21)
    for piece in (split.train, split.valid, split.test):
        assert min(piece.counts(3)) >= 1
    split.record()


def test_grey_sets_have_one_channel_mixed_sets_three(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            halves(60 * i, 20 if name == "a" else 40).save(tmp_path / "data" / name / f"{i}.png")
    grey = own(tmp_path / "data", 64)
    assert grey.shape == (1, 64, 64) and "colour" not in grey.traits
    i = next(i for i, name in enumerate(grey.train.ids) if name.endswith("3.png"))
    assert grey.train.pixels[i, 0, 0, 0] == 180 and grey.train.pixels[i, 0, 0, 63] in (20, 40)
    write(tmp_path / "data" / "b" / "red.png")
    assert own(tmp_path / "data", 64).shape == (3, 64, 64)


def digest_of(split: Split) -> str:
    return split.digest + split.ids_digest


def test_decoded_once_and_only_what_changed_anew(tmp_path: Path, own_cache: Path) -> None:
    data = fill(tmp_path / "data", {"a": 6, "b": 6})
    (data / "a" / "text.png").write_text("no picture")
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    def files_decoded() -> int:
        text = next(own_cache.glob("*/index.jsonl")).read_text()
        return len(text.splitlines())

    first = own(data, 16, progress=progress)
    assert calls == [(13, 13)] and files_decoded() == 13
    again = own(data, 16, progress=progress)
    assert len(calls) == 1 and digest_of(again) == digest_of(first) and again.notes == first.notes
    assert digest_of(own(data, 16, cache=tmp_path / "other")) == digest_of(first)

    write(data / "b" / "0.png", (1, 2, 3))
    os.utime(data / "b" / "0.png", ns=(time.time_ns(), time.time_ns() + 5))
    write(data / "b" / "new.png", (9, 2, 200))
    changed = own(data, 16, progress=progress)
    assert calls[1:] == [(14, 14)] and files_decoded() == 15  # one line for each of the two
    assert changed.digest != first.digest and "b/new.png" in {i for p in changed.pieces().values() for i in p.ids}
    assert digest_of(own(data, 16, cache=tmp_path / "third")) == digest_of(changed)


def test_a_damaged_cache_is_mended(tmp_path: Path, own_cache: Path) -> None:
    data = fill(tmp_path / "data", {"a": 6, "b": 6})
    calls: list[tuple[int, int]] = []

    def again() -> str:
        return digest_of(own(data, 16, progress=lambda done, total: calls.append((done, total))))

    first = again()
    rows, index = (next(own_cache.glob(f"*/{name}")) for name in ("rows.u8", "index.jsonl"))
    rows.write_bytes(rows.read_bytes()[:-100])  # the last row is cut: it alone is decoded anew
    assert again() == first and again() == first and calls == [(12, 12), (12, 12)]
    assert len(index.read_text().splitlines()) == 12
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join([*lines[:4], "{\n", *lines[5:11], lines[11][:20]]))
    assert again() == first and len(calls) == 3
    index.unlink()
    assert again() == first and len(calls) == 4
    rows.unlink()
    assert again() == first and len(calls) == 5


def test_pixels_handed_out_cannot_change_the_cache(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"a": 4, "b": 4})
    first = own(data, 8)
    digest = first.digest
    first.train.pixels.zero_()
    assert own(data, 8).digest == digest


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"a": 4, "b": 4})
    (tmp_path / "file").touch()
    with pytest.raises(AugendError, match="AUGEND_CACHE"):
        own(data, 8, cache=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("pieces", "sizes", "fixed"),
    [
        ({"train": 10}, [12, 4, 4], False),
        ({"train": 10, "test": 5}, [16, 4, 10], True),
        ({"Training": 10, "val": 5}, [16, 4, 10], True),
        ({"train": 10, "validation": 5, "test": 3}, [20, 10, 6], True),
    ],
)
def test_pieces_of_the_folders_own(tmp_path: Path, pieces: dict[str, int], sizes: list[int], fixed: bool) -> None:
    for piece, n in pieces.items():
        fill(tmp_path / "data" / piece, {"a": n, "b": n})
    split = own(tmp_path / "data", 8)
    assert [len(p) for p in split.pieces().values()] == sizes and split.fixed_test is fixed
    again = own(tmp_path / "data", 8, repeat=1)
    assert (again.test.ids == split.test.ids) is fixed
    assert (again.valid.ids == split.valid.ids) is ("validation" in pieces)
    if fixed:
        held_out = [name for name in pieces if name.lower() != "train" and name != "Training"][-1]
        assert {name.split("/")[0] for name in split.test.ids} == {held_out}
    assert any("val is the fixed test set" in note for note in split.notes) is ("val" in pieces)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    assert own(fill(tmp_path / "data", {"train": 5, "car": 5}), 8).classes == ("car", "train")


def test_words_go_before_folders_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "digits", {"a": 5, "b": 5})
    monkeypatch.chdir(tmp_path)
    assert len(load("digits").classes) == 10 and load("./digits").classes == ("a", "b")
    assert load("./digits", valid=3).name == "./digits"


def broken(kind: str, base: Path) -> Path:
    data = base / "data"
    match kind:
        case "empty":
            data.mkdir()
        case "file":
            data.touch()
        case "loose":
            write(data / "a.png")
        case "single":
            fill(data, {"only": 5})
        case "few":
            fill(data, {"many": 5, "few": 2})
        case "few readable":
            fill(data, {"many": 5, "few": 3})
            (data / "few" / "0.png").write_text("x")
        case "none readable":
            fill(data, {"many": 5, "bad": 3})
            for file in (data / "bad").iterdir():
                file.write_text("x")
        case "nothing readable":
            fill(data, {"a": 3, "b": 3})
            for file in data.rglob("*.png"):
                file.write_text("x")
        case "deep":
            fill(data / "a", {"images": 5})
            fill(data, {"b": 5})
        case "new class":
            fill(data / "train", {"a": 5, "b": 5})
            fill(data / "test", {"a": 5, "c": 5})
        case "no train":
            fill(data / "val", {"a": 5, "b": 5})
        case "two tests":
            fill(data / "train", {"a": 5, "b": 5})
            fill(data / "val", {"a": 5, "b": 5})
            fill(data / "valid", {"a": 5, "b": 5})
        case "not UTF-8":
            fill(data, {"a": 5})
            fill(data, {os.fsdecode(b"caf\xe9"): 5})
    return data


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "no pictures in class folders"),
        ("file", "neither a folder"),
        ("loose", "1 lie loose"),
        ("single", "only one class, 'only'"),
        ("few", "'few' has too few"),
        ("few readable", "'few' has too few readable pictures, 2"),
        ("none readable", "no picture of class 'bad' can be read"),
        ("nothing readable", "can be read"),
        ("deep", "a/images/0.png lies too deep"),
        ("new class", "test: class 'c' is not among the classes of train"),
        ("no train", "no train folder"),
        ("two tests", "both 'val' and 'valid'"),
        ("not UTF-8", r"class folder 'caf\\udce9' is not UTF-8; rename it"),
    ],
)
def test_folders_that_will_not_do_are_one_line(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(AugendError, match=says) as caught:
        load(broken(kind, tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path / "data") in str(caught.value)


@pytest.mark.slow
@needs_pictures
def test_all_of_tiny_imagenet_20(tmp_path: Path) -> None:
    assert ROOT is not None
    split = load(Path(ROOT, "tiny-imagenet-20"))
    assert [len(p) for p in split.pieces().values()] == [8000, 2000, 1000] and len(split.classes) == 20
    shutil.rmtree(tmp_path / "cache")
