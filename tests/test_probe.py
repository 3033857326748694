"""Phases that are fitted: logistic regression against scikit-learn, what it costs and leaves, and learned features."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import augend
from augend.address import Slice
from augend.contract import AugendError, Component
from augend.data import Split, load
from augend.models import build
from augend.recipes import check
from augend.runner.assembly import stage
from augend.runner.banks import fill_bank
from augend.runner.fitting import Embedder, check_fits
from augend.runner.folder import RunFolder
from augend.runner.job import Job, resolve_job, start
from augend.stages.fit import PENALTIES, Logistic, _chosen
from augend.stages.networks import Networks
from augend.study.notes import _fitted
from runs import (
    ONE_THREAD,
    SMALL,
    Killed,
    final_state,
    finish,
    killed_at,
    killed_in,
    ledger,
    lines,
    same_run,
    splits_of,
    train,
)

ROOT = os.environ.get("AUGEND_DATA")
needs_pictures = pytest.mark.skipif(
    ROOT is None or not (Path(ROOT) / "cifar-100-binary").is_dir(), reason="AUGEND_DATA has no CIFAR-10 and CIFAR-100"
)


def blobs(rows: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping classes with features of different sizes, one of them constant."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=draw)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    rows_ = centres[labels] + 4.0 * torch.randn(rows, width, generator=draw)
    rows_ = rows_ * torch.logspace(-2, 1, width) + torch.linspace(-3, 3, width)
    rows_[:, 1] = 0.7
    return rows_, labels


def oracle(features: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """scikit-learn's weights for features as they came."""
    x = features.double()
    mean, deviation = x.mean(0), x.std(0, unbiased=False)
    deviation[deviation < 1e-6] = 1.0
    found = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000).fit(
        ((x - mean) / deviation).numpy(), labels.numpy()
    )
    weight = torch.from_numpy(found.coef_) / deviation
    return weight, torch.from_numpy(found.intercept_) - weight @ mean


# ------------------------------------------------------------------ the solution


@pytest.mark.parametrize(("rows", "width"), [(300, 12), (40, 90)])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_it_is_scikit_learns(rows: int, width: int, penalty: float) -> None:
    features, labels = blobs(rows, width, 5)
    probe = Logistic(penalty).fit(features, labels)
    weight, bias = oracle(features, labels, penalty)
    size = float(weight.abs().max())
    assert probe.converged_ and probe.penalty_ == penalty
    assert torch.allclose(probe.coef_, weight, rtol=1e-3, atol=1e-3 * size)
    assert torch.allclose(probe.intercept_, bias, rtol=1e-3, atol=1e-3 * float(bias.abs().max()))
    other, _ = blobs(200, width, 5, seed=1)
    assert torch.equal(probe.logits(other).argmax(1), (other.double() @ weight.T + bias).argmax(1))
    assert probe.coef_[:, 1].abs().max() == 0  # a constant feature says nothing


def test_two_classes_are_two_opposite_rows() -> None:
    """scikit-learn has one weight for two classes, whose penalty is twice that of two opposite ones."""
    features, labels = blobs(200, 6, 2)
    probe = Logistic(0.1).fit(features, labels)
    weight, bias = oracle(features, labels, 0.05)
    assert torch.allclose(probe.coef_[1] - probe.coef_[0], weight[0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(probe.intercept_[1] - probe.intercept_[0], bias[0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(probe.coef_.sum(0), torch.zeros(6, dtype=torch.float64), atol=1e-9)


def test_blocks_change_nothing_and_input_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(300, 12, 5)
    before = features.clone()
    whole = Logistic(0.01).fit(features.double(), labels)
    monkeypatch.setattr("augend.stages.fit.BLOCK", 350)  # 71 rows at once
    parts = Logistic(0.01).fit(features.double(), labels)
    assert torch.allclose(whole.coef_, parts.coef_, rtol=1e-8)
    doubled = features.double()
    Logistic(0.01).fit(doubled, labels)
    assert torch.equal(features, before) and torch.equal(doubled, before.double())


def test_more_copies_of_the_rows_change_nothing() -> None:
    features, labels = blobs(100, 12, 5)
    once = Logistic(0.01).fit(features, labels)
    thrice = Logistic(0.01).fit(features.repeat(3, 1), labels.repeat(3))
    assert torch.allclose(once.coef_, thrice.coef_, rtol=1e-6, atol=1e-9)


def test_a_class_without_rows_is_never_answered() -> None:
    features, labels = blobs(100, 12, 3)
    probe = Logistic(0.1).fit(features, labels, classes=4)
    assert probe.coef_.shape == (4, 12) and not bool((probe.logits(features).argmax(1) == 3).any())
    assert bool(torch.isfinite(probe.intercept_).all())


# ------------------------------------------------------------------ the penalty


def test_validation_chooses_the_penalty() -> None:
    """The path is that of separate solutions, and the choice is within noise of the best of them."""
    features, labels = blobs(150, 40, 5)
    valid = blobs(300, 40, 5, seed=1)
    heard: list[Any] = []
    probe = Logistic().fit(features, labels, valid=valid, after=heard.append)
    assert tuple(heard) == probe.path_ and [one.penalty for one in heard] == list(PENALTIES[: len(heard)])
    scores, losses = {}, {}
    for penalty in PENALTIES[: len(heard)]:
        logits = Logistic(penalty).fit(features, labels).logits(valid[0])
        scores[penalty] = float((logits.argmax(1) == valid[1]).double().mean())
        losses[penalty] = float(nn.functional.cross_entropy(logits, valid[1]))
    for one in heard:
        assert one.loss == pytest.approx(losses[one.penalty], rel=1e-2)
        assert one.accuracy == pytest.approx(scores[one.penalty], abs=0.01)
    assert max(scores.values()) - scores[probe.penalty_] < 0.02
    again = Logistic(probe.penalty_).fit(features, labels)
    assert torch.allclose(again.coef_, probe.coef_, rtol=1e-5, atol=1e-8)
    assert len(heard) < len(PENALTIES)  # hopeless penalties are not tried


def test_accuracy_decides_first_and_cross_entropy_where_it_cannot() -> None:
    right = torch.zeros(3, 100, dtype=torch.bool)
    right[0, :50], right[1, :70], right[2, :71] = True, True, True
    assert _chosen(right, [0.1, 0.9, 1.0]) == 2  # one picture more, none lost: more than half a standard error
    right[2, :3] = False
    right[2, 71:75] = True  # now 72 against 70, of nine that differ
    assert _chosen(right, [0.1, 0.9, 1.0]) == 2
    right[2, 74] = right[2, 73] = False  # 70 against 70
    assert _chosen(right, [0.1, 0.9, 1.0]) == 1
    assert _chosen(right, [0.1, 1.0, 0.9]) == 2


def test_without_validation_pictures_it_says_so() -> None:
    features, labels = blobs(20, 4, 2)
    with pytest.raises(AugendError, match="no validation pictures"):
        Logistic().fit(features, labels, valid=(features[:0], labels[:0]))


@pytest.mark.parametrize("penalty", [0, -1.0, math.inf, "by-test", True])
def test_penalties_that_are_none(penalty: Any) -> None:
    with pytest.raises(AugendError, match=r"penalty.*allowed: by-validation, or a number above 0|found True"):
        check({"like": "probe", "set": {"probe.fit": {"logistic": {"penalty": penalty}}}})


# ------------------------------------------------------------------ the phase


def _scene(job: Job, folder: Path) -> tuple[Any, Networks, dict[str, Split]]:
    """The first phase of a finished run, over the networks that it left."""
    splits = splits_of(job)
    plan = resolve_job(job, splits)
    model = augend.load(folder)
    networks = model.networks
    return stage(plan.phases[0], networks, splits, seed=0), networks, splits


def _embeddings(scene: Any, networks: Networks, view: str = "x") -> Tensor:
    embed = Embedder.entering(networks, scene.spec.train[0])
    networks.eval()
    return fill_bank(scene, view, lambda pixels: {"": embed(pixels)}, [embed.address], size=scene.spec.rows, seed=0)[""]


@pytest.mark.parametrize(
    ("overrides", "variants"),
    [
        (("probe.fit.logistic.penalty=0.01",), 1),
        (("probe.fit.logistic.penalty=0.01", "probe.augment=tilt-5"), 5),
        (("probe.fit.logistic.penalty=0.01", "probe.augment={rotate: {degrees: 20}}", "probe.cache={views: 3}"), 3),
    ],
)
def test_the_layer_is_that_of_scikit_learn(overrides: tuple[str, ...], variants: int, tmp_path: Path) -> None:
    train(tmp_path / "run", "probe", overrides=overrides, settings="quick")
    scene, networks, splits = _scene(
        Job(data=SMALL, recipe="probe", overrides=overrides, settings="quick"), tmp_path / "run"
    )
    features = _embeddings(scene, networks)
    labels = splits["main"].train.labels.repeat_interleave(variants)
    assert features.shape == (200 * variants, 256)
    weight, bias = oracle(features, labels, 0.01)
    layer = networks.stages("net").modules_of("classify")[0].fc
    assert torch.allclose(layer.weight.double(), weight, rtol=1e-3, atol=1e-3 * float(weight.abs().max()))
    test = splits["main"].test
    shown = np.load(tmp_path / "run" / "predictions.npz")
    clean = Embedder.entering(networks, Slice("net", "classify"))(test.pixels.float() / 255).double().detach()
    expected = (clean @ weight.T + bias).softmax(1)
    found = torch.from_numpy(shown["probabilities"][shown["split"] == "test"]).double()
    assert torch.allclose(found, expected, atol=1e-3)
    if variants == 5:  # row i is picture i // 5 under rotation i % 5, upright first
        upright = Embedder.entering(networks, Slice("net", "classify"))(
            splits["main"].train.pixels.float() / 255
        ).detach()
        assert torch.allclose(features[::5], upright, atol=1e-5) and not torch.allclose(
            features[1::5], upright, atol=1e-2
        )


def test_nothing_else_moves(tmp_path: Path) -> None:
    train(tmp_path / "run", "probe", settings="good-practice")
    job = Job(data=SMALL, recipe="probe")
    splits = splits_of(job)
    from augend.runner.assembly import build_networks

    before = build_networks(resolve_job(job, splits), splits, 0).state_dict()
    after = {k.removeprefix("net/"): v for k, v in final_state(tmp_path / "run").items()}
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"net.model.classify.fc.weight", "net.model.classify.fc.bias"}


def test_the_ledger_and_the_line(tmp_path: Path) -> None:
    """A pass of every picture in every view and of the validation pictures, once; then what the solution takes."""
    train(tmp_path / "run", "probe-views", settings="quick", overrides=("batch=40",))
    cost = ledger(tmp_path / "run")["phases"]["probe"]
    assert (cost["rows"], cost["pictures"], cost["backward"]) == (1600, 1600, 0)
    assert cost["forward"] == 1600 // 40 + 40 // 40
    found = lines(tmp_path / "run")
    assert [line["kind"] for line in found] == ["fit", "valid"]
    line = found[0]
    sides = [28, 14, 7]  # three convolutions, each on maps half as wide
    convolutions = sum(2 * 9 * a * b * side**2 for a, b, side in zip((1, 4, 8), (4, 8, 16), sides, strict=True))
    embedding = convolutions * 1640
    axes = 2 * 1600 * 256 * 512 + 2 * 40 * 256 * 256
    solving = 2 * line["products"] * 1600 * 256 * 10 + len(line["tried"]) * 2 * 40 * 256 * 10
    assert cost["flops"] == embedding + axes + solving
    chosen = {penalty: accuracy for penalty, accuracy, _ in line["tried"]}[line["penalty"]]
    assert found[1]["accuracy"] == pytest.approx(chosen, abs=0.026)
    seconds = json.loads((tmp_path / "run" / "ledger.json").read_text())["phases"]["probe"]["seconds"]
    assert seconds["cache"] > 0 and seconds["step"] > 0 and seconds["augment"] == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["phases"][0]["steps"] == 0 and plan["phases"][0]["fit"]["word"] == "logistic"


def test_settings_do_not_smooth_its_labels(tmp_path: Path) -> None:
    plan = check("probe", "good-practice")
    assert plan.phases[0].terms[0].component == Component("cross-entropy")


def test_a_head_on_another_network(tmp_path: Path) -> None:
    recipe = {
        "networks": {
            "source": {"model": "figure1"},
            "net": {"model": "linear", "input": "source[:conv3]"},
        },
        "phases": [{"name": "probe", "fit": {"logistic": {"penalty": 0.01}}, "train": "net"}],
    }
    path = tmp_path / "wired.yaml"
    path.write_text(json.dumps(recipe))
    result = train(tmp_path / "run", str(path), settings="quick")
    scene, networks, splits = _scene(Job(data=SMALL, recipe=str(path), settings="quick"), tmp_path / "run")
    features = _embeddings(scene, networks)
    weight, _ = oracle(features, splits["main"].train.labels, 0.01)
    layer = networks.stages("net").modules_of("classify")[0]
    assert features.shape == (200, 8 * 7 * 7)
    assert torch.allclose(layer.weight.double(), weight, rtol=1e-3, atol=1e-3 * float(weight.abs().max()))
    assert result["test"] > 0.8


# ------------------------------------------------------------------ among other phases

BETWEEN = {
    "phases": [
        {"name": "first", "until": "12step"},
        {"name": "probe", "fit": "logistic", "train": "net[classify:]"},
        {"name": "onward", "until": "8step"},
        {
            "name": "last",
            "until": "6step",
            "optimizer": "fresh",
            "keep": {"best": "valid/accuracy"},
            "train": "net[conv3:]",
        },
        {"name": "again", "fit": {"logistic": {"penalty": 0.1}}, "train": "net[classify:]"},
    ]
}
KILLS = [
    ("step", 7),
    ("step", 12),
    ("embedding", 2),
    ("fitting", 3),
    ("fitted", 1),
    ("step", 15),
    ("step", 23),
    ("fitted", 2),
]


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run in which closed forms stand between and after phases with an optimizer and averaged weights."""
    folder = tmp_path_factory.mktemp("between")
    recipe = folder / "between.yaml"
    recipe.write_text(json.dumps(BETWEEN))
    train(folder / "whole", str(recipe), budget=None, settings="good-practice")
    return recipe, folder / "whole"


@pytest.mark.parametrize(("place", "count"), KILLS)
def test_resuming_around_closed_forms(
    place: str, count: int, between: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, whole = between
    undo = killed_at(count, monkeypatch) if place == "step" else killed_in(place, count, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "run", str(recipe), budget=None, settings="good-practice")
    undo()
    finish(tmp_path / "run")
    same_run(whole, tmp_path / "run")


def test_the_optimizer_goes_on_and_averages_begin_anew(between: tuple[Path, Path]) -> None:
    _, whole = between
    plan = json.loads((whole / "plan.json").read_text())
    assert [phase["segment"] for phase in plan["phases"]] == [0, 0, 0, 1, 1]
    assert [line["phase"] for line in lines(whole) if line["kind"] == "fit"] == ["probe", "again"]
    state = final_state(whole)
    assert not [name for name in state if name.startswith("avg/")]
    layer = state["net/net.model.classify.fc.weight"]
    model = augend.load(whole)  # what is exported is what was fitted, not an average of what was before
    assert torch.equal(model.networks.state_dict()["net.model.classify.fc.weight"], layer)


def test_averages_of_a_phase_after_a_fit_begin_with_what_was_fitted(tmp_path: Path) -> None:
    """One step at a rate of nothing: the averaged weights are the fitted ones."""
    recipe = {"like": "probe", "insert": {"end": [{"name": "onward", "until": "3step", "train": "net[classify:]"}]}}
    path = tmp_path / "onward.yaml"
    path.write_text(json.dumps(recipe))
    train(tmp_path / "onward", str(path), budget=None, overrides=("optimizer.lr=1e-12", "optimizer.weight_decay=0"))
    train(tmp_path / "probe", "probe")
    one, other = (augend.load(tmp_path / name).networks.state_dict() for name in ("onward", "probe"))
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=1e-6), name


# ------------------------------------------------------------------ refused in one line

MISTAKES = [
    ({"probe.train": "net"}, 'write train: "net[classify:]"'),
    ({"probe.train": ["net[classify:]", "net[conv3:]"]}, "logistic fits one slice"),
    (
        {"probe.augment": "pixels"},
        "infinitely many outcomes, and a closed form sees every one once; write cache: {views: 8}",
    ),
    ({"probe.cache": False}, "cache: false asks for pictures in every step"),
    ({"probe.augment": [{"mixup": {"alpha": 1.0}}]}, "needs one picture a row"),
    ({"probe.augment": [{"noise": {"at": "net.features"}}]}, "noise acts at net.features"),
    ({"probe.objective": {"cross-entropy": {"smoothing": 0.1}}}, "minimises cross-entropy of net alone, as it is"),
    ({"probe.fit": "logistics"}, "did you mean 'logistic'"),
    ({"probe.fit": {"logistic": {"penalti": 1}}}, "did you mean 'penalty'"),
]


@pytest.mark.parametrize(("changed", "said"), MISTAKES)
def test_mistakes_are_one_line(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"like": "probe", "set": changed}))
    with pytest.raises(AugendError) as told:
        train(tmp_path / "run", str(path))
    assert said in str(told.value) and "\n" not in str(told.value)


class Deep(nn.Sequential):
    """A classifier that is more than a layer."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 10)))


@pytest.mark.parametrize(
    ("model", "found"),
    [(Deep(), "ReLU, Linear"), (nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)), "Linear")],
)
def test_a_classifier_that_is_no_linear_layer(model: nn.Module, found: str) -> None:
    from augend.models.stages import as_stages

    networks = Networks({"net": as_stages(model)}, {"net": None})
    with pytest.raises(AugendError, match=f"one linear layer with a bias .* is {found}; train it by steps"):
        check_fits(check("probe"), networks, {"main": 9})


# ------------------------------------------------------------------ real features, weights from a file


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that has learned a little of CIFAR-100, as a file."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    job = Job(
        data="cifar100:train=3000,valid=100,test=100",
        recipe="plain",
        model="small",
        settings="quick",
        budget="200step",
        overrides=("optimizer.lr=3e-3", "batch=32"),
    )
    start(job, RunFolder(folder), ONE_THREAD)
    return folder / "model.safetensors"


DATA = "cifar10:train=500,valid=200,test=1000"


@needs_pictures
def test_a_probe_on_learned_features(pretrained: Path, tmp_path: Path) -> None:
    """Clearly better than chance and than random features, and what scikit-learn makes of the same embeddings."""
    found = {}
    for name, params in {"learned": {"weights": str(pretrained)}, "random": {}}.items():
        job = Job(data=DATA, recipe="probe", model="small", params=params)
        found[name] = start(job, RunFolder(tmp_path / name), ONE_THREAD)
    assert found["learned"]["test"] > 0.28 and found["learned"]["test"] > found["random"]["test"] + 0.02
    networks = augend.load(tmp_path / "learned").networks
    split = load(DATA)
    embed = Embedder.entering(networks, Slice("net", "classify"))
    with torch.no_grad():
        parts = {n: embed(getattr(split, n).pixels.float() / 255).double() for n in ("train", "valid", "test")}
    mean, deviation = parts["train"].mean(0), parts["train"].std(0, unbiased=False)
    rows = {n: ((x - mean) / deviation).numpy() for n, x in parts.items()}
    scores = {}
    for c in np.logspace(-4, 2, 13):
        one = LogisticRegression(C=c, max_iter=3000).fit(rows["train"], split.train.labels.numpy())
        scores[c] = (one.score(rows["valid"], split.valid.labels), one.score(rows["test"], split.test.labels))
    best = max(scores.values())
    assert abs(found["learned"]["test"] - best[1]) < 0.03


@needs_pictures
def test_the_command_takes_a_file_of_weights(pretrained: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "augend", "train", DATA, "--recipe", "probe", "--model", "small", *arguments]
        return subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, timeout=120)

    done = run("--set", f"weights={pretrained}", "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"] > 0.28 and json.loads(done.stdout)["steps"] == 0
    assert "phase probe: logistic" in done.stderr and "penalty" in done.stderr
    trunk = augend.load(pretrained).networks.state_dict()
    mine = augend.load(tmp_path / "run").networks.state_dict()
    shared = [name for name in trunk if "classify" not in name]
    assert all(torch.equal(trunk[name], mine[name]) for name in shared)
    save_file({"w": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    for file, said in {"nothing.safetensors": "there is no such file", "other.safetensors": "do not fit"}.items():
        with pytest.raises(AugendError, match=said):
            train(tmp_path / file.partition(".")[0], "probe", params={"weights": str(tmp_path / file)})


@needs_pictures
def test_a_timm_network_is_probed(tmp_path: Path) -> None:
    """Its classifier is a linear layer behind pooling, and a file of its weights has timm's names."""
    network = build(Component("mobilenetv3_small_050"), shape=(3, 32, 32), classes=7, generator_seed=5)
    save_file({k: v.contiguous() for k, v in network.model.state_dict().items()}, str(tmp_path / "w.safetensors"))
    job = Job(
        data="cifar10:train=100,valid=50,test=50",
        recipe="probe",
        model="mobilenetv3_small_050",
        params={"weights": str(tmp_path / "w.safetensors")},
    )
    start(job, RunFolder(tmp_path / "run"), ONE_THREAD)
    line = lines(tmp_path / "run")[0]
    assert line["kind"] == "fit" and line["features"] == 1024 and line["rows"] == 100
    mine = augend.load(tmp_path / "run").networks.state_dict()
    theirs = network.model.state_dict()
    assert all(torch.equal(mine[f"net.model.{k}"], v) for k, v in theirs.items() if not k.startswith("classifier"))


def test_a_comparison_says_whose_penalty_validation_chose() -> None:
    """They are advised all the same, unlike those whose weights it picked: one number of a few, and cheap rivals."""
    probe, plain = (Job(data=SMALL, recipe=name, settings="quick", budget="20step") for name in ("probe", "plain"))
    given = replace(probe, overrides=("probe.fit={logistic: {penalty: 0.01}}",))
    plans = {name: resolve_job(job, splits_of(job)) for name, job in (("p", probe), ("plain", plain), ("g", given))}
    (note,) = _fitted({name: plans[name] for name in ("p", "plain")})
    assert note.startswith("probe: the penalty of the closed form is chosen on validation pictures")
    assert not _fitted({"p": plans["p"]})  # nobody else has less of it
    assert not _fitted({name: plans[name] for name in ("g", "plain")})
