"""Test-time sums at many settings at once: the numbers are those of each setting alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from augend import TestTimeSums
from augend.evaluate import grid as room
from augend.evaluate.grid import cells, grid_of
from augend.evaluate.threats import ADAPTIVE, BARE, CLEAN, PIECES, THROUGH, TRANSFERRED, Asked, asked
from augend.report import attacked_page
from augend.report.grid_page import accuracy
from augend.study import attacked as study_room
from augend.study.attacked import attacked, record_of
from augend.study.compare import open_study
from augend.study.evidence import Record
from augend.study.grid import grid
from augend.study.results import write
from augend.study.trials import run_trial
from inprocess import run as command
from runs import train
from toys import one_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "k=2|3,weight=1|4,draws=2|5,references=40"


def words(sums: str = "k=2") -> Asked:
    return asked("fgsm,pgd", "8/255", sums, steps=2, restarts=1, samples=2, pictures=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grid") / "run"
    train(out, "plain", budget="40step", model="mlp")
    return out


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    return grid(run, words(), grid_of(TEXT))


def test_every_combination_is_there_once(found: dict[str, Any]) -> None:
    (model,) = found["models"].values()
    each = [(one["k"], one["weight"], one["draws"]) for one in model["points"]]
    assert each == [(k, weight, draws) for k in (2, 3) for weight in (1, 4) for draws in (2, 5)]
    assert len(grid_of("k=2|2,draws=4")) == 1 and found["pictures"] == 20


@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_point_is_what_it_is_alone(run: Path, found: dict[str, Any], number: int) -> None:
    """The bare model's, the transferred and the clean numbers, and the adaptive one, as without the grid."""
    (model,) = found["models"].values()
    point = model["points"][number]
    text = f"k={point['k']},weight={point['weight']:g},draws={point['draws']},references=40"
    (alone,) = attacked(run, words(text))["models"].values()
    compared = 0
    for one in alone["conditions"]:
        where = model["bare"] if one["threat"] == BARE else point["conditions"]
        assert accuracy(where, one["threat"], one["attack"], one["said"]) == one["accuracy"], one
        compared += 1
    assert compared == 2 + 2 * 3
    threats = {one["threat"] for one in point["conditions"]}
    assert threats == {THROUGH, TRANSFERRED, ADAPTIVE} and {one["attack"] for one in model["bare"]} == {
        CLEAN,
        "fgsm",
        "pgd",
    }


def test_where_attacks_are_blind_it_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "blind", lambda model, x, labels: torch.ones(len(x), dtype=torch.int64))
    (model,) = grid(run, words(), grid_of("k=2,draws=2|3,references=40"))["models"].values()
    assert model["blind"] == 1
    monkeypatch.undo()
    (model,) = grid(run, words(), grid_of("k=2,draws=2|3,references=40"))["models"].values()
    (alone,) = attacked(run, words())["models"].values()
    assert model["blind"] == alone["blind"] < 1
    (model,) = grid(run, asked(None, sums="k=2", pictures=20), grid_of("k=2,draws=2|3"))["models"].values()
    assert model["blind"] is None


def test_settings_are_chosen_on_validation(run: Path) -> None:
    """The validation pictures are others than the test pictures, and are those of the run."""
    pages = {}
    for on in ("valid", "test"):
        done = command(
            "evaluate", str(run), "--attack", "fgsm", "--sums", "k=2|3,draws=2", "--pictures", "10", "--on", on
        )
        assert done.returncode == 0, done.stderr
        assert f"10 {PIECES[on]} pictures" in done.stdout
        pages[on] = (run / ("sums.html" if on == "test" else "sums-valid.html")).read_text()
    assert "10 validation pictures" in pages["valid"] and "judge it on the test pictures" in pages["valid"]
    assert "10 test pictures" in pages["test"] and "was chosen on test pictures" in pages["test"]
    wanted = replace(asked("fgsm", "8/255", pictures=None), on="valid")
    found = attacked(run, wanted)
    page = attacked_page.write(run, found)
    assert page.name == "attacks-valid.html" and "accuracy on validation pictures" in page.read_text()
    assert "Validation pictures under attack" in page.read_text() and (run / "attacks-valid.json").is_file()
    (model,) = found["models"].values()
    with np.load(run / "predictions.npz") as rows:
        valid = rows["split"] == "valid"
        right = rows["probabilities"][valid].argmax(1) == rows["labels"][valid]
    assert found["pictures"] == valid.sum() != (~valid).sum()
    assert model["conditions"][0]["accuracy"]["mean"] == pytest.approx(right.mean())
    done = command("evaluate", str(run), "--attack", "fgsm", "--on", "train")
    assert done.returncode == 2 and "--on: there is no 'train' (known: test, valid)" in done.stderr
    done = command("evaluate", str(run), "--on", "valid")
    assert done.returncode == 2 and "--on is about --attack and --sums" in done.stderr


def test_who_knows_of_the_sums_is_no_weaker_for_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adaptive attack that does nothing leaves the transferred one: where that succeeds, the adaptive number counts it."""
    done = room.moved_by

    def idle(model: torch.nn.Module, x: torch.Tensor, *rest: Any, adaptive: bool) -> Any:
        if adaptive:
            return ((eps, x) for eps in rest[2])
        return done(model, x, *rest, adaptive=False)

    monkeypatch.setattr(room, "moved_by", idle)
    (model,) = grid(run, asked("fgsm", "64/255", pictures=40), grid_of("k=2,weight=8,draws=3,references=40"))[
        "models"
    ].values()
    clean, transferred, adaptive = (one["accuracy"]["mean"] for one in model["points"][0]["conditions"])
    assert adaptive <= transferred < clean


def test_more_draws_begin_with_the_fewer() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    bank, x = torch.rand(9, 1, 4, 4), torch.rand(5, 1, 4, 4)
    few, many = (TestTimeSums(model, bank, draws=draws) for draws in (3, 7))
    assert torch.equal(few.answers(x), many.answers(x)[:3])
    assert torch.equal(few(x), many.averaged(many.answers(x)[:3]))


def test_a_study_has_its_own_intervals(tmp_path: Path) -> None:
    given = {"data": "digits:train=60,valid=20,test=30", "recipes": ("plain", "sums"), "repeats": 2, "budget": "10step",
             "model": "mlp", "reference": "plain"}  # fmt: skip
    study = open_study(tmp_path / "study", given, "command")
    for name in study.names:
        assert run_trial(tmp_path / "study" / "trials" / name, lambda kind, values: None) == "finished"
    write(tmp_path / "study")
    wanted, sums = asked("fgsm", "4/255"), grid_of("k=2|4,draws=3,references=30")
    found = grid(tmp_path / "study", wanted, sums)
    assert set(found["models"]) == {"plain", "sums"}
    for recipe, model in found["models"].items():
        folders = [tmp_path / "study" / "trials" / f"{recipe}-r{repeat}" for repeat in (0, 1)]
        each = [next(iter(grid(one, wanted, sums)["models"].values()))["points"] for one in folders]
        for number, point in enumerate(model["points"]):
            for one in point["conditions"]:
                where = one["threat"], one["attack"], one["said"]
                means = [accuracy(points[number]["conditions"], *where) for points in each]
                assert one["accuracy"]["mean"] == pytest.approx(sum(part["mean"] for part in means if part) / 2)
                assert one["accuracy"]["repeats"] == 2


def test_validation_pictures_are_other_ones_in_each_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    for fixed in (True, False):
        monkeypatch.setattr(study_room, "read_record", lambda path, fixed=fixed: record(path, fixed))
        assert record_of(Path("x"), Asked(), None).fixed_test is fixed
        assert not record_of(Path("x"), Asked(on="valid"), None).fixed_test
        assert record_of(Path("x"), Asked(on="valid"), "other").fixed_test  # one set of pictures for all


def record(path: Path, fixed: bool) -> Record:
    return Record(path, (), "plain", 2, 0.0, "accuracy", {}, fixed, (), {})


def test_the_command_prints_and_leaves_a_page(run: Path) -> None:
    done = command(
        "evaluate", str(run), "--attack", "fgsm", "--eps", "8/255", "--sums", "k=2|3,draws=2", "--pictures", "10"
    )
    assert done.returncode == 0, done.stderr
    assert "bare model, clean" in done.stdout and done.stdout.count("fgsm 8/255 adaptive") == 2
    page = (run / "sums.html").read_text()
    assert page.count("<figure") == 2 and page.count("<tr>") == 1 + 3
    assert json.loads((run / "sums.json").read_text())["asked"]["sums"][1]["k"] == 3
    assert "bfloat16" not in done.stdout + page


def test_fast_numbers_are_labelled(run: Path) -> None:
    words = ("--attack", "fgsm", "--eps", "8/255", "--sums", "k=2,draws=2|3", "--pictures", "10", "--fast")
    assert "gradients in bfloat16" in command("evaluate", str(run), *words).stdout
    assert "gradients are in bfloat16" in (run / "sums.html").read_text()
    assert json.loads((run / "sums.json").read_text())["asked"]["fast"] is True


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ("k=2|0", "k is 0; it must be a whole number from 2 on"),
        ("k=2|", "k= is no number"),
        ("kk=2|3", "there is no 'kk'"),
        ("k=2,references=5|6", "references, average and partners have one"),
    ],
)
def test_mistakes_are_one_line(run: Path, sums: str, said: str) -> None:
    done = command("evaluate", str(run), "--sums", sums)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_own_data_and_empty_studies_are_refused(run: Path, tmp_path: Path) -> None:
    data = json.loads((run / "run.json").read_text())["job"]["data"]
    for words in (["--sums", "k=2|3"], ["--attack", "fgsm"], ["--shifts", "all"]):
        done = command("evaluate", str(run), *words, "--data", data)
        assert done.returncode == 2 and "was trained on its pictures; leave --data out" in done.stderr
    given = {
        "data": "digits:train=60,valid=20,test=30",
        "recipes": ("plain",),
        "repeats": 1,
        "budget": "2step",
        "model": "mlp",
    }
    open_study(tmp_path / "study", given, "command")
    done = command("evaluate", str(tmp_path / "study"), "--sums", "k=2|3")
    assert done.returncode == 2 and "no trial of this study is finished" in done.stderr


def test_names_of_cells_are_their_own() -> None:
    names = [one.name for one in cells(words(), grid_of(TEXT))]
    assert len(names) == len(set(names)) == 3 + 8 * 5
    close = [one.name for one in cells(words(), grid_of("weight=1.0000001|1.0000002"))]
    assert len(close) == len(set(close))
