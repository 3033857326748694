"""Which pictures weights have learned from, and what is said where these are held out now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from augend.recipes.plan import Plan
from augend.runner.job import Job
from augend.study.lineage import began_with, learned, source_of
from inprocess import run as command
from runs import SMALL, splits_of, train


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lineage") / "base"
    train(folder, "plain", settings="quick", budget="4step")
    return folder


def pieces(seed: int, repeat: int = 0) -> dict[str, set[str]]:
    split = splits_of(Job(data=SMALL, recipe="plain", seed=seed, repeat=repeat))["main"]
    return {name: set(part.ids) for name, part in split.pieces().items()}


def plan_of(run: Path) -> Plan:
    return Plan.from_json((run / "plan.json").read_text(encoding="utf-8"))


def test_names_of_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of("mnist-tilt:train=9") == source_of("mnist") != source_of("digits")
    monkeypatch.chdir(tmp_path)
    assert source_of("pictures/../pictures") == str(tmp_path / "pictures")


def test_weights_are_followed_to_every_run_behind_them(base: Path, tmp_path: Path) -> None:
    first, second = pieces(0), pieces(1)
    file = str(base / "model.safetensors")
    train(tmp_path / "second", "finetune", settings="quick", budget="4step", seed=1, params={"weights": file})
    found = learned(tmp_path / "second")
    assert found.runs == {base.resolve(), (tmp_path / "second").resolve()} and found.whole
    assert found.pictures == {"digits": frozenset(first["train"] | second["train"])}
    before = began_with(plan_of(tmp_path / "second"))
    assert before.pictures == {"digits": frozenset(first["train"])} and before.runs == {base.resolve()}
    held = sorted(second["test"])
    assert before.among(SMALL, held).tolist() == [one in first["train"] for one in held] and before.sure(SMALL)
    assert before.sure("cifar10") and not before.among("cifar10", held).any() and not before.sure(str(tmp_path))
    card = command("export", str(tmp_path / "second"), "--to", str(tmp_path / "out.safetensors"))
    assert card.returncode == 0, card.stderr
    number = len(first["train"] & second["test"])
    text = next(tmp_path.glob("out*.md")).read_text()
    assert number > 3 and f"The weights that it began with had learned from {number:,} of them" in text

    alone = tmp_path / "alone.safetensors"
    shutil.copy(file, alone)
    assert learned(alone).pictures == {} and not learned(alone).whole
    again = tmp_path / "again"  # that was trained once more, on its validation pictures too
    shutil.copytree(base, again)
    about = json.loads((again / "run.json").read_text())
    about["job"]["refit"] = "trainval"
    (again / "run.json").write_text(json.dumps(about))
    assert learned(again).pictures["digits"] == first["train"] | first["valid"]
    (again / "predictions.npz").unlink()
    assert not learned(again).whole and learned(again).runs == {again.resolve()}
    plan = json.loads((base / "plan.json").read_text())
    next(iter(plan["networks"].values()))["weights"] = str(again / "model.safetensors")
    (again / "plan.json").write_text(json.dumps(plan))  # a run that began with itself
    assert learned(again).runs == {again.resolve()}


@pytest.mark.parametrize("seed", [0, 1])
def test_train_says_what_weights_knew(base: Path, tmp_path: Path, seed: int) -> None:
    words = [
        "--recipe",
        "finetune",
        "--settings",
        "quick",
        "--budget",
        "4step",
        "--weights",
        str(base / "model.safetensors"),
    ]
    done = command("train", SMALL, *words, "--seed", str(seed), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    first, here = pieces(0), pieces(seed)
    known = {piece: len(first["train"] & here[piece]) for piece in ("valid", "test")}
    told = (
        f"{known['valid']} of {len(here['valid'])} validation pictures and {known['test']} of {len(here['test'])} test"
    )
    assert ("LEARNED FROM HELD-OUT PICTURES" in done.stderr) is (seed == 1) and (told in done.stderr) is (seed == 1)


def test_compare_says_it_of_the_worst_repeat(base: Path, tmp_path: Path) -> None:
    words = ["--recipes", "finetune,plain", "--reference", "plain", "--budget", "4step", "--settings", "quick"]
    file = ["--weights", str(base / "model.safetensors"), "--model", plan_of(base).networks["net"].model.word]
    for repeats, out in (("1", "one"), ("3", "three")):
        done = command("compare", SMALL, *words, *file, "--repeats", repeats, "--out", str(tmp_path / out), "--plan")
        assert done.returncode == 0, done.stderr
        first, most = pieces(0)["train"], 0
        for repeat in range(int(repeats)):
            most = max(most, len(first & pieces(0, repeat)["test"]))
        assert (most > 0) is (repeats == "3")
        assert (f"{most} of {len(pieces(0)['test'])} test pictures" in done.stdout + done.stderr) is (most > 0)


def test_weights_of_nobody_are_no_news(base: Path, tmp_path: Path) -> None:
    save_file(load_file(base / "model.safetensors"), tmp_path / "alone.safetensors")
    words = ["--recipe", "finetune", "--settings", "quick", "--budget", "4step", "--seed", "1"]
    done = command(
        "train", SMALL, *words, "--weights", str(tmp_path / "alone.safetensors"), "--out", str(tmp_path / "run")
    )
    assert done.returncode == 0 and "LEARNED FROM" not in done.stderr
    assert np.load(tmp_path / "run" / "predictions.npz")["ids"].size
