"""Averaged weights: what is averaged, batch norm, phases that move other weights, checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from augend.contract import Component
from augend.data import load
from augend.evaluate.predict import logits
from augend.models import build
from augend.runner import keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, start
from augend.stages.average import Average
from augend.stages.networks import Networks
from runs import Killed, final_state, finish, killed_at, same_run, train

LONG = 100  # updates after which the decay of 0.5 has long been in force


def networks() -> Networks:
    return Networks({"net": build(Component("small"), shape=(1, 16, 16), classes=3, generator_seed=0)}, {"net": None})


def test_it_is_torchs_moving_average() -> None:
    net = networks()
    net.only("net")
    average = Average(net, 0.9)
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    with torch.no_grad():  # torch begins from the first update; so do ours from the state at hand
        theirs.update_parameters(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    average.updates = LONG  # past the short memory
    for step in range(5):
        x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(net["net"](x)[""], torch.arange(8) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        theirs.update_parameters(net)
    with average.applied():
        for name, expected in theirs.module.state_dict().items():
            if expected.is_floating_point():
                torch.testing.assert_close(net.state_dict()[name], expected, msg=name)


def test_only_what_moves_is_averaged_and_the_rest_is_used_as_it_is() -> None:
    net = networks()
    net.only("net[conv3:]")
    average = Average(net, 0.5)
    names = set(average.state_dict()) - {"updates"}
    assert names and all(name.startswith(("net.model.conv3", "net.model.classify")) for name in names)
    assert {"net.model.conv3.norm.running_mean", "net.model.conv3.norm.running_var"} <= names
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        net["net"].model.classify.fc.weight += 1.0
    average.update()
    with average.applied():
        inside = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert all(torch.equal(inside[name], before[name]) for name in before if name not in names)
    torch.testing.assert_close(
        inside["net.model.classify.fc.weight"], before["net.model.classify.fc.weight"] + 0.9
    )  # the first update has a decay of 0.1
    assert torch.equal(net["net"].model.classify.fc.weight, before["net.model.classify.fc.weight"] + 1.0)


def test_a_saved_average_says_what_it_holds() -> None:
    net, other = networks(), networks()
    net.only("net[classify:]")
    average = Average(net, 0.5)
    for _ in range(3):
        with torch.no_grad():
            net["net"].model.classify.fc.weight.mul_(1.1)
        average.update()
    other.only([])  # nothing moves where it is loaded
    loaded = Average(other, 0.5)
    loaded.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    assert loaded.updates == 3 and loaded.state_dict().keys() == average.state_dict().keys()
    with average.applied(), loaded.applied():
        assert torch.equal(other["net"].model.classify.fc.weight, net["net"].model.classify.fc.weight)


TWO = """
phases:
- {name: low, train: "net[:classify]", objective: {cross-entropy: 1}}
- {name: high, train: "net[classify:]"%s}
"""


@pytest.mark.parametrize("fresh", ["", ", optimizer: fresh"])
def test_phases_of_other_slices(fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One optimizer: one average over what both move. A fresh one: averages begin anew, from the raw weights."""
    recipe = tmp_path / "two.yaml"
    recipe.write_text(TWO % fresh)
    how = {"budget": "20step", "model": "small", "settings": "quick", "overrides": ("average=0.9",)}
    train(tmp_path / "whole", str(recipe), **how)
    held = {name.split(".")[2] for name in final_state(tmp_path / "whole") if name.startswith("avg/net.model")}
    assert held == ({"classify"} if fresh else {"conv1", "conv2", "conv3", "classify"})
    undo = killed_at(13, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", str(recipe), **how)
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_it_begins_anew_after_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "best.yaml"
    recipe.write_text("phases:\n- {name: a, keep: {best: valid/accuracy}}\n- {name: b}\n")
    how = {"budget": "24step", "settings": "quick", "overrides": ("average=0.9",)}
    seen: list[int] = []
    update = Average.update
    monkeypatch.setattr(Average, "update", lambda self: (update(self), seen.append(self.updates))[0])
    train(tmp_path / "whole", str(recipe), **how)
    assert seen == [*range(1, 13), *range(1, 13)]
    undo = killed_at(15, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", str(recipe), **how)
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.skipif(not os.environ.get("AUGEND_DATA"), reason="AUGEND_DATA is not set")
def test_batch_norm_uses_the_statistics_of_the_averaged_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exported answers as a network whose statistics are computed anew with the averaged weights."""
    job = Job(
        data="cifar10:train=1500,valid=100,test=600", recipe="plain", model="small", budget="160step",
        settings="good-practice", overrides=("pixels=none",),
    )  # fmt: skip
    split = load(job.data)
    kept: dict[str, keeper.Keeper] = {}
    end = keeper.Keeper.end
    monkeypatch.setattr(keeper.Keeper, "end", lambda self: (kept.update(one=self), end(self))[1])
    result = start(job, RunFolder(tmp_path / "run"), Hardware(threads=1), splits={"main": split})
    net, average = kept["one"].networks, kept["one"].average
    net.eval()
    with average.applied(), torch.no_grad():
        ours = logits(net, "net", split.test)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for begin in range(0, 1500, 100):
            net["net"](split.train.pixels[begin : begin + 100].float() / 255)
        net.eval()
        anew = logits(net, "net", split.test)
    right = [float((out.argmax(1) == split.test.labels).float().mean()) for out in (ours, anew)]
    assert result["test"] == pytest.approx(right[0])
    assert right[0] > 0.3 and abs(right[0] - right[1]) < 0.02, right
    assert float((ours.argmax(1) == anew.argmax(1)).float().mean()) > 0.93
