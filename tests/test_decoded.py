"""Autoencoders shown changed pictures: distances and kept labels by hand, a run, a study, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from augend import AugendError, load
from augend.augment import build
from augend.augment.chain import Chain
from augend.evaluate.decoded import CHANGES, autoencoder, changes, changing, decode, recognised
from augend.pixels import to_float
from augend.randomness import Draws
from augend.recipes import dump
from augend.report import decoded_page
from augend.runner.job import Job
from augend.study.compare import compare
from augend.study.decoded import decoded
from inprocess import run as command
from runs import SMALL, splits_of, train

NETWORK = {"vae": {"model": {"denoising-vae": {"latent": 16, "widths": [8, 16, 16]}}}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A denoiser and a judge."""
    folder = tmp_path_factory.mktemp("decoded")
    (folder / "mine.yaml").write_text(dump({"like": "denoise-then-classify", "networks": NETWORK}))
    train(folder / "vae", str(folder / "mine.yaml"), settings="quick", budget="120step")
    train(folder / "judge", "augmented", settings="quick", budget="80step")
    return {name: folder / name for name in ("vae", "judge")} | {"recipe": folder / "mine.yaml"}


def test_distances_and_labels_by_hand(runs: dict[str, Path]) -> None:
    model, judge = load(runs["vae"]), load(runs["judge"])
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    found = decode(model, test, test.labels, changing(["original", "rotate"], test.shape), judge)
    clean = to_float(test.pixels[:])
    chain = Chain([build(one) for one in CHANGES["rotate"]])
    turned = chain.apply(test.pixels[:], chain.draw(Draws(0, "shift/rotate", keys=torch.arange(len(test))), 0.0))
    with torch.no_grad():
        back = model.networks.stages("vae")(turned, {"picture"})["picture"]
        plain = model.networks.stages("vae")(clean, {"picture"})["picture"]
        answers = judge(back).argmax(1)
    np.testing.assert_allclose(found.moved["rotate"], (turned - clean).square().flatten(1).mean(1), rtol=1e-4)
    np.testing.assert_allclose(found.missed["rotate"], (back - clean).square().flatten(1).mean(1), rtol=1e-4)
    np.testing.assert_allclose(found.missed["original"], (plain - clean).square().flatten(1).mean(1), rtol=1e-4)
    assert not found.moved["original"].any() and (found.judged["decoded/rotate"] == answers.numpy()).all()
    assert (recognised(found) == (judge(test.pixels[:]).argmax(1) == test.labels).numpy()).all()

    said, seen = decoded(runs["vae"], "rotate", runs["judge"])
    one, known = said["changes"]["rotate"], recognised(found)
    assert one["score"] == pytest.approx(1 - found.missed["rotate"].mean() / found.moved["rotate"].mean())
    assert one["kept"]["mean"] == pytest.approx((answers == test.labels).numpy()[known].mean())
    assert one["kept"]["low"] < one["kept"]["mean"] < one["kept"]["high"]
    assert set(one["classes"]) == {test_class for test_class in model.classes if one["classes"][test_class]}
    counts = np.bincount(found.labels[known], minlength=10)
    mean = sum(counts[n] * one["classes"][name]["mean"] for n, name in enumerate(model.classes) if counts[n])
    assert mean / counts.sum() == pytest.approx(one["kept"]["mean"])
    assert said["changes"]["original"]["score"] is None and seen["vae"]["rotate"].shape == (3, 8, 1, 28, 28)


def test_a_run_has_a_page_and_pictures(runs: dict[str, Path]) -> None:
    done = command("evaluate", str(runs["vae"]), "--decoded", "all", "--judge", str(runs["judge"]))
    assert done.returncode == 0, done.stderr
    assert "rotate" in done.stdout and "label kept" in done.stdout and "hue" not in done.stdout
    page = (runs["vae"] / "decoded.html").read_text()
    assert "Is the change undone?" in page and page.count("data:image/png;base64") == 4
    with Image.open(runs["vae"] / "decoded" / "vae-rotate.png") as image:
        assert image.size == (3 * (8 * 30 + 2), 3 * (3 * 30 + 2))
    assert json.loads((runs["vae"] / "decoded.json").read_text())["changes"].keys() == {
        "original",
        "zoom",
        "rotate",
        "light",
    }


def test_a_study_says_it_for_every_recipe_that_gives_pictures_back(runs: dict[str, Path], tmp_path: Path) -> None:
    asked = {"recipes": (str(runs["recipe"]), "plain"), "reference": "plain", "budget": "30step", "repeats": 2}
    compare(SMALL, out=tmp_path / "study", **asked)
    found, seen = decoded(tmp_path / "study", "rotate", runs["judge"])
    assert list(found["recipes"]) == list(seen) == ["mine"]
    one = found["recipes"]["mine"]["rotate"]
    each = [
        decoded(tmp_path / "study" / "trials" / f"mine-r{r}", "rotate", runs["judge"])[0]["changes"]["rotate"]
        for r in (0, 1)
    ]
    assert one["repeats"] == 2 and one["score"]["mean"] == pytest.approx(sum(e["score"] for e in each) / 2)
    assert one["kept"]["mean"] == pytest.approx(sum(e["kept"]["mean"] for e in each) / 2)
    assert one["missed"]["low"] < one["missed"]["mean"] < one["missed"]["high"]
    text = decoded_page.write(tmp_path / "study", found, seen).read_text()
    assert "mine" in text and (tmp_path / "study" / "decoded" / "mine-rotate.png").is_file()


def test_pictures_that_the_judge_was_trained_on_are_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    judge, model = load(runs["judge"]), load(runs["vae"])
    all_of_it = decode(model, test, test.labels, changing(["original", "rotate"], test.shape), judge)
    known, kept = recognised(all_of_it), all_of_it.judged["decoded/rotate"] == all_of_it.labels
    folder = tmp_path / "judge"
    shutil.copytree(runs["judge"], folder)
    with np.load(runs["judge"] / "predictions.npz") as stored:
        rows = {name: stored[name] for name in stored.files}
    rows["ids"] = rows["ids"].astype("U40")

    def teach(ids: list[str]) -> None:  # as if these had been training pictures of the judge
        chosen = np.flatnonzero(rows["split"] == "train")[: len(ids)]
        rows["ids"][chosen] = ids
        np.savez(folder / "predictions.npz", **rows)

    half = len(test) // 2
    teach([str(one) for one in test.ids[:half]])
    one = decoded(runs["vae"], "rotate", folder)[0]["changes"]["rotate"]
    assert one["left_out"] == half and one["kept"]["mean"] == pytest.approx(kept[half:][known[half:]].mean())
    assert kept[half:][known[half:]].mean() != pytest.approx(kept[known].mean())
    told = command("evaluate", str(runs["vae"]), "--decoded", "rotate", "--judge", str(folder))
    assert f"{half} pictures that the judge was trained on are left out" in told.stdout
    teach([str(one) for one in test.ids])
    told = command("evaluate", str(runs["vae"]), "--decoded", "rotate", "--judge", str(folder))
    assert told.returncode == 2 and "it was trained on every picture of" in told.stderr
    assert decoded(runs["vae"], "rotate", runs["judge"])[0]["changes"]["rotate"]["left_out"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["judge", "--decoded", "all"], "has no network that gives pictures back"),
        (["vae", "--decoded", "hue"], "hue changes nothing on grey pictures"),
        (["vae", "--decoded", "turn"], "there is no 'turn'"),
        (["vae", "--judge", "x"], "it needs --decoded"),
        (["vae", "--decoded", "all", "--judge", "nowhere"], "nowhere: there is no such folder"),
        (["vae", "--decoded", "all", "--shifts", "all"], "--shifts and --decoded are two evaluations"),
        (["vae", "--decoded", "all", "--attack", "fgsm"], "--decoded and --attack are two evaluations"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str, runs: dict[str, Path]) -> None:
    done = command("evaluate", str(runs[arguments[0]]), *arguments[1:])
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_judge_of_other_classes_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    judge = load(runs["judge"])
    assert autoencoder(load(runs["vae"]), "x") == "vae" and changes("all", 3)[-1] == "hue"
    model = load(runs["vae"])
    model.classes = ("cat", *model.classes[1:])
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    assert len(judge.classes) == 10 and len(test)
    import augend.study.decoded as room

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "pictures_of", lambda *given: (test, test.labels))
        patch.setattr(room, "model_of", lambda path: model)
        with pytest.raises(AugendError, match=r"class 'cat' of .* is none of the judge's"):
            decoded(runs["vae"], "rotate", runs["judge"])
