"""Two processes and one study: the second is refused, or takes another folder, and changes nothing."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from augend import AugendError
from augend.runner.folder import Busy, RunFolder
from augend.study import compare as room
from augend.study.compare import as_it_is, next_folder, open_study
from augend.study.held import let_go
from augend.study.trials import run_trial
from inprocess import run as command
from runs import SMALL

ASKED: dict[str, Any] = {
    "data": SMALL,
    "recipes": ("plain",),
    "repeats": 1,
    "budget": "6step",
    "settings": "quick",
    "precision": "32-true",
}


class Other:
    """Another process that has a folder: its lock is not this process's."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self.folder.create()
        self.folder.lock()


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Let something happen while a study is planned."""
    plan = room.plan_study

    def planned(*args: Any, **kwargs: Any) -> Any:
        found = plan(*args, **kwargs)
        what()
        return found

    monkeypatch.setattr(room, "plan_study", planned)


def test_an_opened_study_is_this_processs_alone(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study", ASKED, "test")
    with pytest.raises(Busy):
        RunFolder(study.path).lock()
    again = open_study(study.path, {}, "test")  # this process may open it again
    del study
    with pytest.raises(Busy):
        RunFolder(again.path).lock()
    del again
    RunFolder(tmp_path / "study").lock()  # forgotten, it is free


def test_a_study_that_another_process_runs_is_left_as_it_is(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study", ASKED, "test")
    assert study.held is not None
    let_go(study.held)
    before = (study.path / "study.json").read_bytes()
    other = Other(study.path)
    done = command("compare", "--out", str(study.path), "--repeats", "3")
    assert done.returncode == 2 and done.stderr.strip().count("\n") == 0
    assert f"{study.path}: another process is working on this study" in done.stderr
    assert (study.path / "study.json").read_bytes() == before
    assert as_it_is(study.path).names == ["plain-r0"]  # somebody may run one trial of it, as in an array
    other.folder.unlock()
    assert open_study(study.path, {"repeats": 3}, "test").request.repeats == 3


def test_a_refused_command_lets_the_study_go(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study", ASKED, "test")
    assert study.held is not None
    let_go(study.held)
    with pytest.raises(AugendError, match="7step"):
        open_study(study.path, {"budget": "7step"}, "test")
    RunFolder(study.path).lock()


def test_two_studies_of_one_name_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    others: list[Other] = []
    meanwhile(monkeypatch, lambda: others.append(Other(Path("runs/compare-digits-1"))))
    study = open_study(functools.partial(next_folder, "compare", "digits"), ASKED, "test")
    assert study.path == Path("runs/compare-digits-2") and (study.path / "study.json").is_file()
    assert (study.path / "trials" / "plain-r0" / "trial.json").is_file()
    assert [file.name for file in Path("runs/compare-digits-1").iterdir()] == [".lock"]


def test_a_study_begun_while_another_was_planned_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun() -> None:
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "study.json").write_text("theirs")

    meanwhile(monkeypatch, begun)
    with pytest.raises(AugendError, match="another process has begun a study there"):
        open_study(tmp_path / "study", ASKED, "test")
    assert (tmp_path / "study" / "study.json").read_text() == "theirs"


def test_a_folder_with_nothing_but_a_lock_is_free(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".lock").touch()  # as a command that was killed leaves it
    assert open_study(tmp_path / "study", ASKED, "test").names == ["plain-r0"]


def test_a_trial_that_another_process_trains_is_busy(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study", ASKED, "test")
    trial = study.path / "trials" / "plain-r0"
    other = Other(trial)
    (trial / "state.json").write_text('{"state": "running"}')
    assert run_trial(trial, lambda kind, values: None) == "busy"
    assert json.loads((trial / "state.json").read_text()) == {"state": "running"}
    done = command("trial", str(study.path), "0")
    assert done.returncode == 2 and "trial plain-r0: another process is working on it" in done.stderr
    other.folder.unlock()
    assert run_trial(trial, lambda kind, values: None) == "finished"
    assert run_trial(trial, lambda kind, values: None) == "finished"
