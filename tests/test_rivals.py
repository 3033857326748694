"""The rivals: sizes, the head first, what each recipe changes, and that they learn on real pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from augend.contract import AugendError
from augend.cost import count_flops
from augend.data import load
from augend.data.pictures import Split
from augend.randomness import Draws
from augend.recipes import check
from augend.recipes.plan import Plan
from augend.recipes.schedules import rate
from augend.runner import keeper
from augend.runner.assembly import build_networks, stage
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job, start
from runs import SMALL, splits_of, train

CIFAR = "cifar10:train=2000,valid=200,test=500"
SLOW = [
    pytest.param(recipe, marks=pytest.mark.slow)
    for recipe in ("mixup", "cutmix", "mixup-then-tune", "small-then-strong", "mixup-features")
]
needs_data = pytest.mark.skipif(not os.environ.get("AUGEND_DATA"), reason="AUGEND_DATA is not set")


def planned(recipe: Any, model: str = "small", **job: Any) -> tuple[Plan, dict[str, Split]]:
    asked = Job(**{"data": SMALL, "recipe": recipe, "model": model, "budget": "100step", **job})
    splits = splits_of(asked)
    return resolve_job(asked, splits), splits


def pictures(side: int, channels: int = 3) -> Split:
    """Coloured squares, for what only looks at shapes."""
    from augend.data import Pictures

    def some(count: int) -> Pictures:
        pixels = torch.randint(
            0, 256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
        )
        return Pictures(pixels, torch.arange(count) % 2, tuple(f"{count}/{i}" for i in range(count)))

    return Split("squares", ("a", "b"), some(64), some(4), some(6), frozenset({"hflip", "crop"}))


# ------------------------------------------------------------------ sizes


def test_small_then_strong_is_progressive_resizing(tmp_path: Path) -> None:
    plan, splits = planned("small-then-strong", settings="quick")
    small, full = plan.phases
    assert (small.size, full.size, small.steps, full.steps, small.segment, full.segment) == (17, None, 50, 50, 0, 0)
    networks = build_networks(plan, splits, seed=0)
    flops = []
    for spec, side in ((small, 17), (full, 28)):
        scene = stage(spec, networks, splits, seed=0)
        draws = Draws(0, spec.name, 0, spec.rows)
        batch = scene.batch(scene.order.next(0, spec.rows, 1, 0.0), draws, 0.0)
        assert batch.views["x"].shape == (64, 1, side, side)
        expected = nn.functional.interpolate(
            splits["main"].train.pixels[:8].float(), size=(side, side), mode="bilinear", antialias=True
        )
        assert torch.equal(scene.pictures.pixels[:8], expected.round().clamp(0, 255).byte())
        flops.append(count_flops(scene.phase, batch).total)
    assert 0.3 < flops[0] / flops[1] < 0.5  # 0.36, and what pooling rounds up
    train(tmp_path / "run", "small-then-strong", budget="20step", model="small", settings="quick")
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert [ledger["phases"][name]["flops"] for name in ("small", "full")] == [10 * flops[0], 10 * flops[1]]


def test_validation_is_at_the_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    judge = keeper.Keeper._judge
    monkeypatch.setattr(
        keeper.Keeper, "_judge", lambda self, shown: (seen.append((self.spec.name, shown.shape)), judge(self, shown))[1]
    )
    train(tmp_path / "run", "small-then-strong", budget="12step", model="small", settings="quick")
    assert {name for name, _ in seen} == {"small", "full"} and {shape for _, shape in seen} == {(1, 28, 28)}


FLEXIBLE = ["small", "preresnet", "resnet18-cifar", "resnet18", "mobilenetv3_small_050", "torchvision:resnet18"]
FIXED = ["figure1", "linear", "mlp", "vit_tiny_patch16_224", "mixer_s32_224", "torchvision:vit_b_32"]


def resized(model: str) -> dict[str, Split]:
    split = pictures(32)
    recipe = {"phases": [{"name": "low", "size": 19}, {"name": "full"}]}
    job = Job(data="squares", recipe=recipe, model=model, budget="4step", settings="quick")  # type: ignore[arg-type]
    build_networks(resolve_job(job, {"main": split}), {"main": split}, seed=0)
    return {"main": split}


@pytest.mark.parametrize("model", FLEXIBLE)
def test_networks_that_pool_take_any_size(model: str) -> None:
    resized(model)


@pytest.mark.parametrize("model", FIXED)
def test_others_are_refused_before_training(model: str) -> None:
    with pytest.raises(AugendError) as caught:
        resized(model)
    line = str(caught.value)
    assert "\n" not in line and f"phase 'low', size: network 'net' ({model}) cannot take pictures of 19 x 19" in line


def test_a_run_with_such_a_network_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        AugendError, match=r"network 'net' \(figure1\) cannot take pictures of 17 x 17 instead of 28 x 28"
    ):
        train(tmp_path / "run", "small-then-strong", model="figure1")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# ------------------------------------------------------------------ what they say


def test_mixup_sees_the_pictures_of_augmented() -> None:
    shown = []
    for recipe in ("augmented", "mixup", "cutmix"):
        plan, splits = planned(recipe)
        (spec,) = plan.phases
        scene = stage(spec, build_networks(plan, splits, seed=0), splits, seed=0)
        batch = scene.batch(scene.order.next(0, spec.rows, 1, 0.0), Draws(0, spec.name, 0, spec.rows), 0.0)
        width = sum(scene.chains["x"]._widths)
        shown.append((batch.ids.tolist(), batch.params["x"][:, :width].tolist()))
    assert shown[0] == shown[1] == shown[2]


def test_controls_change_one_thing() -> None:
    mixup, features = check("mixup").phases[0], check("mixup-features").phases[0]
    assert str(features.views["x"][-1].at) == "net.features" and mixup.views["x"][-1].at is None
    assert features.views["x"][-1].component == mixup.views["x"][-1].component
    tuned, unmixed = check("mixup-then-tune").phases, check("mixup-then-tune-unmixed").phases
    assert unmixed[0].views["x"] == tuned[0].views["x"][:-1] and unmixed[1] == tuned[1]
    small, full = check("small-then-strong").phases, check("full-then-strong").phases
    assert (small[0].size, full[0].size, small[1]) == (19, 32, full[1])
    assert [phase.name for phase in check("finetune-at-once").phases] == ["all"]


def test_finetune_trains_the_head_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunk keeps its weights and statistics in `head`; `all` moves them at a tenth of the rate, from the beginning."""
    plan, _ = planned("finetune")
    head, everything = plan.phases
    assert (head.steps, everything.steps, head.segment, everything.segment) == (20, 80, 0, 1)
    assert everything.optimizer.options["lr"] == pytest.approx(0.1 * head.optimizer.options["lr"])
    assert {**everything.optimizer.options, "lr": 0} == {**head.optimizer.options, "lr": 0}
    states: list[dict[str, torch.Tensor]] = []
    rates: list[tuple[str, float]] = []
    begin, after = keeper.Keeper.begin, keeper.Keeper.after

    def beginning(self: keeper.Keeper, number: int) -> Any:
        states.append({name: tensor.clone() for name, tensor in self.networks.state_dict().items()})
        return begin(self, number)

    def stepped(self: keeper.Keeper, terms: Any) -> bool:
        assert self.optimizer is not None
        rates.append((self.spec.name, self.optimizer.param_groups[0]["lr"]))
        if self.spec.name == "head":
            assert len(self.optimizer.state) == 2  # the classifier's weight and bias
            assert self.scene is not None and "net" in self.scene.banks  # and features are computed once
        return after(self, terms)

    monkeypatch.setattr(keeper.Keeper, "begin", beginning)
    monkeypatch.setattr(keeper.Keeper, "after", stepped)
    train(tmp_path / "run", "finetune", budget="100step", model="small")
    first, second = states
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"net.model.classify.fc.weight", "net.model.classify.fc.bias"}
    for name, base, steps in (("head", 3e-3, 20), ("all", 3e-4, 80)):
        got = [value for phase, value in rates if phase == name]
        assert got == pytest.approx([base * rate(head.schedule, step, steps) for step in range(steps)])
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    held = [float(line["valid_loss"]) for line in lines if line["kind"] == "valid"]
    assert held[-1] < held[0]


# ------------------------------------------------------------------ real pictures


def accuracy(folder: Path, recipe: Any, budget: int, data: str = CIFAR, **job: Any) -> tuple[float, float]:
    """Test accuracy (a guess has 0.1), and FLOPs."""
    asked = Job(
        **{"data": data, "recipe": recipe, "model": "small", "budget": f"{budget}step", "settings": "quick", **job}
    )
    result = start(asked, RunFolder(folder), Hardware(threads=1), splits={"main": load(data)})
    return result["test"], result["ledger"]["flops"]


@needs_data
@pytest.mark.parametrize("recipe", SLOW)
def test_they_learn(recipe: str, tmp_path: Path) -> None:
    """200 steps on 2,000 pictures of CIFAR-10: more than 0.27 of the test pictures, where a guess has 0.1."""
    right, _ = accuracy(tmp_path / "run", recipe, 200)
    assert right > 0.27


@needs_data
@pytest.mark.slow
def test_finetune_keeps_what_was_learned(tmp_path: Path) -> None:
    """From the weights of a longer run on other pictures, few steps on few pictures do more than from scratch."""
    first, _ = accuracy(tmp_path / "before", "plain", 300, "cifar10:train=4000,valid=100,test=500")
    few = "cifar10:train=300,valid=100,test=500"
    weights = {"networks": {"net": {"model": "small", "weights": str(tmp_path / "before" / "model.safetensors")}}}
    tuned, _ = accuracy(tmp_path / "tuned", {"like": "finetune", **weights}, 60, few, settings="good-practice")
    scratch, _ = accuracy(tmp_path / "scratch", "finetune", 60, few, settings="good-practice")
    assert first > 0.35 and tuned > 0.33 and tuned > scratch + 0.08, (first, tuned, scratch)
