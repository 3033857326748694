"""Tables of paths and labels: what a folder does, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import photos
from augend.cli.options import data_word
from augend.contract import AugendError
from augend.data import load


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))


def table(file: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with file.open("w", newline="", encoding=encoding) as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file


def rows_of(folder: Path, path: str = "path", label: str = "label") -> list[dict[str, str]]:
    files = sorted(folder.rglob("*.jpg"))
    return [{path: file.relative_to(folder).as_posix(), label: file.parent.name} for file in files]


def test_a_table_is_what_its_folder_is(tmp_path: Path) -> None:
    data = photos.messy(tmp_path / "data")
    shutil.copy(data / photos.NAMES[1] / "003.jpg", data / photos.NAMES[1] / "again.jpg")
    folder = load(data, size=24, repeat=2)
    rows = rows_of(data)
    kinds: list[tuple[str, dict[str, str], str, str]] = [
        ("a.csv", {}, ",", "utf-8"),
        ("b.csv", {"path": "Filename", "label": " class "}, ";", "utf-8-sig"),
        ("c.tsv", {"path": "image", "label": "TARGET"}, "\t", "utf-8"),
        ("d.csv", {"path": "file"}, ",", "utf-8"),
    ]
    for name, renamed, delimiter, encoding in kinds:
        named = [{"note": "x, y", **{renamed.get(key, key): value for key, value in row.items()}} for row in rows[::-1]]
        split = load(table(data / name, named, delimiter, encoding), size=24, repeat=2)
        assert (split.digest, split.ids_digest, split.classes) == (folder.digest, folder.ids_digest, folder.classes)
        assert split.notes == folder.notes and len(split.notes) == 2 and "1 .jpg (first: cats" in split.notes[0]
        assert not split.fixed_test
    assert len(list((tmp_path / "cache/pictures").iterdir())) == 1  # the folder's own decoded pictures served all


def test_paths_are_relative_to_the_table_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos.fill(tmp_path / "pictures", {"a": 5, "b": 5})
    rows = rows_of(data)
    inside = load(table(data / "t.csv", rows), size=8)
    (tmp_path / "lists").mkdir()
    beside = load(table(tmp_path / "lists/t.csv", [{**r, "path": f"../pictures/./{r['path']}"} for r in rows]), size=8)
    absolute = load(table(tmp_path / "t.csv", [{**r, "path": str(data / r["path"])} for r in rows]), size=8)
    assert inside.digest == beside.digest == absolute.digest
    assert inside.train.ids[0].startswith("a/") and beside.train.ids[0].startswith("../pictures/a/")
    monkeypatch.chdir(data)
    assert data_word("t.csv") == str(data / "t.csv") and data_word("digits") == "digits"
    assert load("t.csv", size=8).name == "t.csv"


def test_a_split_column(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 20, "b": 20})
    rows = [{**row, "split": ("train", "Train", "training", "test")[i % 4]} for i, row in enumerate(rows_of(data))]
    split = load(table(data / "t.csv", rows), size=8)
    assert split.fixed_test and set(split.test.ids) == {row["path"] for row in rows if row["split"] == "test"}
    assert [len(p) for p in split.pieces().values()] == [24, 6, 10]
    assert load(data / "t.csv", size=8, repeat=1).valid.ids != split.valid.ids
    three = [{**row, "split": ("train", "val", "test", "train")[i % 4]} for i, row in enumerate(rows)]
    fixed = load(table(data / "t.csv", three), size=8)
    assert [len(p) for p in fixed.pieces().values()] == [20, 10, 10]
    only = load(table(data / "t.csv", [{**row, "split": ""} for row in rows]), size=8)
    assert not only.fixed_test and [len(p) for p in only.pieces().values()] == [24, 8, 8]


def test_a_group_column_keeps_groups_together(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 30, "b": 30})
    rows = [{**row, "group": f"g{i % 12}" if i % 30 < 24 else ""} for i, row in enumerate(rows_of(data))]
    group = {row["path"]: row["group"] for row in rows if row["group"]}
    for repeat in range(4):
        split = load(table(data / "t.csv", rows), size=8, repeat=repeat)
        where = {name: piece for piece, pictures in split.pieces().items() for name in pictures.ids}
        for one in set(group.values()):
            assert len({where[name] for name, g in group.items() if g == one}) == 1
        assert split.notes == ("12 groups that you named are kept on one side of every split",)
    other = load(data / "t.csv", size=8, group=r"(\d)\.jpg")  # --group goes before the column
    assert "10 groups that you named" in other.notes[0]


def test_repeated_lines_are_counted_and_unreadable_files_left_out(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 6, "b": 6})
    (data / "a" / "bad.jpg").write_text("no picture")
    rows = rows_of(data)
    split = load(table(data / "t.csv", [*rows, rows[0], {**rows[1], "path": "./" + rows[1]["path"]}]), size=8)
    assert sum(map(len, split.pieces().values())) == 12
    assert "lines that repeat an earlier one, left out: 2" in split.notes
    assert split.notes[0].startswith("left out as unreadable: 1 .jpg (first: a/bad.jpg")


LINES = ["path,label", *(f"{c}/{i:03d}.jpg,{c}" for c in "ab" for i in range(5))]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "line 1: no column 'path' (or file, filename, image); the first line names the columns, found: nothing"),
        (["x,y", "a/000.jpg,a"], "line 1: no column 'path'"),
        (["path,y"], "line 1: no column 'label' (or class, target); the first line names the columns, found: path, y"),
        (["path,file,label"], "line 1: 'path' and 'file' both mean the path"),
        (["path,label"], "no pictures, only the line of column names"),
        ([*LINES[:4], "a/009.jpg,a", "a/010.jpg,a"], "line 5: there is no file a/009.jpg, nor those of 1 more lines"),
        ([*LINES, "", ",a"], "line 13: the path is empty"),
        ([*LINES, "a/000.jpg"], "line 12: the label is empty"),
        ([*LINES, "a/000.jpg,b"], "line 12: a/000.jpg stands in line 2 too, with another label, split or group"),
        ([*LINES[:1], 'a/000.jpg,"a'], "line 2: not a line of a table"),
        (["path,label,split", "a/000.jpg,a,tset"], "line 2: split is 'tset'; write train, val or test"),
        (["path,label,split", "a/000.jpg,a,train", "a/001.jpg,a,"], "line 3: split is empty, but not in other lines"),
        (["path,label,split", "a/000.jpg,a,val"], "no line has split train"),
        (LINES[:6], "only one class, 'a'"),
        (LINES[:8], "class 'b' has too few pictures, 2 (at least 3); add some or remove its lines"),
        (
            ["path,label,split", *(f"{line},train" for line in LINES[1:9]), "b/004.jpg,c,test"],
            "test: class 'c' is not among the classes of train (a, b)",
        ),
    ],
)
def test_mistakes_are_one_line_with_its_number(tmp_path: Path, lines: list[str], says: str) -> None:
    data = photos.fill(tmp_path / "data", {"a": 5, "b": 5})
    (data / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(AugendError) as caught:
        load(data / "t.csv", size=8)
    assert says in str(caught.value) and str(data / "t.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\na.jpg,a\n\xe4.jpg,b\n".encode("latin-1"))
    with pytest.raises(AugendError, match="line 3: not UTF-8 text"):
        load(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(AugendError, match=r"neither a folder nor a table \(.csv, .tsv\)"):
        load(tmp_path / "t.xlsx")
    with pytest.raises(AugendError, match="neither a folder, nor a table, nor a known set"):
        load(tmp_path / "absent.csv")


def test_training_on_a_table(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 20, "b": 20})
    table(data / "pictures.csv", rows_of(data))
    command = [sys.executable, "-m", "augend", "train", "pictures.csv", "--recipe", "plain", "--size", "16"]
    command += ["--budget", "3step", "--precision", "32-true", "--out", str(tmp_path / "run"), "--json", "batch=8"]
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 3
    split = load(data / "pictures.csv", size=16)
    again = json.loads((tmp_path / "run/run.json").read_text())["data"]["main"]
    assert again["digest"] == split.digest and again["classes"] == ["a", "b"]
    assert torch.bincount(split.train.labels).tolist() == [12, 12]
