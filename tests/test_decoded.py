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
from augend.study import decoded as room
from augend.study.compare import compare
from augend.study.decoded import decoded
from inprocess import run as command
from runs import SMALL, required, splits_of, train

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
    assert found.constant == pytest.approx(float(clean.double().var(0, unbiased=False).mean()))
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
    assert (
        one["constant"] == found.constant
        and said["changes"]["original"]["score"] is None
        and seen["vae"]["rotate"].shape == (3, 8, 1, 28, 28)
    )


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
    said = f"Left out of the judge's shares, since it was trained on them: {half} pictures."
    assert said in told.stdout and said.replace("'", "&#39;") in (runs["vae"] / "decoded.html").read_text()
    teach([str(one) for one in test.ids])
    told = command("evaluate", str(runs["vae"]), "--decoded", "rotate", "--judge", str(folder))
    assert told.returncode == 2 and "it was trained on every picture of" in told.stderr
    assert decoded(runs["vae"], "rotate", runs["judge"])[0]["changes"]["rotate"]["left_out"] == 0
    shutil.copy(runs["judge"] / "model.safetensors", tmp_path / "alone.safetensors")
    found, seen = decoded(runs["vae"], "rotate", tmp_path / "alone.safetensors")
    assert found["changes"]["rotate"]["left_out"] is None
    assert "It is not known which pictures" in decoded_page.write(runs["vae"], found, seen).read_text()


def test_a_study_judges_by_the_model_it_left(runs: dict[str, Path], tmp_path: Path) -> None:
    """That was trained once more, on validation pictures too; other cuts of the same data mean the same pictures."""
    compare(
        SMALL, out=tmp_path / "judge", recipes=("plain", "augmented"), reference="plain", budget="60step", repeats=2
    )
    (again,) = (tmp_path / "judge" / "refit").iterdir()
    with np.load(again / "predictions.npz") as rows:
        learned = {str(one) for one in rows["ids"][rows["split"] == "train"]}
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    assert len(learned) == 240
    one = decoded(runs["vae"], "rotate", tmp_path / "judge")[0]["changes"]["rotate"]
    assert one["left_out"] == sum(name in learned for name in test.ids)


def test_other_data_have_other_pictures_of_the_same_names(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(runs["judge"], folder)
    about = json.loads((folder / "run.json").read_text())
    about["job"]["data"] = "mnist:train=200"
    (folder / "run.json").write_text(json.dumps(about))
    with np.load(folder / "predictions.npz") as stored:
        rows = {name: stored[name] for name in stored.files}
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    rows["ids"] = rows["ids"].astype("U40")
    rows["ids"][np.flatnonzero(rows["split"] == "train")[: len(test)]] = test.ids
    np.savez(folder / "predictions.npz", **rows)
    assert decoded(runs["vae"], "rotate", folder)[0]["changes"]["rotate"]["left_out"] == 0


def test_what_is_not_finite_is_no_answer(runs: dict[str, Path]) -> None:
    model, judge = load(runs["vae"]), load(runs["judge"])
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "decode" in name and p.ndim == 1).fill_(float("nan"))
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    found = decode(model, test, test.labels, changing(["original", "rotate"], test.shape), judge)
    assert (found.judged["decoded/rotate"] == -1).all() and (found.judged["changed/rotate"] >= 0).all()
    look = room._Looked(found, np.array(test.ids), judge.classes, None)
    said = room._summary(look)["rotate"]
    assert said["missed"] is None and said["score"] is None and said["kept"]["mean"] == 0
    json.dumps(said, allow_nan=False)


def test_intervals_of_shares_are_shares(runs: dict[str, Path]) -> None:
    share = {"mean": 0.0, "low": 0.0, "high": 0.1, "of": 5}
    other = {**share, "mean": 0.5}
    each = [
        {"zoom": {"score": 0.1, "kept": one, "left_out": 3, "classes": {"a": one}}} for one in (share, share, other)
    ]
    found = room._gathered(each)["zoom"]
    assert 0 == found["kept"]["low"] < found["kept"]["mean"] < found["kept"]["high"] <= 1 and found["left_out"] == 3
    same = room._gathered(each[:2])["zoom"]["classes"]["a"]
    assert same["mean"] == 0 and same["high"] > 0.2  # two repeats of five pictures are not sure of nothing


def test_networks_that_never_learned_to_give_back_are_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    params = required("random-encoder")
    for recipe in ("random-encoder", "supervised-encoder", "pca-then-classify"):
        own = {key: value for key, value in params.items() if recipe != "pca-then-classify" or key == "latent"}
        train(tmp_path / recipe, recipe, settings="quick", budget="8step", params=own)
    for recipe in ("random-encoder", "supervised-encoder"):
        done = command("evaluate", str(tmp_path / recipe), "--decoded", "rotate")
        assert done.returncode == 2 and "'vae' was never trained to give pictures back" in done.stderr
    assert decoded(tmp_path / "pca-then-classify", "rotate")[0]["changes"]["rotate"]["score"] < 1


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "pictures_of", lambda *given: (test, test.labels))
        patch.setattr(room, "model_of", lambda path: model)
        with pytest.raises(AugendError, match=r"class 'cat' of .* is none of the judge's"):
            decoded(runs["vae"], "rotate", runs["judge"])
