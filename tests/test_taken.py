"""Trials that another study has trained: taken where they would end in the same bits, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import photos
from augend import AugendError
from augend.runner.folder import RunFolder
from augend.study import taken as room
from augend.study.compare import compare, open_study
from augend.study.taken import take_from
from inprocess import run as command
from runs import SMALL, required

ASKED: dict[str, Any] = {"reference": "plain", "budget": "6step", "settings": "quick", "repeats": 2, "refit": "train"}


@pytest.fixture(autouse=True)
def committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout without changes, whatever this one is."""
    monkeypatch.setattr(room, "program", lambda: {"augend": "1", "commit": "abc"})
    monkeypatch.setattr("augend.runner.job.program", lambda: {"augend": "1", "commit": "abc"})


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials in this process, so that what is patched here is patched there."""
    from augend.study.trials import run_trial, trial_folder

    class Here:
        def __init__(self, study: Path, workers: int) -> None:
            self.study = study

        def run(self, names: list[str]) -> Any:
            for name in names:
                run_trial(trial_folder(self.study, name), lambda kind, values: None)
            yield from ()

        def __exit__(self, *exception: Any) -> None:
            pass

    monkeypatch.setattr("augend.study.running.Pool", Here)


def opened(out: Path, data: str = SMALL, **asked: Any) -> Any:
    return open_study(out, {**ASKED, "data": data, "recipes": ("plain", "ft"), **asked}, "test")


@pytest.fixture
def first(tmp_path: Path, inside: None) -> Path:
    compare(SMALL, out=tmp_path / "first", recipes=("plain", "augmented"), **ASKED)
    return tmp_path / "first"


def test_a_study_takes_what_it_would_train_to_the_same_bits(first: Path, tmp_path: Path) -> None:
    found = compare(
        SMALL, out=tmp_path / "more", recipes=("plain", "augmented", "ft"), take_from=first, **{**ASKED, "repeats": 3}
    )
    alone = compare(SMALL, out=tmp_path / "alone", recipes=("plain", "augmented", "ft"), **{**ASKED, "repeats": 3})
    for name in ("plain-r0", "plain-r1", "augmented-r0", "augmented-r1", "plain-r2", "ft-r0"):
        here, there = tmp_path / "more" / "trials" / name, tmp_path / "alone" / "trials" / name
        for file in ("model.safetensors", "predictions.npz", "plan.json"):
            assert (here / file).read_bytes() == (there / file).read_bytes(), (name, file)
        state = json.loads((here / "state.json").read_text())
        assert state.get("taken_from") == (None if name in ("plain-r2", "ft-r0") else str(first / "trials" / name))
    assert found["recipes"]["ft"]["test"] == alone["recipes"]["ft"]["test"]
    notes = json.loads((tmp_path / "more" / "study.json").read_text())["notes"]
    assert any(note.startswith(f"4 trials were taken from {first}: ") for note in notes)
    took = json.loads((tmp_path / "more" / "trials" / "plain-r0" / "ledger.json").read_text())
    assert took == json.loads((first / "trials" / "plain-r0" / "ledger.json").read_text())
    assert command("trial", str(tmp_path / "more"), "0").returncode == 0  # a taken trial is a trial


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"budget": "7step"}, "another plan"),
        ({"overrides": ("optimizer.lr=0.5",)}, "another plan"),
        ({"seed": 1}, "other data, seeds or code"),
        ({"data": "digits:train=150,valid=40,test=60"}, "other data, seeds or code"),
        ({"fraction": 0.5}, "other data, seeds or code"),
        ({"precision": "bf16-mixed"}, "another machine, build or version"),
    ],
)
def test_what_would_end_in_other_bits_is_not_taken(
    first: Path, tmp_path: Path, asked: dict[str, Any], reason: str
) -> None:
    taken, reasons = take_from(opened(tmp_path / "study", **asked), first)
    assert taken == 0 and reasons == {reason: 2}
    study = json.loads((tmp_path / "study" / "study.json").read_text())
    assert not any("taken" in note for note in study["notes"])


def test_other_code_is_another_study(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(tmp_path / "study")
    monkeypatch.setattr(room, "program", lambda: {"augend": "1", "commit": "abd"})
    assert take_from(study, first) == (0, {"another machine, build or version": 2})
    monkeypatch.setattr(room, "program", lambda: {"augend": "1", "commit": "abc+"})
    for name in ("plain-r0", "plain-r1"):
        file = first / "trials" / name / "environment.json"
        file.write_text(file.read_text().replace('"abc"', '"abc+"'))
    assert take_from(study, first) == (0, {"a checkout with changes that no commit names": 2})


@pytest.mark.parametrize("file", ["run.json", "environment.json", "plan.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_a_damaged_trial_is_trained(first: Path, tmp_path: Path, file: str, text: str | None) -> None:
    for trial in (first / "trials").glob("plain-*"):
        if text is None:
            (trial / file).unlink()
        else:
            (trial / file).write_text(text)
    taken, reasons = take_from(opened(tmp_path / "study"), first)
    assert taken == 0 and sum(reasons.values()) == 2


def test_pictures_that_have_changed_are_others(tmp_path: Path, inside: None) -> None:
    folder = photos.fill(tmp_path / "pictures", {"cat": 30, "dog": 30})
    asked = {**ASKED, "size": 16}
    compare(str(folder), out=tmp_path / "first", recipes=("plain", "augmented"), **asked)
    assert take_from(opened(tmp_path / "same", str(folder), size=16), tmp_path / "first") == (2, {})
    next((folder / "cat").iterdir()).unlink()
    assert take_from(opened(tmp_path / "other", str(folder), size=16), tmp_path / "first") == (
        0,
        {"other pictures": 2},
    )


def test_a_file_may_have_changed(tmp_path: Path, inside: None) -> None:
    scores = f"scores={required('curriculum')['scores']}"
    asked = {**ASKED, "recipes": ("curriculum", "plain"), "overrides": (scores,), "repeats": 1}
    compare(SMALL, out=tmp_path / "first", **{**asked, "budget": "24step"})
    study = opened(tmp_path / "study", **{**asked, "budget": "24step"})
    assert take_from(study, tmp_path / "first") == (1, {"reads files, which may have changed": 1})


def test_what_was_taken_needs_the_other_study_no_more(tmp_path: Path, inside: None) -> None:
    (tmp_path / "mine.yaml").write_text("{like: augmented}")
    recipes = ("plain", str(tmp_path / "mine.yaml"))
    compare(SMALL, out=tmp_path / "first", recipes=recipes, **ASKED)
    compare(SMALL, out=tmp_path / "second", recipes=recipes, take_from=tmp_path / "first", **ASKED)
    shutil.rmtree(tmp_path / "first")
    trial = tmp_path / "second" / "trials" / "mine-r0"
    assert json.loads((trial / "run.json").read_text())["job"] == json.loads((trial / "trial.json").read_text())["job"]
    assert command("evaluate", str(trial), "--shifts", "crop").returncode == 0


def test_what_looks_on_moves_nothing(first: Path, tmp_path: Path) -> None:
    watched = {"overrides": ("monitor={every: 2step, norms: [net]}",)}
    assert take_from(opened(tmp_path / "study", **watched), first) == (0, {"another plan": 2})
    compare(SMALL, out=tmp_path / "watched", recipes=("plain", "augmented"), **ASKED, **watched)
    assert take_from(opened(tmp_path / "again"), tmp_path / "watched") == (2, {})


def test_a_study_killed_while_it_takes_goes_on(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(tmp_path / "study")

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        take_from(study, first)
    assert not (tmp_path / "study" / "trials" / "plain-r0").exists()
    study = open_study(tmp_path / "study", {}, "test")
    assert "plain-r0" in study.pending and take_from(study, first) == (2, {})
    assert set(study.pending) == {"ft-r0", "ft-r1"}


def test_a_trial_that_another_process_has_begun_is_left_to_it(first: Path, tmp_path: Path) -> None:
    study = opened(tmp_path / "study")
    trial = tmp_path / "study" / "trials" / "plain-r0"
    other = RunFolder(trial)
    other.lock()
    assert take_from(study, first) == (1, {"another process is training it": 1})
    assert "plain-r0" in study.pending and (trial / "trial.json").is_file()
    assert not list((tmp_path / "study" / "trials").glob(".taken-*"))
    other.unlock()
    assert take_from(study, first) == (1, {})


def test_mistakes_are_one_line(first: Path, tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="is no study"):
        take_from(opened(tmp_path / "study"), tmp_path)
    with pytest.raises(AugendError, match="is this study itself"):
        take_from(open_study(first, {}, "test"), first)
    done = command("compare", SMALL, "--take-from", str(tmp_path / "nowhere"), "--out", str(tmp_path / "third"))
    assert done.returncode == 2 and "is no study" in done.stderr and done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "third").exists()


def test_the_command_says_what_it_took(first: Path, tmp_path: Path) -> None:
    words = ["--budget", "6step", "--settings", "quick", "--repeats", "2", "--refit", "train", "--prepare-only"]
    out = ["--recipes", "plain,ft", "--take-from", str(first), "--out", str(tmp_path / "study")]
    done = command("compare", SMALL, *words, *out)
    assert done.returncode == 0 and f"Taken from {first}: 2 trials" in done.stderr and "2 trials written" in done.stdout
