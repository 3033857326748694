"""Test pictures that are changed in a fixed way: the same for every model, and measured right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from augend import AugendError, load
from augend.evaluate import shifts
from augend.evaluate.shifts import Looks, chosen, look, shifting, summary, variation
from augend.runner.job import Job
from augend.study.compare import compare
from augend.study.shifted import shifted
from inprocess import Done
from inprocess import run as command
from runs import SMALL, splits_of, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shifts") / "run"
    train(out, "plain", budget="60step", model="small")
    return out


def evaluate(*arguments: str) -> Done:
    return command("evaluate", *arguments)


def test_the_original_is_what_the_run_predicted(run: Path) -> None:
    found = shifted(run, "hflip,vflip")
    result = json.loads((run / "result.json").read_text())
    assert found["shifts"]["original"]["accuracy"] == pytest.approx(result["test"]) and list(found["shifts"]) == [
        "original", "hflip", "vflip",
    ]  # fmt: skip
    assert found["shifts"]["original"]["change"] == 0


def test_a_flip_by_hand(run: Path) -> None:
    model = load(run)
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    looks = look(model, test, test.labels, shifting(["original", "hflip"], test.shape))
    with torch.no_grad():
        flipped = model(test.pixels.flip(-1))
    np.testing.assert_allclose(looks.logits["hflip"], flipped.numpy(), rtol=1e-4, atol=1e-5)
    one = summary(looks)["hflip"]
    right = [(torch.from_numpy(looks.logits[s]).argmax(1) == test.labels).double() for s in ("original", "hflip")]
    change = right[1] - right[0]
    half = 1.96 * float(change.std()) / len(test) ** 0.5
    assert one["accuracy"] == pytest.approx(float(right[1].mean())) and one["change"] == pytest.approx(
        float(change.mean())
    )
    assert (one["low"], one["high"]) == pytest.approx((one["change"] - half, one["change"] + half))
    a, b = (torch.from_numpy(looks.logits[s]).double() for s in ("original", "hflip"))
    logs = [functional.log_softmax(x, 1) for x in (a, b)]
    wanted = sum(functional.kl_div(x, y, reduction="batchmean", log_target=True) for x, y in (logs, logs[::-1]))
    pair = variation(looks)["original, hflip"]
    assert pair["kl"] == pytest.approx(float(wanted), rel=1e-9)
    distance = np.linalg.norm(looks.features["original"] - looks.features["hflip"], axis=1).mean()
    assert pair["features"] == pytest.approx(float(distance))


def test_every_model_sees_the_same_sets_whatever_the_batch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(run)
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    names = chosen("all", model.shape[0])
    assert names == ["original", "crop", "hflip", "vflip", "rotate", "brightness"]  # digits are grey
    one = look(model, test, test.labels, shifting(names, test.shape))
    monkeypatch.setattr(shifts, "BATCH", 7)
    two = look(model, test, test.labels, shifting(names, test.shape))
    for name in names:
        np.testing.assert_allclose(one.logits[name], two.logits[name], rtol=1e-4, atol=1e-5)
    assert all(not np.allclose(one.logits[name], one.logits["original"], atol=1e-3) for name in names[1:])


def test_what_does_not_move_is_zero_and_symmetric() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.normal(size=(50, 4)).astype(np.float32) for _ in range(2))
    looks = Looks(np.arange(50) % 4, {"original": a, "x": a, "y": b}, {"original": a, "x": a, "y": b})
    found = variation(looks)
    assert found["original, x"] == {"kl": 0.0, "features": 0.0}
    assert found["original, y"] == found["x, y"] and found["x, y"]["kl"] > 0
    assert summary(looks)["x"]["change"] == 0
    assert summary(looks)["x"]["low"] == -1.96 / len(looks.labels)  # never surer than one picture


def test_a_study_takes_every_trial_and_pairs_the_repeats(tmp_path: Path) -> None:
    out = tmp_path / "study"
    compare(SMALL, ["plain", "augmented"], repeats=2, budget="30step", out=out, model="small")
    found = shifted(out, "rotate")
    own = json.loads((out / "results.json").read_text())["recipes"]
    for name, recipe in found["recipes"].items():  # as they are, the pictures give what the study itself says
        level = recipe["shifts"]["original"]["accuracy"]
        for key in ("mean", "low", "high"):
            assert level[key] == pytest.approx(own[name]["test"][key], abs=1e-9), name
    other = "plain" if found["reference"] == "augmented" else "augmented"
    each = {name: [shifted(out / "trials" / f"{name}-r{r}", "rotate") for r in range(2)] for name in found["recipes"]}
    values = {name: [one["shifts"]["rotate"]["accuracy"] for one in runs] for name, runs in each.items()}
    rotate: dict[str, Any] = found["recipes"][other]["shifts"]["rotate"]
    assert rotate["accuracy"]["mean"] == pytest.approx(np.mean(values[other]))
    differences = np.subtract(values[other], values[found["reference"]])
    assert rotate["versus_reference"]["mean"] == pytest.approx(differences.mean())
    assert rotate["versus_reference"]["repeats"] == 2
    assert found["recipes"][found["reference"]]["shifts"]["rotate"]["versus_reference"] is None
    done = evaluate(str(out), "--shifts", "rotate")
    assert done.returncode == 0 and f"points against {found['reference']}" in done.stdout, done.stderr


def test_the_command_prints_what_was_found(run: Path) -> None:
    done = evaluate(str(run), "--shifts", "crop", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and list(found["shifts"]) == ["original", "crop"], done.stderr
    said = evaluate(str(run), "--shifts", "crop").stdout
    assert f"{100 * found['shifts']['crop']['accuracy']:.2f} % right of 60" in said and "between original, crop" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shifts", "rotat"], "did you mean 'rotate'"),
        (["--shifts", "grayscale"], "changes nothing on grey pictures"),
        (["--shifts", "crop", "--data", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, run: Path) -> None:
    done = evaluate(str(run), *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_model_file_needs_data(run: Path, tmp_path: Path) -> None:
    alone = shutil.copy(run / "model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(AugendError, match="name data to judge a model file"):
        shifted(alone, "crop")
    assert shifted(alone, "crop", data=SMALL)["shifts"]["crop"]["pictures"] == 60
