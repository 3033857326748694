"""What a run or a study was made of changes under its feet: said in one line instead of numbers that mean something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import photos
from augend import AugendError
from augend.cli.announce import announce
from augend.evaluate.shifts import chosen
from augend.report.facts import facts
from augend.runner.folder import RunFolder
from augend.runner.hardware import describe
from augend.runner.job import Job, start
from augend.study import unchanged
from augend.study.compare import compare, open_study
from augend.study.request import Request
from augend.study.shifted import other_data, shifted
from augend.study.unchanged import files_in, fingerprints
from fixture_study import Made, make_study
from inprocess import run as command
from runs import ONE_THREAD, SMALL, required, train

ASKED = {"recipes": ("augmented", "plain"), "reference": "plain", "budget": "6step", "repeats": 1, "size": 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos.fill(tmp_path / "pictures", {"cat": 30, "dog": 30})


def test_a_study_does_not_go_on_with_other_pictures(folder: Path, tmp_path: Path) -> None:
    compare(str(folder), out=tmp_path / "study", **ASKED)
    before = (tmp_path / "study" / "study.json").read_bytes()
    compare(str(folder), out=tmp_path / "study", **ASKED)  # nothing is left to do
    moved = next((folder / "cat").iterdir())
    kept = moved.read_bytes()
    moved.unlink()
    done = command("compare", "--out", str(tmp_path / "study"), "--repeats", "2")
    assert done.returncode == 2 and "have changed since the study began" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "study" / "study.json").read_bytes() == before
    with Image.open(next((folder / "dog").iterdir())) as other:
        other.save(moved)
    with pytest.raises(AugendError, match="have changed since the study began"):
        compare(str(folder), out=tmp_path / "study", **{**ASKED, "repeats": 2})
    moved.write_bytes(kept)
    assert compare(str(folder), out=tmp_path / "study", **{**ASKED, "repeats": 2})["complete"]


def test_a_study_keeps_its_recipes(folder: Path, tmp_path: Path) -> None:
    """A recipe's file may go: the study has a copy, also where what is set must find its way to recipes."""
    (tmp_path / "mine.yaml").write_text("{like: augmented}")
    asked = {**ASKED, "recipes": (str(tmp_path / "mine.yaml"), "plain"), "overrides": ("plain.until=100%",)}
    compare(str(folder), out=tmp_path / "study", **asked)
    (tmp_path / "mine.yaml").unlink()
    assert compare(out=tmp_path / "study", repeats=2)["complete"]


def test_a_study_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("{like: quick, batch: 16}")
    (tmp_path / "mine.yaml").write_text("{like: base.yaml, clip: 2.0}")
    asked = {**ASKED, "settings": str(tmp_path / "mine.yaml")}
    asked.pop("size")
    compare(SMALL, out=tmp_path / "study", **asked)
    (tmp_path / "base.yaml").write_text("{like: quick, batch: 32}")
    done = command("compare", "--out", str(tmp_path / "study"), "--repeats", "2")
    assert done.returncode == 2 and "base.yaml has changed or is gone since the study began" in done.stderr
    (tmp_path / "base.yaml").unlink()
    done = command("compare", "--out", str(tmp_path / "study"), "--repeats", "2")
    assert done.returncode == 2 and "base.yaml" in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "base.yaml").write_text("{like: quick, batch: 16}")
    assert command("compare", "--out", str(tmp_path / "study"), "--repeats", "2").returncode == 0


def test_a_study_does_not_go_on_with_other_weights(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_text("theirs")
    asked = Request(data=SMALL, weights=str(tmp_path / "weights.safetensors"))
    files = fingerprints(asked, Job(data=SMALL, recipe="plain"), [])["files"]
    assert list(files) == [str(tmp_path / "weights.safetensors")]


def test_a_study_does_not_go_on_with_other_files_of_its_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe is copied into the study, the scores that it names are not; a word is no file by being called like one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text("a file of the user's that is called as a recipe is")
    scores = shutil.copy(required("curriculum")["scores"], tmp_path / "scores.csv")
    (tmp_path / "mine.yaml").write_text(f"{{like: curriculum, params: {{scores: {scores}}}}}")
    asked = {"data": SMALL, "recipes": (str(tmp_path / "mine.yaml"), "plain"), "budget": "24step", "repeats": 1}
    study = open_study(tmp_path / "study", {**asked, "reference": str(tmp_path / "mine.yaml")}, "test")
    assert study.record["reference"] == "mine"  # also where it was named by its file
    assert list(study.record["made_of"]["files"]) == [str(scores)]
    assert open_study(tmp_path / "study", {}, "test").names == study.names
    Path(scores).write_text(Path(scores).read_text() + "\n")
    for arguments in (("compare", "--out", "study"), ("trial", "study", "0")):
        done = command(*arguments)
        assert done.returncode == 2 and "scores.csv has changed or is gone since the study began" in done.stderr
        assert done.stderr.count("\n") == 1
    Path(scores).unlink()
    with pytest.raises(AugendError, match=r"scores\.csv has changed or is gone"):
        open_study(tmp_path / "study", {}, "test")


def test_a_long_text_is_no_file(tmp_path: Path) -> None:
    """What `augend sensitivity` suggests, given to --augment, is longer than any name of a file may be."""
    long = json.dumps([{"one-of": {"of": [{"rotate": 0.01 * n} for n in range(40)], "p": 0.75}}])
    assert 300 < len(long) < 1000
    asked = Request(data=SMALL, overrides=(f"pixels={long}",))
    assert fingerprints(asked, Job(data=SMALL, recipe="augmented"), [])["files"] == {}
    assert not list(files_in([long, {"a": [long * 10, "\0"]}]))
    (tmp_path / "x.csv").touch()
    assert list(files_in({"a": [str(tmp_path / "x.csv"), 3, None]})) == [str(tmp_path / "x.csv")]


def test_other_code_or_another_machine_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"data": SMALL, "recipes": ("plain",), "budget": "6step", "settings": "quick", "repeats": 1}
    study = open_study(tmp_path / "study", asked, "test")
    assert open_study(tmp_path / "study", {}, "test").record["notes"] == study.record["notes"]
    own = study.record["environment"]
    monkeypatch.setattr(unchanged, "program", lambda: {"augend": own["augend"], "commit": "zzz"})
    monkeypatch.setattr(unchanged, "describe", lambda: {**describe(), "processor": "another"})
    for _ in range(2):  # said once, however often
        study = open_study(tmp_path / "study", {"repeats": 2}, "test")
        (note,) = [one for one in study.record["notes"] if one.startswith("NOT ONE CODE AND MACHINE")]
        assert f"commit was {own.get('commit')} and is zzz; processor was {own['processor']} and is another." in note
    assert note in json.loads((tmp_path / "study" / "study.json").read_text())["notes"]
    announce(study)
    assert note in capsys.readouterr().err


def test_the_page_names_everything_that_made_trials(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"augmented": Made(0.9)}, repeats=3, curves=False)
    for repeat, commit in enumerate(("abc", "abc", "abd")):
        made = {"augend": "1", "commit": commit, "torch": "2", "gpu": None, "command": str(repeat)}
        (study / "trials" / f"augmented-r{repeat}" / "environment.json").write_text(json.dumps(made))
    shown = facts(json.loads((study / "study.json").read_text()), study)["Trials were made by"]
    assert shown == {
        "augmented-r0, augmented-r1": "augend 1, commit abc, torch 2",
        "augmented-r2": "augend 1, commit abd, torch 2",
    }
    (study / "trials" / "augmented-r2" / "environment.json").unlink()
    assert "Trials were made by" not in facts(json.loads((study / "study.json").read_text()), study)


def test_a_run_is_not_judged_on_pictures_that_may_have_been_its_own(folder: Path, tmp_path: Path) -> None:
    job = Job(data=str(folder), recipe="plain", settings="quick", budget="6step", size=32)
    start(job, RunFolder(tmp_path / "run"), ONE_THREAD)
    shifted(tmp_path / "run", "hflip")
    for word in (["--shifts", "hflip"], ["--attack", "fgsm"], []):
        done = command("evaluate", str(tmp_path / "run"), *word, "--data", str(folder))
        assert done.returncode == 2 and "was trained on its pictures; leave --data out" in done.stderr
        file = str(tmp_path / "run" / "model.safetensors")
        done = command("evaluate", file, *word, "--data", str(folder))
        assert done.returncode == 2 and f"name {tmp_path / 'run'} and leave --data out" in done.stderr
    next((folder / "cat").iterdir()).unlink()
    for word in (["--shifts", "hflip"], ["--attack", "fgsm"]):
        done = command("evaluate", str(tmp_path / "run"), *word)
        assert done.returncode == 2 and "which are its test pictures is not known" in done.stderr
        assert done.stderr.count("\n") == 1


def test_other_cuts_of_a_data_set_are_the_same_pictures(tmp_path: Path) -> None:
    train(tmp_path / "run", "plain", settings="quick", budget="6step")
    for data in (SMALL, "digits", "digits:train=10"):
        with pytest.raises(AugendError, match="was trained on its pictures; leave --data out"):
            other_data(tmp_path / "run", data)
    assert not other_data(tmp_path / "run", "mnist") and not other_data(tmp_path / "run", None)


def test_a_test_set_that_everybody_has_may_be_shown(tmp_path: Path) -> None:
    """MNIST's is nobody's to train on, so more of it than the run kept may be asked for; other pieces may not."""
    train(tmp_path / "run", "plain", settings="quick", budget="6step")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    about["data"]["main"]["fixed_test"] = True
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert other_data(tmp_path / "run", "digits") is True
    with pytest.raises(AugendError, match="it is shown its own validation pictures"):
        other_data(tmp_path / "run", "digits", "valid")
    done = command("evaluate", str(tmp_path / "run"), "--data", "digits", "--json")
    assert list(json.loads(done.stdout)["splits"]) == ["test"]
    about["job"]["refit"] = "all"  # a model that was trained once more, on test pictures too
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    with pytest.raises(AugendError, match="was trained on it"):
        other_data(tmp_path / "run", "digits")


def test_the_last_model_is_not_trained_by_other_settings(tmp_path: Path) -> None:
    """All trials are done, and the training on validation pictures too is not."""
    (tmp_path / "mine.yaml").write_text("{like: quick, batch: 16}")
    asked = {**ASKED, "settings": str(tmp_path / "mine.yaml"), "repeats": 2, "budget": "60step"}
    asked.pop("size")
    compare(SMALL, out=tmp_path / "study", **asked)
    (made,) = (tmp_path / "study" / "refit").iterdir()
    (tmp_path / "mine.yaml").write_text("{like: quick, batch: 32}")
    assert compare(out=tmp_path / "study")["complete"]  # all is there
    shutil.rmtree(made)
    with pytest.raises(AugendError, match="has changed or is gone since the study began"):
        compare(out=tmp_path / "study")
    assert not list(made.glob("metrics*"))


def test_a_damaged_description_is_one_line(tmp_path: Path) -> None:
    train(tmp_path / "run", "plain", settings="quick", budget="6step")
    for text in ("[]", "{}", "3", "{"):
        (tmp_path / "run" / "run.json").write_text(text)
        for word in (["--shifts", "hflip"], ["--attack", "fgsm"], ["--scores", str(tmp_path / "s.csv")]):
            done = command("evaluate", str(tmp_path / "run"), *word)
            assert done.returncode == 2 and "run.json: damaged" in done.stderr and done.stderr.count("\n") == 1


def test_files_that_hold_no_scores_are_not_written_over(tmp_path: Path) -> None:
    train(tmp_path / "run", "plain", settings="quick", budget="6step")
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    done = command("evaluate", str(tmp_path / "run"), "--scores", str(mine))
    assert done.returncode == 2 and "is there already, and holds no scores" in done.stderr
    assert mine.read_text() == "precious"
    for _ in range(2):
        assert command("evaluate", str(tmp_path / "run"), "--scores", str(tmp_path / "t.csv")).returncode == 0


def test_two_recipes_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("recipes", "copy", "augmented").returncode == 0
    done = command("compare", SMALL, "--recipes", "augmented,augmented.yaml", "--budget", "5step", "--out", "study")
    assert done.returncode == 2 and "two are called 'augmented', as augmented and augmented.yaml" in done.stderr
    assert not Path("study").exists()
    shutil.rmtree(tmp_path / "study", ignore_errors=True)


def test_all_may_stand_beside_names() -> None:
    assert chosen("all", 1) == chosen("all,crop", 1) == chosen("crop, all", 1)
