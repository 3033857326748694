"""`augend evaluate --attack` and `--sums`: runs and studies, what they print, and mistakes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import augend.evaluate.attacked as attacked_room
from augend import AugendError, TestTimeSums, load
from augend.evaluate.attacked import look
from augend.evaluate.attacks import gradient_of, in_bfloat16, pgd, worst
from augend.evaluate.threats import ADAPTIVE, BARE, BLIND, SWEEP, TRANSFERRED, asked, conditions
from augend.pixels import to_float
from augend.randomness import Draws
from augend.runner.job import Job
from augend.study.attacked import _paired, above, attacked
from augend.study.compare import open_study
from augend.study.results import write
from augend.study.shifted import answered
from augend.study.trials import run_trial, trial_folder
from inprocess import run as command
from runs import SMALL, splits_of, train
from toys import one_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
SUMS = "k=2,weight=4,draws=4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacked") / "run"
    train(out, "plain", budget="60step", model="mlp")
    return out


def by(model: dict[str, Any], attack: str, threat: str, said: str) -> dict[str, Any]:
    return next(
        one for one in model["conditions"] if (one["attack"], one["threat"], one["said"]) == (attack, threat, said)
    )


def test_a_run_by_hand(run: Path) -> None:
    found = attacked(run, asked("pgd,fgsm", "8/255,0", SUMS, samples=2, restarts=2))
    model, test = load(run), splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    train_ = splits_of(Job(data=SMALL, recipe="plain"))["main"].train
    x, y = to_float(test.pixels), test.labels
    numbers = torch.arange(len(x))
    own = found["models"]["run"]
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert by(own, "clean", BARE, "0")["accuracy"]["mean"] == pytest.approx(float(right.double().mean()))
    assert json.loads((run / "result.json").read_text())["test"] == pytest.approx(float(right.double().mean()))
    draws = Draws(0, "attack/pgd", keys=numbers)
    moved = pgd(model, x, y, 8 / 255, restarts=2, draws=draws)
    with torch.no_grad():
        still = model(moved).argmax(1) == y
    one = by(own, "pgd", BARE, "8/255")
    assert one["accuracy"]["mean"] == pytest.approx(float(still.double().mean()))
    assert one["success"]["mean"] == pytest.approx(float((right & ~still).double().sum() / right.double().sum()))
    assert one["accuracy"]["low"] < one["accuracy"]["mean"] < one["accuracy"]["high"]
    sums = TestTimeSums(model, train_.pixels, weight=4.0, draws=4)  # fewer than 2,000 training pictures: all
    with torch.no_grad():
        through, transferred = (sums(z, numbers).argmax(1) == y for z in (x, moved))
        found_by = pgd(sums, x, y, 8 / 255, restarts=2, samples=2, draws=draws)
        adaptive = sums(worst(sums, [found_by, moved], y, numbers), numbers).argmax(1) == y
    assert by(own, "clean", "test-time sums", "0")["accuracy"]["mean"] == pytest.approx(float(through.double().mean()))
    for threat, answer in ((TRANSFERRED, transferred), (ADAPTIVE, adaptive)):
        one = by(own, "pgd", threat, "8/255")
        assert one["accuracy"]["mean"] == pytest.approx(float(answer.double().mean())), threat
        fallen = (through & ~answer).double().sum() / through.double().sum()
        assert one["success"]["mean"] == pytest.approx(float(fallen)), threat
    assert bool((transferred | ~adaptive).all())  # picture by picture
    for attack in ("pgd", "fgsm"):
        same = by(own, attack, BARE, "0")
        assert same["accuracy"]["mean"] == pytest.approx(float(right.double().mean())) and same["success"]["mean"] == 0
    assert own["share_of_draws"] == 1.0 and found["pictures"] == 60


def test_fast_gradients_find_what_exact_ones_find(run: Path) -> None:
    """Passes in bfloat16 move some pixels the other way; judged in full precision the answers are nearly the same."""
    exact, fast = (asked("pgd,fgsm", "2/255,8/255", "k=2,draws=3", samples=2, fast=quick) for quick in (False, True))
    each = [attacked(run, wanted)["models"]["run"] for wanted in (exact, fast)]
    for one, other in zip(each[0]["conditions"], each[1]["conditions"], strict=True):
        if one["attack"] == "clean":
            assert one["accuracy"] == other["accuracy"] and one["procedure"] == other["procedure"]
        else:
            assert one["accuracy"]["mean"] == pytest.approx(other["accuracy"]["mean"], abs=0.05)
            assert ", gradients in bfloat16" in other["procedure"] and "bfloat16" not in one["procedure"]
    assert fast.common == {**exact.common, "fast": True}
    split = splits_of(Job(data=SMALL, recipe="plain"))["main"]
    model, x, y = load(run), to_float(split.test.pixels[:20]), split.test.labels[:20]
    draws, ask = Draws(0, "attack", keys=20), gradient_of(model)
    whole, near = ask(x, y, draws), in_bfloat16(ask)(x, y, draws)
    assert near.dtype == torch.float32 and not torch.equal(whole, near)
    agree = ((whole.sign() == near.sign()) | (whole.abs() < 0.1 * whole.abs().mean())).float().mean()
    assert agree > 0.95
    ends = [pgd(model, x, y, 8 / 255, gradient=one, draws=draws) for one in (ask, in_bfloat16(ask))]
    (looked,) = (look(model, split.test.take(torch.arange(20)), y, asked("pgd", "8/255", fast=True)).answers,)
    with torch.no_grad():
        assert looked["pgd 8/255, bare model"].tolist() == model(ends[1]).argmax(1).tolist()
    assert not torch.equal(*ends)


def test_a_sure_answer_has_a_gradient_in_bfloat16_too() -> None:
    """A probability of 0.999 rounds to 1 there, which would leave the attack without a direction."""
    sure = torch.nn.Linear(4, 2).eval()
    with torch.no_grad():
        sure.weight.copy_(torch.tensor([[7.0, 0, 0, 0], [0, 0, 0, 0]]))
        sure.bias.zero_()
    x, y = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0])
    found = in_bfloat16(gradient_of(sure))(x, y, Draws(0, "attack", keys=1))
    assert -0.01 < float(found[0, 0]) < -0.005  # 7 times what the other class has: 0.0009


def test_copies_of_a_picture_make_a_difference_no_surer() -> None:
    ids, labels, answers = np.arange(12).astype(str), np.zeros(12, np.int64), np.arange(12) // 4
    own = answered(ids, labels, {"few": answers, "more": answers // 2})
    copied = [f"{n}@{angle:+03d}" for angle in (-15, 10, 15) for n in range(12)]
    same = answered(
        np.array(copied), np.tile(labels, 3), {"few": np.tile(answers, 3), "more": np.tile(answers // 2, 3)}
    )
    one, other = _paired(own["more"], own["few"]), _paired(same["more"], same["few"])
    assert one is not None and other is not None and one["mean"] == pytest.approx(other["mean"]) == pytest.approx(1 / 3)
    assert other["high"] - other["mean"] == pytest.approx(one["high"] - one["mean"], rel=0.05)


def test_an_attack_that_knows_the_draws(run: Path) -> None:
    """It ascends the very answer that is judged, by the pictures' own numbers; that is no weaker than fresh draws."""
    wanted = asked("pgd,fgsm", "8/255", "k=2,weight=1,draws=3", known=True, restarts=2)
    found = attacked(run, wanted)["models"]["run"]
    split = splits_of(Job(data=SMALL, recipe="plain"))["main"]
    model, x, y = load(run), to_float(split.test.pixels), split.test.labels
    numbers = torch.arange(len(x))
    sums = TestTimeSums(model, split.train.pixels, draws=3)
    draws = Draws(0, "attack/pgd", keys=numbers)
    moved = [pgd(one, x, y, 8 / 255, restarts=2, draws=draws) for one in (sums, model)]
    with torch.no_grad():
        wrong = [sums(one, numbers).argmax(1) != y for one in moved]
        still = model(moved[1]).argmax(1) == y
    one = by(found, "pgd", ADAPTIVE, "8/255")
    right = ~(wrong[0] | wrong[1])
    assert one["accuracy"]["mean"] == pytest.approx(float(right.double().mean()))
    assert "defender's own draws, which are known" in one["procedure"] and "fresh" not in one["procedure"]
    apart = right.double() - still.double()
    assert one["over_bare"]["mean"] == pytest.approx(float(apart.mean()))
    half = 1.96 * float(apart.std()) / len(apart) ** 0.5
    assert one["over_bare"]["high"] - one["over_bare"]["mean"] == pytest.approx(half)
    assert by(found, "pgd", TRANSFERRED, "8/255")["over_bare"] is None
    fresh = attacked(run, asked("pgd", "8/255", "k=2,weight=1,draws=3", samples=3, restarts=2))["models"]["run"]
    assert one["accuracy"]["mean"] <= by(fresh, "pgd", ADAPTIVE, "8/255")["accuracy"]["mean"] + 0.02
    assert wanted.common["known"] is True and "known" not in asked("pgd", sums="k=2").common


def test_batches_and_known_answers_change_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, test = load(run), splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    wanted = asked("bim,mim,fgsm", "8/255", "weight=4,draws=3,average=probabilities", samples=2, steps=3)
    one = look(model, test, test.labels, wanted, test.pixels)
    monkeypatch.setattr(attacked_room, "BATCH", 17)
    seen: list[tuple[int, int]] = []
    two = look(model, test, test.labels, wanted, test.pixels, after=lambda *at: seen.append(at))
    assert list(one.answers) == [*(c.name for c in conditions(wanted)), BLIND] and seen[-1] == (11 * 60, 11 * 60)
    for name, answers in one.answers.items():
        assert (answers != two.answers[name]).mean() < 0.04, name  # bits follow the batch's shape
    assert one.share is not None and one.share < 1
    some = look(model, test, test.labels, wanted, test.pixels, kept=list(one.answers)[:-1])
    assert list(some.answers) == list(one.answers)[-1:]


def test_fewer_pictures_are_a_fixed_stratified_part(run: Path) -> None:
    found = [attacked(run, asked("fgsm", "0.1", pictures=20)) for _ in range(2)]
    assert found[0] == found[1] and found[0]["pictures"] == 20
    assert attacked(run, asked("fgsm", "0.1", pictures=2000))["pictures"] == 60


def test_a_study_takes_every_trial_pairs_repeats_and_keeps_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    asked_for = {"data": SMALL, "recipes": ("plain", "augmented"), "repeats": 2, "budget": "15step", "model": "mlp"}
    for name in open_study(out, asked_for, "augend compare").names:  # in this process, and without a report
        assert run_trial(trial_folder(out, name), lambda *event: None) == "finished"
    write(out)
    wanted = asked("fgsm", "4/255", "weight=4,draws=2,references=50", samples=1)
    found = attacked(out, wanted)
    results = json.loads((out / "results.json").read_text())
    for name, model in found["models"].items():  # clean pictures give what the study itself says
        level = by(model, "clean", BARE, "0")["accuracy"]
        for key in ("mean", "low", "high"):
            assert level[key] == pytest.approx(results["recipes"][name]["test"][key], abs=1e-9), name
    reference = found["reference"]
    other = "plain" if reference == "augmented" else "augmented"
    each = {
        name: [attacked(out / "trials" / f"{name}-r{r}", wanted)["models"][f"{name}-r{r}"] for r in range(2)]
        for name in found["models"]
    }
    for threat in (BARE, TRANSFERRED, ADAPTIVE):
        one = by(found["models"][other], "fgsm", threat, "4/255")
        values = {
            name: [by(model, "fgsm", threat, "4/255")["accuracy"]["mean"] for model in models]
            for name, models in each.items()
        }
        assert one["accuracy"]["mean"] == pytest.approx(np.mean(values[other])), threat
        assert one["versus_reference"]["mean"] == pytest.approx(np.mean(np.subtract(values[other], values[reference])))
        assert one["versus_reference"]["repeats"] == 2
        success = [by(model, "fgsm", threat, "4/255")["success"]["mean"] for model in each[other]]
        assert one["success"]["mean"] == pytest.approx(np.mean(success)) and one["success"]["repeats"] == 2
        assert by(found["models"][reference], "fgsm", threat, "4/255")["versus_reference"] is None

    def never(*_: Any) -> None:
        raise AssertionError("answers that are kept were made again")

    with monkeypatch.context() as context:
        context.setattr("augend.study.attacked.model_of", never)
        assert attacked(out, wanted) == found
    monkeypatch.setattr(attacked_room, "BATCH", 7)
    more = attacked(out, asked("fgsm", "4/255,0.5", "weight=4,draws=2,references=50", samples=1))
    kept = by(more["models"][other], "fgsm", BARE, "4/255")
    assert kept == by(found["models"][other], "fgsm", BARE, "4/255")
    done = command("evaluate", str(out), "--attack", "fgsm", "--eps", "4/255", "--pictures", "30")
    code, said, err = done.returncode, done.stdout, done.stderr
    assert code == 0 and f"points against {reference}" in said and "fgsm, bare model (1 step of eps)" in said, err
    page = (out / "attacks.html").read_text(encoding="utf-8")
    assert "Points against" in page and page.count("<svg") == 1 and (out / "plots" / "attacks-0.png").is_file()
    assert json.loads((out / "attacks.json").read_text())["pictures"] == 30


def test_the_command_prints_what_was_found(run: Path) -> None:
    words = [
        str(run),
        "--attack",
        "fgsm,bim,mim,pgd",
        "--eps",
        "8/255,0.1",
        "--sums",
        SUMS,
        "--samples",
        "1",
        "--steps",
        "2",
    ]
    done = command("evaluate", *words, "--restarts", "2", "--json")
    code, out, err = done.returncode, done.stdout, done.stderr
    found = json.loads(out)
    assert code == 0, err
    done = command("evaluate", *words, "--restarts", "2")
    code, said, err = done.returncode, done.stdout, done.stderr
    for one in found["models"]["run"]["conditions"]:
        assert f"{one['attack']}, {one['threat']}" in said
        assert f"eps {one['said']:<8} {100 * one['accuracy']['mean']:.1f} %" in said
    assert "(2 steps of eps/4, 2 starts, all but the first random, expectation over 1 fresh draws a step (the" in said
    page = (run / "attacks.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("adaptive", "transferred", "bare model", "Threat models"))
    assert page.count("<svg") == 4 and json.loads((run / "attacks.json").read_text()) == found
    assert "http" not in page.replace("http-equiv", "")


def test_sums_alone(run: Path) -> None:
    words = [str(run), "--sums", "weight=4,draws=8,average=probabilities", "--pictures", "40"]
    done = command("evaluate", *words)
    code, said, err = done.returncode, done.stdout, done.stderr
    assert code == 0 and "40 test pictures" in said and "clean, test-time sums" in said and "of their draws" in said, (
        err
    )
    assert "<svg" not in (run / "through-sums.html").read_text(encoding="utf-8")


def test_foolbox_by_name(run: Path) -> None:
    pytest.importorskip("foolbox")
    torch.manual_seed(4)
    state = torch.get_rng_state()
    found = attacked(run, asked("foolbox:LinfPGD,pgd", "8/255", SUMS, samples=1))["models"]["run"]
    assert torch.equal(torch.get_rng_state(), state)
    threats = [one["threat"] for one in found["conditions"] if one["attack"] == "foolbox:LinfPGD"]
    assert threats == [BARE, TRANSFERRED]
    theirs, ours = (by(found, attack, BARE, "8/255")["accuracy"]["mean"] for attack in ("foolbox:LinfPGD", "pgd"))
    assert abs(theirs - ours) < 0.15
    for name in ("L2PGD", "LinfPDG", "base"):
        with pytest.raises(AugendError, match=f"no L-infinity attack '{name}'"):
            asked(f"foolbox:{name}")
    with pytest.raises(AugendError, match="cannot run it on labels alone"):
        attacked(run, asked("foolbox:GenAttack", "8/255"))


def test_without_foolbox_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(AugendError, match="needs foolbox: pip install foolbox"):
        asked("foolbox:LinfPGD")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attack", "pdg"], "did you mean 'pgd'"),
        (["--attack", ","], "name some of fgsm, bim, mim, pgd"),
        (["--attack", "pgd", "--eps", "9/8"], "9/8 is not in [0, 1]"),
        (["--attack", "pgd", "--eps=-0.1"], "-0.1 is not in [0, 1]"),
        (["--attack", "pgd", "--eps", "nan"], "nan is not in [0, 1]"),
        (["--attack", "pgd", "--eps", "8/0"], "'8/0' is no number"),
        (["--attack", "pgd", "--eps", "few"], "'few' is no number"),
        (["--attack", "pgd", "--steps", "0"], "--steps 0"),
        (["--attack", "fgsm", "--steps", "5"], "--steps is about bim, mim, pgd; --attack names none of them"),
        (["--attack", "fgsm,bim", "--restarts", "5"], "--restarts is about pgd; --attack names none of them"),
        (["--attack", "pgd", "--samples", "4"], "--samples is about attacks through test-time sums"),
        (["--attack", "pgd", "--shifts", "crop"], "two evaluations"),
        (["--attack", "pgd", "--data", "no-such-folder"], "no-such-folder"),
        (["--eps", "8/255"], "--eps is about attacks"),
        (["--pictures", "20"], "--pictures is about --attack and --sums"),
        (["--sums", "m=2"], "there is no 'm'"),
        (["--sums", "k=two"], "k=two is no number"),
        (["--sums", "k=1"], "k is 1"),
        (["--known"], "--known is about attacks through test-time sums; name both"),
        (["--known", "--sums", "k=2"], "--known is about attacks through test-time sums; name both"),
        (["--attack", "pgd", "--sums", "k=2", "--known", "--samples", "3"], "leave --samples out"),
        (["--sums", "average=votes"], "average is 'votes'"),
        (["--fast"], "--fast is about gradients of our own attacks; name some"),
        (["--fast", "--attack", "foolbox:LinfPGD"], "--fast is about gradients of our own attacks; name some"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, run: Path) -> None:
    done = command("evaluate", str(run), *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_model_file_needs_data(run: Path, tmp_path: Path) -> None:
    alone = shutil.copy(run / "model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(AugendError, match="name data to judge a model file"):
        attacked(alone, asked("fgsm"))
    found = attacked(alone, asked("fgsm", "0.1", "draws=2", samples=1), data=SMALL)
    assert found["pictures"] == 60 and found["data"] == SMALL


def test_the_sweep_ends_where_nothing_is_left(run: Path) -> None:
    budgets = asked("pgd", "sweep").eps
    assert [said for said, _ in budgets] == SWEEP.split(",")
    found = attacked(run, asked("pgd", f"{budgets[-1][0]},1", "k=2,weight=1,draws=2", samples=4))["models"]["run"]
    for said in (budgets[-1][0], "1"):
        assert by(found, "pgd", BARE, said)["accuracy"]["mean"] == 0
        assert by(found, "pgd", ADAPTIVE, said)["accuracy"]["mean"] == 0
    assert found["notes"] == []


def test_what_withstands_the_adaptive_attack_better_is_said() -> None:
    def one(threat: str, low: float, high: float, said: str = "8/255") -> dict[str, Any]:
        level = {"mean": (low + high) / 2, "low": low, "high": high}
        return {"attack": "pgd", "said": said, "threat": threat, "accuracy": level}

    assert above([one(BARE, 0.1, 0.2), one(ADAPTIVE, 0.15, 0.3), one(TRANSFERRED, 0.8, 0.9)]) == []
    (line,) = above([one(BARE, 0.1, 0.2), one(ADAPTIVE, 0.25, 0.35), one(BARE, 0, 0, "1"), one(ADAPTIVE, 0, 0, "1")])
    assert line.startswith("pgd 8/255: 30.0 % withstand the adaptive attack, 15.0 % that on the bare model")
    paired = {**one(ADAPTIVE, 0.25, 0.35), "over_bare": {"mean": 0.15, "low": -0.01, "high": 0.3}}
    assert above([one(BARE, 0.1, 0.2), paired]) == []  # what is paired counts
    paired = {**one(ADAPTIVE, 0.15, 0.25), "over_bare": {"mean": 0.05, "low": 0.01, "high": 0.1}}
    assert len(above([one(BARE, 0.1, 0.2), paired])) == 1
    unknown = one(BARE, 0.1, 0.2)
    unknown["accuracy"]["high"] = None
    assert above([unknown, one(ADAPTIVE, 0.25, 0.35)]) == []


def test_pages_of_other_pictures_stand_beside(run: Path, tmp_path: Path) -> None:
    command("evaluate", str(run), "--attack", "fgsm", "--eps", "1/255", "--pictures", "20")
    before = (run / "attacks.html").read_text()
    command("evaluate", str(run), "--sums", "k=2,draws=2", "--pictures", "20")
    test = splits_of(Job(data=SMALL, recipe="plain"))["main"].test
    for number, picture in enumerate(test.pixels[:]):
        folder = tmp_path / "others" / str(int(test.labels[number]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - picture[0].numpy()).save(folder / f"{number}.png")
    command("evaluate", str(run), "--attack", "fgsm", "--eps", "1/255", "--data", str(tmp_path / "others"))
    assert (run / "attacks.html").read_text() == before and (run / "through-sums.html").is_file()
    assert len(list(run.glob("attacks-*others.json"))) == 1
    refused = command("evaluate", str(run), "--attack", "fgsm", "--data", "tilted-digits")
    assert refused.returncode == 2 and "was trained on its pictures" in refused.stderr


def test_a_gradient_that_is_no_number_is_blind() -> None:
    class Spread(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            return (flat / flat.var(1, keepdim=True).sqrt().clamp(min=1e-3))[:, :3]

    x = torch.rand(3, 1, 4, 4)
    x[1] = 0.5
    assert attacked_room.blind(Spread().eval(), x, torch.tensor([0, 1, 2])).tolist() == [0, 1, 0]


def test_what_a_run_answered_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "run", "plain", budget="20step", model="mlp")
    first = attacked(tmp_path / "run", asked("fgsm", "8/255"))["models"]["run"]
    both = attacked(tmp_path / "run", asked("bim,fgsm", "8/255"))["models"]["run"]
    assert by(both, "fgsm", BARE, "8/255") == by(first, "fgsm", BARE, "8/255")
    monkeypatch.setattr("augend.study.attacked.look", None)
    assert attacked(tmp_path / "run", asked("bim,fgsm", "8/255"))["models"]["run"] == both
    with pytest.raises(TypeError):
        attacked(tmp_path / "run", asked("bim,fgsm", "9/255"))


def test_a_model_without_gradients_is_said_to_be_blind(tmp_path: Path) -> None:
    """The same decisions with logits a million times as large: float32 has no gradient left, and no attack succeeds."""
    out = tmp_path / "run"
    train(out, "plain", budget="60step", model="mlp")
    before = attacked(out, asked("pgd", "64/255"))["models"]["run"]
    assert before["blind"] == 0
    file = out / "model.safetensors"
    with safe_open(file, "pt") as opened:
        about, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    last = [name for name in tensors if name.endswith(".weight")][-1]
    for name in (last, last.replace("weight", "bias")):
        tensors[name] = tensors[name] * 1e6
    save_file(tensors, file, about)
    after = attacked(out, asked("pgd", "64/255"))["models"]["run"]
    clean = [by(one, "clean", BARE, "0")["accuracy"]["mean"] for one in (before, after)]
    moved = [by(one, "pgd", BARE, "64/255")["accuracy"]["mean"] for one in (before, after)]
    assert clean[0] == clean[1] and moved[1] > moved[0] + 0.2 and after["blind"] > 0.5
    done = command("evaluate", str(out), "--attack", "pgd", "--eps", "64/255")
    assert done.returncode == 0 and "% of what is right when clean has no gradient" in done.stdout
    assert "has no gradient</b>" in (out / "attacks.html").read_text()
