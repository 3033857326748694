"""`augend sensitivity`: its numbers are the networks' own, its words follow from them, and it finds what is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import augend
from augend import AugendError
from augend.evaluate.strengths import ways
from augend.recipes.reading import read
from augend.runner.job import Job, load_splits
from augend.study.sensitivity import _surely, suggested, verdict
from augend.study.statistics import estimate
from inprocess import run
from test_truth import arrows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensitivity") / "study"
    words = ["--kinds", "vflip,crop", "--repeats", "2", "--budget", "40step", "--out", str(folder)]
    done = run("sensitivity", "digits:train=300,valid=100,test=20", *words)
    assert done.returncode == 0, done.stderr
    assert "suggested" not in done.stderr and "vflip" in done.stdout
    return folder


def _found(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study / "sensitivity.json").read_text())
    return found


def test_changes_are_those_of_the_networks(study: Path) -> None:
    """The change under a vertical flip, by hand from the models and their own validation pictures."""
    changes, classes = [], []
    for repeat in range(2):
        folder = study / "trials" / f"plain-r{repeat}"
        job = Job.from_json(json.loads((folder / "run.json").read_text())["job"])
        valid = load_splits(job)["main"].valid
        model = augend.load(folder)
        right = [
            (model.probabilities(x).argmax(1) == valid.labels).double() for x in (valid.pixels, valid.pixels.flip(-2))
        ]
        moved = right[1] - right[0]
        changes.append(float(moved.mean()))
        classes.append(float(moved[valid.labels == 2].mean()))
    found = _found(study)["ways"]["vflip"]
    assert found["change"]["mean"] == pytest.approx(np.mean(changes))
    assert found["classes"]["2"]["mean"] == pytest.approx(np.mean(classes))
    wanted = estimate(changes, evaluated=100, trained=300).interval
    assert wanted is not None
    assert (found["change"]["low"], found["change"]["high"]) == pytest.approx((max(-1, wanted[0]), min(1, wanted[1])))


def test_the_networks_see_every_augmentation_and_none_in_more_than_a_tenth(study: Path) -> None:
    plan = json.loads((study / "trials" / "plain-r0" / "plan.json").read_text())
    (op,) = plan["phases"][0]["views"]["x"]
    text = json.dumps(op)
    known = ways((1, 28, 28), "vflip,crop")
    assert len(known) == 4 and '"p": 0.4' in text and all(json.dumps(dict(way.shown)) in text for way in known.values())
    assert list(known) == list(_found(study)["ways"])


def test_the_page_and_the_suggestion(study: Path, tmp_path: Path) -> None:
    page = (study / "report.html").read_text()
    assert "augend sensitivity" in page and page.count('class="strip"') == 4 and "<svg" in page
    pixels = read(study / "suggested.yaml")["pixels"]
    assert pixels == _found(study)["suggested"]
    file = tmp_path / "own.yaml"
    file.write_text("pixels: [{one-of: {of: [{crop: {padding: 2}}, {noise: {sigma: 0.1}}], p: 0.75}}]\n")
    words = ["--recipe", "augmented", "--augment", str(file), "--budget", "3step", "--out", str(tmp_path / "run")]
    done = run("train", "digits:train=60,valid=20,test=20", *words)
    assert done.returncode == 0, done.stderr
    assert "one-of" in (tmp_path / "run" / "plan.json").read_text()


def test_it_is_continued_and_shows_a_run_the_same(study: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    job = ["digits:train=60,valid=40,test=20", "--recipe", "plain", "--budget", "20step", "--out", str(run_folder)]
    assert run("train", *job).returncode == 0
    before = _found(study)
    done = run("sensitivity", "--out", str(study), "--run", str(run_folder), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: one["change"] for name, one in found["ways"].items()} == {
        name: one["change"] for name, one in before["ways"].items()
    }
    own = augend.load(run_folder)
    valid = load_splits(Job.from_json(json.loads((run_folder / "run.json").read_text())["job"]))["main"].valid
    right = [
        float((own.probabilities(x).argmax(1) == valid.labels).float().mean())
        for x in (valid.pixels, valid.pixels.flip(-2))
    ]
    assert found["ways"]["vflip"]["model"]["change"]["mean"] == pytest.approx(right[1] - right[0])
    assert "Your model" in (study / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--kinds", "hflop"], "there is no 'hflop'; did you mean 'hflip'?"),
        (["digits", "--kinds", "hue"], "hue changes nothing on grey pictures"),
        (["digits", "--margin", "0"], "--margin is 0"),
        (["nowhere"], "nowhere"),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = run("sensitivity", *words, "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_its_folder_is_no_comparison(study: Path) -> None:
    for words in (["compare", "--out", str(study)], ["report", str(study)]):
        done = run(*words)
        assert done.returncode == 2 and "augend sensitivity --out" in done.stderr.splitlines()[-1]
    done = run("sensitivity", "--out", str(study), "--kinds", "hflip")
    assert done.returncode == 2 and "was made with --kinds vflip,crop" in done.stderr


def test_a_damaged_look_is_made_again(study: Path) -> None:
    before = {name: one["classes"] for name, one in _found(study)["ways"].items()}
    for damage in (b"", b"PK nothing"):
        (study / "trials" / "plain-r0" / "looks.npz").write_bytes(damage)
        assert run("sensitivity", "--out", str(study)).returncode == 0
        assert {name: one["classes"] for name, one in _found(study)["ways"].items()} == before


@pytest.mark.slow
def test_the_same_validation_pictures_are_no_new_sample(tmp_path: Path) -> None:
    """Of a folder that brings its own, the pictures are a sample too: the interval is that of their mean differences."""
    folder = tmp_path / "arrows"
    for number, part in enumerate(("train", "val", "test")):
        arrows(folder / part, 30, seed=number)
    words = ["--size", "32", "--model", "small", "--kinds", "hflip", "--repeats", "2", "--budget", "3step"]
    done = run("sensitivity", str(folder), *words, "--out", str(tmp_path / "study"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    looks = [np.load(tmp_path / "study" / "trials" / f"plain-r{r}" / "looks.npz") for r in (0, 1)]
    moved = [one["right/hflip"].astype(float) - one["right/original"] for one in looks]
    assert found["fixed"] and len(moved[0]) == 60
    pictures = np.mean(moved, axis=0)
    error = np.sqrt(np.var([one.mean() for one in moved], ddof=1) / 2 + pictures.var(ddof=1) / 60)
    low = max(-1.0, float(np.mean(moved)) - 12.7062 * max(error, 1 / 60))
    assert found["ways"]["hflip"]["change"]["low"] == pytest.approx(low, rel=1e-4)
    # and after three steps these networks know too little to say anything
    assert not found["learned"] and found["suggested"] == [] and found["ways"]["hflip"]["verdict"] == "unclear"
    assert "know too little" in (tmp_path / "study" / "report.html").read_text()


def test_a_run_of_other_pictures_is_refused_before_training(study: Path, tmp_path: Path) -> None:
    job = ["digits:train=60,valid=40,test=20", "--recipe", "plain", "--budget", "2step", "--out", str(tmp_path / "run")]
    assert run("train", *job).returncode == 0
    arrows(tmp_path / "arrows", 20)
    words = ["--size", "32", "--kinds", "hflip", "--budget", "5step", "--run", str(tmp_path / "run")]
    done = run("sensitivity", str(tmp_path / "arrows"), *words, "--out", str(tmp_path / "other"))
    assert done.returncode == 2 and "its pictures are 1 x 28 x 28, those of the study" in done.stderr
    assert not (tmp_path / "other").exists()
    done = run("sensitivity", "--run", str(tmp_path / "run" / "model.safetensors"), "--out", str(tmp_path / "third"))
    assert done.returncode == 2 and "is no run's folder" in done.stderr and not (tmp_path / "third").exists()


def test_the_words_of_a_verdict() -> None:
    sizes = {"evaluated": 1000, "trained": 10_000}
    assert verdict(estimate([-0.01, -0.02, 0.0], **sizes), 0.05) == "harmless"
    assert verdict(estimate([-0.41, -0.4, -0.42], **sizes), 0.05) == "harmful"
    assert verdict(estimate([-0.1, 0.0, -0.05], **sizes), 0.05) == "unclear"
    assert verdict(estimate([-0.4], **sizes), 0.05) == "unclear"  # one repeat knows nothing of its spread


def test_one_class_of_many_must_be_surer() -> None:
    """Looking at 40 classes, one of them seems harmed by chance: the interval is that of 1 - 0.05 / 40."""
    found = estimate([-0.08, -0.12, -0.09, -0.13, -0.10], evaluated=400, trained=10_000)
    assert found.interval is not None and found.interval[1] < -0.05
    assert _surely(found, 0.05, 1) and not _surely(found, 0.05, 40)


def test_what_is_suggested() -> None:
    def way(kind: str, strength: float, word: str) -> dict[str, Any]:
        return {"kind": kind, "strength": strength, "verdict": word, "shown": {kind: strength}}

    found = {
        "hflip": way("hflip", 0, "harmless"),
        "vflip": way("vflip", 0, "harmful"),
        "crop-2": way("crop", 2, "harmless"),
        "crop-4": way("crop", 4, "harmless"),
        "crop-8": way("crop", 8, "unclear"),
        "crop-9": way("crop", 9, "harmless"),  # beyond one that is not known to be harmless
        "noise-1": way("noise", 1, "unclear"),
        "noise-2": way("noise", 2, "harmless"),
        "turn-90": way("turn", 90, "harmful"),
        "turn-180": way("turn", 180, "harmless"),
    }
    assert suggested(found) == [{"hflip": 0.5}, {"one-of": {"of": [{"crop": 4}, {"turn": 180}], "p": 0.75}}]
    assert suggested({"vflip": found["vflip"]}) == []


def test_the_grid_follows_the_pictures() -> None:
    grey, colour = ways((1, 28, 28)), ways((3, 64, 48))
    assert not {"saturation-0.4", "hue-0.1", "grayscale"} & set(grey) and "hue-0.1" in colour
    assert {"crop-2", "crop-4", "crop-7"} <= set(grey) and {"crop-3", "crop-6", "crop-12"} <= set(colour)
    with pytest.raises(AugendError, match="names none"):
        ways((1, 28, 28), ",")


@pytest.mark.slow
def test_digits_may_be_moved_and_not_turned_over(tmp_path: Path) -> None:
    """All kinds, five repeats: about four minutes on two quiet cores."""
    done = run("sensitivity", "digits", "--out", str(tmp_path / "study"), "--json", timeout=3000)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["ways"]
    for name, one in found.items():
        print(name, one["verdict"], one["harmed"], one["change"])
    assert found["crop-2"]["verdict"] == found["rotate-10"]["verdict"] == "harmless"
    for name in ("vflip", "turn-180"):
        assert found[name]["verdict"] == "harmful" and len(found[name]["harmed"]) >= 5
        assert not {"0", "8"} & set(found[name]["harmed"])
    assert {"6", "9"} <= set(found["turn-180"]["harmed"])


@pytest.mark.slow
@pytest.mark.parametrize("upright", [False, True])
def test_arrows_show_which_flip_hurts(upright: bool, tmp_path: Path) -> None:
    """Left and right, then the same pictures turned: up and down. Each is harmed by its own flip alone."""
    folder = tmp_path / "arrows"
    arrows(folder, 1000)
    if upright:
        for file in folder.rglob("*.png"):
            Image.open(file).transpose(Image.Transpose.TRANSPOSE).save(file)
    words = ["--size", "32", "--kinds", "hflip,vflip", "--budget", "1000step", "--model", "small"]
    done = run("sensitivity", str(folder), *words, "--out", str(tmp_path / "study"), "--json", timeout=3000)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["ways"]
    print({name: (one["verdict"], one["change"]) for name, one in found.items()})
    harmful, harmless = ("vflip", "hflip") if upright else ("hflip", "vflip")
    assert found[harmful]["verdict"] == "harmful" and found[harmful]["harmed"] == ["left", "right"]
    assert found[harmless]["verdict"] == "harmless"
    assert torch.tensor(found[harmful]["change"]["mean"]) < -0.5
