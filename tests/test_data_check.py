"""`augend data check`: what it says of awkward pictures, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import photos
from augend.contract import AugendError
from augend.data import load
from augend.data.check import inspected
from inprocess import run as here


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))


def awkward(base: Path) -> Path:
    """`photos.messy` with a copy under another label, near-duplicates, a burst, an iPhone's file and a text."""
    data, (cats, birds, dogs) = photos.messy(base), photos.NAMES
    shutil.copy(data / cats / "014.jpg", data / dogs / "wrong.jpg")
    for i in (12, 18):  # no orientation, in colour
        photos.photo(1060 + i, photos.SIZES[i % 12]).resize((150, 120)).save(data / birds / f"near{i}.jpg", quality=60)
    for i in range(3):
        taken = photos.exif(taken=f"2024:05:01 12:00:0{i}")
        photos.photo(3000 + i).save(data / dogs / f"burst{i}.jpg", exif=taken)
    (data / cats / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    (data / birds / "notes.txt").write_text("x")
    return data


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augend", "data", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_everything_is_found(tmp_path: Path) -> None:
    data, (cats, birds, dogs) = awkward(tmp_path / "data"), photos.NAMES
    calls: list[tuple[int, int]] = []
    report, split = inspected(data, 32, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (120, 120) and split is not None
    assert json.loads(json.dumps(report)) == report
    assert report["usable"] and report["problem"] is None and report["schema"] == 1
    assert (report["pictures"], report["readable"], report["least"]) == (120, 118, 3)
    classes = {row["name"]: row for row in report["classes"]}
    assert {name: row["all"] for name, row in classes.items()} == {cats: 62, birds: 26, dogs: 28, "four": 4}
    assert classes[cats]["readable"] == 60 and classes[birds]["independent"] == 24
    assert classes[dogs]["independent"] == 26 and not any(row["too_small"] for row in classes.values())
    assert sorted(report["sizes"]["smallest"]) == [5, 7] and report["sizes"]["largest"] == [200, 150]
    assert (
        report["unreadable"][0]
        == {
            "suffix": ".heic",
            "files": 1,
            "first": f"{cats}/IMG_1.HEIC",
            "reason": "not a picture that Pillow can read",
            "package": "pillow-heif",
        }
        or report["unreadable"][0]["suffix"] == ".jpg"
    )
    assert {row["suffix"]: row["files"] for row in report["unreadable"]} == {".heic": 1, ".jpg": 1}
    assert (report["copies"], report["near_duplicates"]) == (1, 2)
    assert report["alike"][0] == {
        "files": [f"{cats}/014.jpg", f"{dogs}/wrong.jpg"],
        "labels": [cats, dogs],
        "exact": True,
    }
    assert (
        report["alike"][1]["files"] == [f"{birds}/012.jpg", f"{birds}/near12.jpg"] and not report["alike"][1]["exact"]
    )
    assert report["bursts"] == [[f"{dogs}/burst{i}.jpg" for i in range(3)]]
    assert report["imbalance"] == {"largest": cats, "smallest": "four", "ratio": 15.0, "metric": "balanced accuracy"}
    real = load(data, size=32)
    assert report["split"] == {"kind": "redrawn", **{piece: len(p) for piece, p in real.pieces().items()}}
    assert split.ids_digest == real.ids_digest and report["traits"] == sorted(real.traits)
    assert report["notes"] == ["no pictures, left out: 1 .txt"]


def test_turned_pictures_count_as_they_are_shown(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            image = photos.photo(10 * ord(label) + i, (60, 20))
            image.save(tmp_path / "data" / label / f"{i}.jpg", exif=photos.exif(turned=6))
    report, _ = inspected(tmp_path / "data", 16)
    assert report["sizes"] == {name: [20, 60] for name in ("smallest", "median", "largest")}


@pytest.mark.parametrize(
    ("train", "more", "kind", "ratio"),
    [({"a": 9, "b": 3}, {}, "redrawn", 3.0), ({"a": 9, "b": 9}, {"test"}, "validation redrawn", 1.0)],
)
def test_kinds_of_split(tmp_path: Path, train: dict[str, int], more: set[str], kind: str, ratio: float) -> None:
    base = tmp_path / "data"
    photos.fill(base / "train" if more else base, train)
    for k, piece in enumerate(more):
        photos.fill(base / piece, {"a": 3, "b": 3}, start=100 * (k + 1))
    report, _ = inspected(base, 16)
    assert report["split"]["kind"] == kind and report["imbalance"]["ratio"] == ratio
    assert report["imbalance"]["metric"] == "accuracy"  # above 3, not at 3
    assert set(report["pieces"]) == {"train", *more} or not more


def broken(kind: str, base: Path) -> Path:
    match kind:
        case "too few":
            photos.fill(base, {"a": 6, "b": 2})
        case "copies":
            photos.fill(base, {"a": 6, "b": 2})
            shutil.copy(base / "b/000.jpg", base / "b/copy.jpg")
        case "unreadable":
            photos.fill(base, {"a": 6, "b": 2})
            (base / "b" / "2.jpg").write_text("x")
        case "none of it readable":
            photos.fill(base, {"a": 6})
            (base / "b").mkdir()
            for i in range(4):
                (base / "b" / f"{i}.jpg").write_text("x")
        case "one class":
            photos.fill(base, {"a": 6})
    return base


@pytest.mark.parametrize("kind", ["too few", "copies", "unreadable", "none of it readable", "one class"])
def test_what_compare_would_refuse_is_refused_with_the_same_line_after_the_rest(tmp_path: Path, kind: str) -> None:
    data = broken(kind, tmp_path / "data")
    with pytest.raises(AugendError) as caught:
        load(data, size=16)
    report, split = inspected(data, 16)
    assert split is None and not report["usable"] and report["problem"] == str(caught.value)
    small = {row["name"] for row in report["classes"] if row["too_small"]}
    assert small == (set() if kind == "one class" else {"b"})


def test_the_command_on_awkward_pictures(tmp_path: Path) -> None:
    data, (cats, _, dogs) = awkward(tmp_path / "data"), photos.NAMES
    done = run(data, "--grid", tmp_path / "grid.png")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for line in (
        f"{data}: 120 pictures in 4 classes, 2 of them unreadable",
        "[red]birds",
        f"balance   {cats} has 15 times the pictures of four: balanced accuracy will decide",
        "split     60/20/20 %, redrawn with each repeat: 7",
        "; install pillow-heif",
        f"  the same: {cats}/014.jpg, {dogs}/wrong.jpg; DIFFERENT LABELS: {cats}, {dogs}",
        "1 exact copy, 2 near-duplicates, kept on one side of every split",
        "1 burst (3 pictures), taken within seconds in one folder",
        "  light     crop",
        f"They are in {tmp_path / 'grid.png'}",
        f"Usable. Next: augend compare {data}",
    ):
        assert line in done.stdout, line
    assert not any(line != line.rstrip() for line in done.stdout.splitlines())
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == (8 * 66 + 2, 4 * 66 + 2)  # four classes, the original and seven versions, at 64 pixels


def test_exit_codes_and_json(tmp_path: Path) -> None:
    def said(*arguments: str | Path) -> tuple[int, str, str]:
        done = here("data", "check", *map(str, arguments))
        return done.returncode, done.stdout, done.stderr

    few = broken("too few", tmp_path / "few")
    line = f"augend: {few}: class 'b' has too few pictures, 2 (at least 3); add some or remove the folder\n"
    code, out, err = said(few)
    assert code == 2 and "b             2  too small: at least 3" in out and err == line and "Usable" not in out
    code, out, err = said(few, "--json")
    assert code == 2 and err == line and f"augend: {json.loads(out)['problem']}\n" == line
    code, out, err = said(tmp_path / "absent", "--json")
    assert code == 2 and not json.loads(out)["usable"] and err.count("\n") == 1
    good = photos.fill(tmp_path / "good", {"a": 5, "b": 5})
    code, out, err = said(good, "--json", "--size", "16", "--group", r"(\d)\.jpg")
    report: dict[str, Any] = json.loads(out)
    assert code == 0 and report["usable"] and report["groups"] == 5 and err == ""
    assert report["augmentations"]["light"] == ["crop", "hflip"]
    for wrong in (
        ["digits"],
        [good, "--grid", "grid.gif"],
        [good, "--group", "("],
        [good, "--augment", "x", "--grid", "g.png"],
    ):
        code, out, err = said(*wrong)
        assert code == 2 and err.count("\n") == 1 and err.startswith("augend: "), err
