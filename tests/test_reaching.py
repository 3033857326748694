"""Overrides of a study reach the recipes that have such a phase or parameter, now and when the study goes on elsewhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from augend.recipes.language import compose, reaching
from augend.recipes.library import load
from augend.study.reproduce import open_reproduction
from inprocess import Done
from inprocess import run as command


def run(*arguments: str, where: Path) -> Done:
    with contextlib.chdir(where):
        return command(*arguments)


def test_what_only_others_have_is_left_to_them() -> None:
    plain, ait = compose(load("plain")), compose(load("ait"))
    asked = ["train.batch=16", "plain.batch=8", "batch=32", "nonsense=1", "nophase.batch=2"]
    assert reaching(asked, plain, [plain, ait]) == ("plain.batch=8", "batch=32", "nonsense=1", "nophase.batch=2")
    assert reaching(asked, ait, [plain, ait])[0] == "train.batch=16"


def test_a_study_goes_on_without_the_files_it_began_with(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine: {phases: [{name: begin, batch: 10}]}\n")
    words = ["digits:train=60,valid=20,test=20", "--recipes", "plain,mine.yaml", "--budget", "3step", "--repeats", "1"]
    sets = ["--set", "begin.batch=12", "--set", "plain.batch=6", "--precision", "32-true", "--prepare-only"]
    done = run("compare", *words, *sets, "--out", "study", where=tmp_path)
    assert done.returncode == 0, done.stderr
    mine.unlink()
    (tmp_path / "elsewhere").mkdir()
    done = run("compare", "--out", "../study", "--repeats", "2", "--prepare-only", where=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    said = {
        trial.name: json.loads((trial / "trial.json").read_text())["job"]["overrides"]
        for trial in (tmp_path / "study" / "trials").iterdir()
    }
    plain, own = ["plain.batch=6"], ["begin.batch=12"]
    assert said == {"plain-r0": plain, "plain-r1": plain, "mine-r0": own, "mine-r1": own}


def test_a_typo_reaches_nobody_and_is_said(tmp_path: Path) -> None:
    words = [
        "digits:train=60,valid=20,test=20",
        "--recipes",
        "plain,ait",
        "--budget",
        "3step",
        "--set",
        "trian.batch=12",
    ]
    done = run("compare", *words, "--out", "study", where=tmp_path)
    assert done.returncode == 2 and "has no phase or key" in done.stderr and not (tmp_path / "study").exists()


def test_rows_that_are_left_out_take_their_overrides_with_them(tmp_path: Path) -> None:
    how = {"scale": "smoke", "command": "", "repeats": 1, "budget": "2step"}
    rows = ["augmented", "ait"]
    study = open_reproduction("invariance/digits", None, tmp_path / "one", rows=rows, **how)
    assert study.request.overrides == ("pixels=[{rotate: {degrees: 30}}]",)


def test_recipes_that_nothing_was_set_for_are_named(tmp_path: Path) -> None:
    words = ["digits:train=60,valid=20,test=20", "--recipes", "plain,ait", "--budget", "3step", "--prepare-only"]
    sets = ["--set", "train.batch=12", "--set", "batch=16", "--set", "train.batch=12"]  # once more: said once
    done = run("compare", *words, *sets, "--out", "study", where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "study" / "study.json").read_text())["notes"] == [
        "--set train.batch=12 says nothing to plain"
    ]
